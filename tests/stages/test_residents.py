"""Tasks that take turns in memory: who is there when, what it costs, and what may go wrong."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
import tracemalloc
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_store import write_store
from torch import Tensor

from datasets.errors import DataError
from datasets.hyper_state_layout import HyperStateLayout
from datasets.hyper_states import HyperStateWriter
from stages.config import OfflineConfig
from stages.errors import StageError
from stages.hyper_state_table import HyperStateTable
from stages.residents import Residents, visits
from stages.stored_tasks import StoredTasks

TASKS, SLOTS, EVERY = 7, 3, 5
UPDATES = EVERY * TASKS * 2
GIB = 2**30


def open_tasks(folder: Path, **changes: Any) -> tuple[StoredTasks, OfflineConfig]:
    """A store with settings that let three tasks stay at a time."""
    config = OfflineConfig(updates=UPDATES, rotation_updates=EVERY)
    config = OfflineConfig.model_validate(config.model_dump() | changes)
    tasks = StoredTasks(folder, config)
    if "memory_gb" not in changes:
        config = config.model_copy(update={"memory_gb": tasks.bytes_held(SLOTS) / GIB})
    return tasks, config


def make_residents(folder: Path, seed: int = 0, **changes: Any) -> Residents:
    """Three of seven tasks at a time, unless told otherwise."""
    tasks, config = open_tasks(folder, **changes)
    return Residents(tasks, config, np.random.default_rng(seed), "cpu")


def present(residents: Residents) -> list[int]:
    """The task in every slot, by its first observation."""
    return residents.table.rows.unflatten(0, (residents.slots, -1))[:, 0, 0].int().tolist()


def contents(table: HyperStateTable, slot: int, slots: int) -> list[Tensor]:
    """All that a slot holds, other outcomes beside their transitions."""
    parts = [tensor.unflatten(0, (slots, -1))[slot] for tensor in table.tensors[:4]]
    if table.others is not None:
        index = table.others.index.unflatten(0, (slots, -1))[slot]
        found = index[index >= 0]
        parts += [index >= 0, *(tensor[found] for tensor in table.others.tensors[1:])]
    return parts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven tasks."""
    path = tmp_path_factory.mktemp("seven")
    write_store(path, tasks=TASKS)
    return path


@pytest.fixture(scope="module")
def doubtful(tmp_path_factory: pytest.TempPathFactory) -> tuple[StoredTasks, OfflineConfig]:
    """Seven tasks with other outcomes."""
    path = tmp_path_factory.mktemp("doubtful")
    write_store(path, outcomes=True, tasks=TASKS)
    return open_tasks(path)


# ---------------------------------------------------------------------- the order of visits


@settings(deadline=None)
@given(st.integers(3, 9), st.data(), st.integers(0, 99))
def test_an_epoch_visits_every_task_once_and_none_that_is_there(
    tasks: int, data: st.DataObject, seed: int
) -> None:
    slots = data.draw(st.integers(2, tasks - 1))
    order = list(islice(visits(tasks, slots, np.random.default_rng(seed)), 6 * tasks))
    for first in range(0, len(order), tasks):
        assert sorted(order[first : first + tasks]) == list(range(tasks))
    for first in range(len(order) - slots):
        assert len(set(order[first : first + slots + 1])) == slots + 1


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [
        tuple(islice(visits(20, 5, np.random.default_rng(seed)), 20 * epoch, 20 * epoch + 20))
        for seed in range(3)
        for epoch in range(3)
    ]
    assert len(set(orders)) == 9


# ---------------------------------------------------------------------- who is there


