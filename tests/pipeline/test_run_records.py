"""Run records and garbage: what is kept because a run needs it, and what goes."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import RunToy
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.files import write_json
from pipeline.building import Recipe, obtain
from pipeline.cli import main
from pipeline.commands.report import write
from pipeline.errors import ConfigError, StoreError
from pipeline.garbage import find_garbage, remove, sweep, tree_size
from pipeline.records import (
    RunRecord,
    delete_record,
    find_record,
    list_records,
    read_record,
    run_name,
    unreadable_records,
    write_record,
)
from pipeline.run import StageCall, call_directly
from pipeline.store import Artefact, Store, lock_name
from stages.context import Interrupted


def test_names_of_runs() -> None:
    assert run_name("toy", (), 3) == "toy-seed3"
    assert run_name("toy", (), 3, "mine") == "mine-seed3"
    assert run_name("toy", ("a=1", "b=2"), 0) != run_name("toy", ("a=1", "b=3"), 0)
    for bad in ("../x", "a/b", "", "a\0", ".."):
        with pytest.raises(ConfigError, match="run name"):
            run_name("toy", (), 0, bad)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20), st.text(max_size=20), st.integers(0, 9), st.integers(0, 9))
def test_different_runs_have_different_names(a: str, b: str, m: int, n: int) -> None:
    assert (run_name("toy", (a,), m) == run_name("toy", (b,), n)) == ((a, m) == (b, n))


def record(name: str = "a", **changes: object) -> RunRecord:
    """A record."""
    return replace(RunRecord(name, "toy", (), 0, "gridworld", {"x": 1}), **changes)  # type: ignore[arg-type]


def test_records_come_back_as_written(store: Store) -> None:
    written = record(artefacts={"z": "trials/0", "a": "vae/1"}, overrides=("k=v",))
    write_record(store, written)
    assert read_record(store, "a") == written
    assert list(read_record(store, "a").artefacts) == ["z", "a"]
    delete_record(store, "a")
    assert find_record(store, "a") is None
    with pytest.raises(StoreError, match=r"no run 'a' in .*; there are none"):
        delete_record(store, "a")
    write_record(store, record("abc"))
    with pytest.raises(StoreError, match="did you mean 'abc'"):
        read_record(store, "abd")


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"format": 1}', '{"format": 2}', "\xff"])
def test_a_damaged_record_is_passed_over_and_can_be_written_again(text: str, store: Store) -> None:
    write_record(store, record())
    (store.root / "records" / "a.json").write_text(text, encoding="latin-1")
    assert list_records(store) == []
    assert unreadable_records(store) == [store.root / "records" / "a.json"]
    write_record(store, record())
    assert list_records(store) == [record()]
    assert unreadable_records(store) == []


def test_nothing_is_garbage_while_a_record_cannot_be_read(
    run_toy: RunToy, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store.root / "records" / f"{run_toy().record.name}.json"
    path.write_text("{}")
    for words in (["gc"], ["gc", "--dry-run"]):
        assert main(words) == 2
        assert f"{path} cannot be read" in capsys.readouterr().err
    assert len(list(store.all_keys())) == 6
    assert main(["ls"]) == 0
    assert f"{path} cannot be read" in capsys.readouterr().err
    assert main(["verify"]) == 1
    assert f"{path} cannot be read" in capsys.readouterr().err
    run_toy()
    assert main(["gc"]) == 0
    assert len(list(store.all_keys())) == 6


def test_a_copied_record_counts_once(store: Store) -> None:
    write_record(store, record())
    path = store.root / "records" / "a.json"
    (store.root / "records" / "b.json").write_bytes(path.read_bytes())
    (store.root / "records" / "c.json").symlink_to(path)
    assert [r.name for r in list_records(store)] == ["a"]


@pytest.mark.parametrize("name", ["../a", "..", "/etc/passwd", "a\0b", "con"])
def test_record_names_cannot_leave_the_store(name: str, store: Store) -> None:
    for act in (find_record, read_record, delete_record):
        with pytest.raises(ConfigError, match="run name"):
            act(store, name)
    assert not store.root.exists()


def test_garbage_is_what_no_record_leads_to(run_toy: RunToy, store: Store) -> None:
    run_toy()
    run_toy(["vae.kl_weight=0.1"])
    assert find_garbage(store) == []
    name = next(r.name for r in list_records(store) if r.overrides)
    assert len(find_garbage(store, frozenset([name]))) == 5  # the trials are shared
    delete_record(store, name)
    for item in find_garbage(store):
        assert item.size > 0
        assert remove(store, item)
    assert len(list(store.all_keys())) == 6
    assert run_toy().artefacts["evaluate"].cached


def test_inputs_of_what_a_run_needs_are_needed(run_toy: RunToy, store: Store) -> None:
    result = run_toy()
    only_scores = {"evaluate": result.record.artefacts["evaluate"]}
    write_record(store, replace(result.record, artefacts=only_scores))
    assert find_garbage(store) == []


def test_what_is_in_use_is_kept(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    def make(folder: Path) -> None:
        (folder / "data").touch()

    lease = obtain(store, Recipe("vae", "train-vae", 1, {}, 0), make)
    (item,) = find_garbage(store)
    assert main(["gc", "--dry-run"]) == 0
    assert "in use, kept" in capsys.readouterr().out
    assert not remove(store, item)
    lease.close()
    assert main(["gc", "--dry-run"]) == 0
    assert "no run uses it" in capsys.readouterr().out
    assert remove(store, item)
    assert find_garbage(store) == []


def test_logs_go_with_their_artefact(run_toy: RunToy, store: Store) -> None:
    result = run_toy()
    kind, name = store.parse(result.record.artefacts["train-vae"])
    for folder in (store.log_folder(kind, name), store.log_folder("vae", "0" * 20)):
        folder.mkdir(parents=True)
        (folder / "events").write_text("x" * 10)
    (item,) = find_garbage(store)
    assert item.path == store.log_folder("vae", "0" * 20)
    store.checkpoint_folder("vae", "0" * 20).mkdir(parents=True)  # still being trained
    assert find_garbage(store) == []
    delete_record(store, result.record.name)
    assert store.log_folder(kind, name) in [item.path for item in find_garbage(store)]


def test_left_overs_are_swept_unless_their_build_lives(store: Store) -> None:
    stale, alive = (f"vae-{digit * 20}" for digit in "01")
    for name in (stale, alive):
        (store.folder(".tmp") / f"{name}-abc").mkdir()
    (store.folder(".tmp") / "report-x").mkdir()
    (store.folder(".trash") / "anything").mkdir()
    lock = store.lock(alive)
    assert lock.try_exclusive()
    sweep(store)
    assert [path.name for path in (store.root / ".tmp").iterdir()] == [f"{alive}-abc"]
    assert list((store.root / ".trash").iterdir()) == []
    lock.release()


def test_only_the_checkpoints_of_finished_artefacts_are_swept(
    run_toy: RunToy, store: Store
) -> None:
    result = run_toy()
    kind, name = store.parse(result.record.artefacts["train-vae"])
    finished, running = (
        store.checkpoint_folder(kind, name),
        store.checkpoint_folder("vae", "0" * 20),
    )
    manifest = result.artefacts["train-vae"].folder / "manifest.json"
    for folder in (finished, running):
        folder.mkdir(parents=True)
        (folder / "cursor").touch()
    sweep(store)
    assert finished.exists()  # younger than the artefact: a refresh under way
    os.utime(finished / "cursor", ns=(0, manifest.stat().st_mtime_ns))
    sweep(store)
    assert not finished.exists()
    assert running.exists()


def aged(folder: Path, days: float) -> Path:
    """The folder with one file in it, both last written to so many days ago."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cursor").write_text("12")
    then = time.time_ns() - int(days * 24 * 3600e9)
    for path in (folder / "cursor", folder):
        os.utime(path, ns=(then, then))
    return folder


