"""The command that makes runs again: nothing that decides their bytes is left out."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import RunToy, toy_request

from pipeline.again import again, run_words
from pipeline.cli import main
from pipeline.config import RuntimeConfig
from pipeline.records import RunRecord, find_record, list_records, write_record
from pipeline.run import execute
from pipeline.store import Store

LAYERS = "vae.model.reward_decoder.layers=[8, 16]"


@pytest.mark.parametrize(
    ("seeds", "text"),
    [([3], "--seed 3"), ([0, 1, 2], "--seeds 0..2"), ([0, 2, 5], "--seeds 0,2,5")],
)
def test_seeds_are_written_as_they_are_read(seeds: list[int], text: str) -> None:
    assert shlex.join(run_words("toy", (), seeds)) == f"omrl run toy {text}"


def test_what_changes_bytes_is_written_and_defaults_are_not() -> None:
    runtime = RuntimeConfig(device="cuda:1", precision="tf32", threads=4, workers=7, quiet=True)
    words = run_words("toy", [LAYERS], [0], "mine", runtime.decisive)
    assert shlex.join(words) == (
        f"omrl run toy --set '{LAYERS}' --seed 0 --name mine --device cuda:1 --precision tf32 "
        "--threads 4"
    )
    assert run_words("toy", (), [0], None, RuntimeConfig().decisive) == run_words("toy", (), [0])


def test_a_record_knows_threads_and_device(run_toy: RunToy, store: Store) -> None:
    request = replace(toy_request([LAYERS]), runtime=RuntimeConfig(threads=3))
    record = execute(request, store).record
    assert again([record]) == f"omrl run toy --set '{LAYERS}' --seed 0 --threads 3"
    other = replace(record, name=record.name.replace("seed0", "seed1"), seed=1)
    assert again([record, other]) == f"omrl run toy --set '{LAYERS}' --seeds 0..1 --threads 3"


def test_a_name_of_its_own_is_written(tmp_path: Path) -> None:
    record = RunRecord("mine-seed2", "toy", (), 2, "gridworld", {})
    assert again([record]) == "omrl run toy --seed 2 --name mine"
    assert again([replace(record, name="toy-seed2")]) == "omrl run toy --seed 2"
    file = replace(record, name="mine-seed2", preset=str(tmp_path / "mine.yaml"))
    assert again([file]) == f"omrl run {tmp_path / 'mine.yaml'} --seed 2"


def test_a_file_is_the_same_however_it_is_spelt(
    presets: Path, store: Store, fake: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: toy\n")
    (tmp_path / "deeper").mkdir()
    for folder, spelling in (
        (tmp_path, "mine.yaml"),
        (tmp_path / "deeper", "../mine.yaml"),
        (tmp_path / "deeper", str(file)),
    ):
        monkeypatch.chdir(folder)
        assert main(["run", spelling, "--no-prefect", "--no-report", "--quiet"]) == 0
        (record,) = list_records(store)
        assert record.preset == str(file)
        assert record.command == again([record]) == f"omrl run {file} --seed 0"


def test_a_record_from_before_has_no_flags(store: Store) -> None:
    write_record(store, RunRecord("toy-seed0", "toy", (), 0, "gridworld", {}))
    path = store.root / "records" / "toy-seed0.json"
    path.write_text(path.read_text().replace('"runtime": {},', "").replace('"runtime":{},', ""))
    assert "runtime" not in path.read_text()
    record = find_record(store, "toy-seed0")
    assert record is not None
    assert again([record]) == "omrl run toy --seed 0"