@pytest.mark.parametrize("stride", [1, EVERY * (SLOTS + 2)])
def test_one_task_gives_way_to_the_next_on_the_schedule(stride: int, folder: Path) -> None:
    residents = make_residents(folder)
    order = visits_of(UPDATES // EVERY + SLOTS)
    for update in range(0, UPDATES, stride):
        residents.turn_to(update)
        turn = update // EVERY
        expected = sorted(range(turn, turn + SLOTS), key=lambda visit: visit % SLOTS)
        assert present(residents) == [order[visit] for visit in expected]


def visits_of(count: int) -> list[int]:
    """Whose turn it is, with the seed of `make_residents`."""
    return list(islice(visits(TASKS, SLOTS, np.random.default_rng(0)), count))


@pytest.mark.parametrize(
    ("store", "changes"),
    [
        ({"outcomes": True}, {}),
        ({"n_actions": 7, "outcomes": True}, {}),
        ({"belief_rewards": True}, {"use_belief_rewards": True}),
        ({"outcomes": True}, {"beliefs": False}),
    ],
)
def test_a_slot_holds_what_the_whole_table_holds_of_its_task(
    store: dict[str, Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    write_store(tmp_path, tasks=TASKS, **store)
    whole = make_residents(tmp_path, memory_gb=1.0, **changes)
    whole.turn_to(0)
    assert present(whole) == list(range(TASKS))
    residents = make_residents(tmp_path, **changes)
    seen = set()
    for update in range(0, UPDATES, EVERY):
        residents.turn_to(update)
        for slot, task in enumerate(present(residents)):
            found = contents(residents.table, slot, SLOTS)
            wanted = contents(whole.table, task, TASKS)
            assert all(map(torch.equal, found, wanted))
            seen.add(task)
    assert seen == set(range(TASKS))


def test_draws_are_the_residents_and_uniform(folder: Path) -> None:
    residents = make_residents(folder)
    residents.turn_to(2 * EVERY)
    batch = residents.table.sample(30_000, torch.Generator().manual_seed(0))
    found, counts = torch.unique(batch.states[0, :, 0], return_counts=True)
    assert found.tolist() == sorted(present(residents))
    assert (counts - 10_000).abs().max() < 450  # five standard deviations


@pytest.mark.parametrize("update", [0, 3, EVERY, 4 * EVERY + 2, UPDATES - 1])
def test_whoever_begins_at_an_update_has_the_same_table(update: int, folder: Path) -> None:
    """In the middle of an epoch, or of the second: a resumed training needs only its update."""
    through, resumed = make_residents(folder), make_residents(folder)
    for earlier in range(update + 1):
        through.turn_to(earlier)
    resumed.turn_to(update)
    for slot in range(SLOTS):
        pair = (contents(each.table, slot, SLOTS) for each in (through, resumed))
        assert all(map(torch.equal, *pair))


def test_where_all_fit_nothing_moves_and_nothing_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    residents = make_residents(folder, memory_gb=1.0)
    residents.turn_to(0)
    before = residents.table.rows.clone()
    residents.turn_to(UPDATES - 1)
    assert torch.equal(residents.table.rows, before)
    assert not caplog.records


def test_turns_are_told_of_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    residents = make_residents(folder)
    for update in range(UPDATES):
        residents.turn_to(update)
    (record,) = caplog.records
    assert "train-offline: 3 of 7 tasks are in memory at a time" in record.getMessage()
    assert "every 5 updates one of them gives way to the next" in record.getMessage()


@pytest.mark.parametrize(
    ("updates", "batch_size", "wanted"),
    [
        (10_000, 6, 4),  # 24 transitions a task, each drawn once
        (10_000, 100, 1),
        (70, 1, 2),  # four visits of seven tasks in 70 updates
        (3, 1, 1),
    ],
)
def test_turns_are_as_long_as_a_task_is_large(
    updates: int, batch_size: int, wanted: int, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_residents(folder, updates=updates, batch_size=batch_size, rotation_updates=None)
    assert f"every {wanted} updates" in caplog.text


def test_no_schedule_leaves_fingerprints_alone() -> None:
    assert "rotation_updates" not in OfflineConfig().model_dump(mode="json")
    assert OfflineConfig(rotation_updates=3).model_dump(mode="json")["rotation_updates"] == 3


# ---------------------------------------------------------------------- memory


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0.05, 1.2))
def test_what_is_held_stays_within_the_budget(
    share: float, doubtful: tuple[StoredTasks, OfflineConfig]
) -> None:
    tasks, config = doubtful
    budget = share * tasks.bytes_held(TASKS)
    config = config.model_copy(update={"memory_gb": budget / GIB})
    rng = np.random.default_rng(0)
    try:
        residents = Residents(tasks, config, rng, "cpu")
    except StageError as error:
        assert tasks.bytes_held(2) > budget
        words = re.search(r"too little for 2 of the 7 tasks .*; (\S+) would be enough", str(error))
        assert words is not None
        enough = config.model_copy(update={"memory_gb": float(words[1])})
        residents = Residents(tasks, enough, rng, "cpu")
        assert float(words[1]) * GIB < 1.1 * tasks.bytes_held(2) + 1
        assert residents.slots == 2
        return
    tables = [*residents.table.tensors, *tasks.room(1).tensors]
    read = tasks.layout.nbytes(tasks.layout.fields()) // TASKS
    assert sum(tensor.nbytes for tensor in tables) + read <= budget
    assert residents.slots == TASKS or tasks.bytes_held(residents.slots + 1) > budget


def test_reading_takes_no_more_than_is_reckoned_with(tmp_path: Path) -> None:
    layout = HyperStateLayout(2, 300, 2, 60, 2, 2, 5)
    rng = np.random.default_rng(0)
    with HyperStateWriter(tmp_path / "hyper_states.zarr", layout) as writer:
        for task in range(2):
            fields = {
                name: rng.uniform(-1, 1, field.shape[1:]).astype(field.dtype)
                for name, field in layout.fields().items()
            }
            writer.write_task(task, fields)
    tasks, _ = open_tasks(tmp_path)
    into = tasks.room(1)
    tasks.read(0, into)  # what is imported on the way stays
    tracemalloc.start()
    tasks.read(1, into)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    laid_out = sum(tensor.nbytes for tensor in into.tensors)
    assert laid_out < peak < tasks.bytes_held(0) - laid_out + 200_000


@pytest.mark.parametrize("beliefs", [True, False])
def test_moments_are_those_of_the_whole_store(beliefs: bool, folder: Path) -> None:
    whole = make_residents(folder, memory_gb=1.0, beliefs=beliefs).moments()
    residents = make_residents(folder, beliefs=beliefs)
    for found, wanted in zip(residents.moments(), whole, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
    residents.turn_to(0)
    assert present(residents) == visits_of(SLOTS)


# ---------------------------------------------------------------------- what may go wrong


def test_a_damaged_task_is_named_where_it_is_waited_for(tmp_path: Path) -> None:
    write_store(tmp_path, tasks=TASKS)
    task = visits_of(SLOTS + 2)[-1]
    residents = make_residents(tmp_path)
    chunk = tmp_path / f"hyper_states.zarr/rewards/c.{task}.0.0.0"
    chunk.write_bytes(bytes(len(chunk.read_bytes())))
    residents.turn_to(EVERY)
    with pytest.raises(DataError, match=f"task {task}: .*damaged"):
        residents.turn_to(2 * EVERY)


def test_any_other_error_of_the_reader_surfaces_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(tasks: StoredTasks, task: int, into: HyperStateTable) -> None:
        raise MemoryError

    monkeypatch.setattr(StoredTasks, "read", failing)
    with pytest.raises(MemoryError) as caught:
        make_residents(folder).turn_to(0)
    assert caught.value.__notes__ == [f"while task {visits_of(1)[0]} was read ahead"]


def slow(read: Callable[..., None], wait: Callable[[], Any]) -> Callable[..., None]:
    """A reader that waits first."""

    def reading(tasks: StoredTasks, task: int, into: HyperStateTable) -> None:
        wait()
        read(tasks, task, into)

    return reading


def test_a_slow_disk_changes_nothing_but_the_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, delayed = make_residents(folder), make_residents(folder)
    for update in range(0, UPDATES, EVERY):
        quick.turn_to(update)
        with monkeypatch.context() as patch:
            patch.setattr(StoredTasks, "read", slow(StoredTasks.read, lambda: time.sleep(0.005)))
            delayed.turn_to(update)
        assert torch.equal(quick.table.rows, delayed.table.rows)


def test_ctrl_c_does_not_wait_for_the_reader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()
    monkeypatch.setattr(StoredTasks, "read", slow(StoredTasks.read, stuck.wait))
    residents = make_residents(folder)
    # background jobs of a shell ignore the signal, and would wait here for ever
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            residents.turn_to(0)
        readers = [thread for thread in threading.enumerate() if thread.name == "omrl-reader"]
        assert readers
        assert all(thread.daemon for thread in readers)
    finally:
        signal.signal(signal.SIGINT, before)
        stuck.set()


def test_nothing_is_read_that_no_update_needs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, calls = StoredTasks.read, []

    def noting(tasks: StoredTasks, task: int, into: HyperStateTable) -> None:
        calls.append(task)
        read(tasks, task, into)

    monkeypatch.setattr(StoredTasks, "read", noting)
    residents = make_residents(folder)
    for update in range(UPDATES):
        residents.turn_to(update)
    assert calls == visits_of(SLOTS + UPDATES // EVERY - 1)