def test_old_checkpoints_of_nothing_go_and_young_ones_stay(store: Store) -> None:
    old, young = (store.checkpoint_folder("vae", digit * 20) for digit in "01")
    aged(old, 7.1)
    aged(young, 6.9)
    for folder in (store.log_folder("vae", digit * 20) for digit in "01"):
        aged(folder, 30)
    sweep(store)  # what every run begins with
    assert old.exists()
    found = {item.path: item for item in find_garbage(store)}
    assert set(found) == {old, store.log_folder("vae", "0" * 20)}
    assert found[old].reason == "checkpoint, not written to for 7 days"
    assert all(remove(store, item) for item in found.values())
    assert [path.name for path in (store.root / ".checkpoints").iterdir()] == [young.name]
    assert find_garbage(store) == []


def test_a_checkpoint_that_a_live_process_has_is_kept(store: Store) -> None:
    folder = aged(store.checkpoint_folder("vae", "0" * 20), 30)
    lock = store.lock(folder.name)
    assert lock.try_exclusive()
    (item,) = find_garbage(store)
    assert not remove(store, item)
    lock.release()
    (folder / "cursor").write_text("13")  # someone went on from it and stopped meanwhile
    assert not remove(store, item)
    assert folder.exists()
    assert find_garbage(store) == []


