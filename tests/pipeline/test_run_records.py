"""Run records and garbage: what is kept because a run needs it, and what goes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import RunToy
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.building import Recipe, obtain
from pipeline.errors import ConfigError, StoreError
from pipeline.garbage import find_garbage, remove, sweep, tree_size
from pipeline.records import (
    RunRecord,
    delete_record,
    find_record,
    list_records,
    read_record,
    run_name,
    write_record,
)
from pipeline.store import Store, lock_name


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
    write_record(store, record())
    assert list_records(store) == [record()]


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


def test_what_is_in_use_is_kept(store: Store) -> None:
    def make(folder: Path) -> None:
        (folder / "data").touch()

    lease = obtain(store, Recipe("vae", "train-vae", 1, {}, 0), make)
    (item,) = find_garbage(store)
    assert not remove(store, item)
    lease.close()
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