def test_files_may_vanish_while_garbage_is_looked_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A live process replaces its checkpoint at any moment."""
    folder = aged(store.checkpoint_folder("vae", "0" * 20), 30)
    lstat = Path.lstat

    def vanishing(path: Path) -> os.stat_result:
        if path.name == "cursor":
            raise FileNotFoundError(path)
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", vanishing)
    (item,) = find_garbage(store)
    assert (item.path, item.size) == (folder, 0)


def stopped_run(run_toy: RunToy, store: Store) -> tuple[RunRecord, Path]:
    """The record of a run stopped in train-vae, and the checkpoint that it would go on from."""
    stop = threading.Event()
    with pytest.raises(Interrupted):
        run_toy(stop=stop, call=lambda call: stop_in("train-vae", call, stop))
    record = read_record(store, "toy-seed0")
    return record, aged(store.checkpoint_folder(*store.parse(record.building)), 100)


def stop_in(step: str, call: StageCall, stop: threading.Event) -> Artefact:
    """Carry a step out, but have it stopped if it is that one."""
    if call.step.name == step:
        stop.set()
    return call_directly(call)


def test_a_stopped_run_keeps_its_checkpoint_however_old(run_toy: RunToy, store: Store) -> None:
    record, checkpoint = stopped_run(run_toy, store)
    assert (record.status, list(record.artefacts)) == ("unfinished", ["collect"])
    assert record.building.startswith("vae/")
    assert find_garbage(store) == []
    assert run_toy().record.building == ""
    assert not checkpoint.exists()
    assert find_garbage(store) == []


def test_a_forgotten_run_leaves_no_checkpoint(run_toy: RunToy, store: Store) -> None:
    record, checkpoint = stopped_run(run_toy, store)
    aged(checkpoint, 0)
    found = find_garbage(store, frozenset([record.name]))
    assert {item.path.name: item.reason for item in found} == {
        record.artefacts["collect"].partition("/")[2]: "no run uses it",
        checkpoint.name: "checkpoint of a forgotten run",
    }
    assert main(["gc", "--forget", record.name]) == 0
    assert not checkpoint.exists()


def report_page(store: Store, name: str, runs: list[str] | None) -> Path:
    """A page's folder; `runs` None: from before pages said whose they are."""
    folder = store.folder("reports") / name
    folder.mkdir()
    (folder / "index.html").write_text("page")
    stamp = {"request": "", "contents": ""}
    write_json(folder / "stamp.json", stamp if runs is None else {**stamp, "runs": runs})
    return folder


def test_reports_go_with_the_last_of_their_runs(store: Store) -> None:
    for name in ("a-seed0", "a-seed1", "b"):
        write_record(store, record(name))
    kept = [
        report_page(store, "a", ["a-seed0", "a-seed2"]),
        report_page(store, "a-seed0", None),
        report_page(store, "chosen", None),  # may be of any run
    ]
    gone = [report_page(store, "c-seed0", None), report_page(store, "mine", ["c-seed0"])]
    found = find_garbage(store)
    assert {item.path for item in found} == set(gone)
    assert {item.reason for item in found} == {"report of forgotten runs"}
    lock = store.lock("report-mine")
    assert lock.try_exclusive()  # being drawn at this moment
    assert [remove(store, item) for item in found] == [True, False]
    lock.release()
    assert all(remove(store, item) for item in find_garbage(store))
    assert sorted((store.root / "reports").iterdir()) == sorted(kept)
    assert list((store.root / ".trash").iterdir()) == []


def test_a_page_says_whose_it_is(run_toy: RunToy, store: Store) -> None:
    for seed in (0, 1):
        run_toy(seed=seed)
    folder = write(store, ["toy-seed0", "toy-seed1"], "both").parent
    delete_record(store, "toy-seed0")
    assert folder not in [item.path for item in find_garbage(store)]
    assert folder in [item.path for item in find_garbage(store, frozenset(["toy-seed1"]))]


def test_sizes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("123")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_text("45")
    assert tree_size(tmp_path) == 5
    assert tree_size(tmp_path / "a") == 3


def test_records_are_plain_json(run_toy: RunToy, store: Store) -> None:
    run_toy()
    document = json.loads((store.root / "records" / "toy-seed0.json").read_text())
    assert document["format"] == 1
    assert document["artefacts"][0][0] == "collect"
    assert lock_name("vae", "0") == "vae-0"
