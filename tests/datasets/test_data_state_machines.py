"""The stores against plain dicts: hypothesis drives both and they must never disagree."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from datasets.checkpoints import CheckpointFile
from datasets.errors import DataError
from datasets.files import digest_tree
from datasets.hyper_state_layout import HyperStateLayout
from datasets.hyper_states import HyperStates, HyperStateWriter
from datasets.trial_store import (
    missing_tasks,
    read_meta,
    read_trials,
    task_path,
    write_meta,
    write_trials,
)
from datasets.trials import Trials

TASKS = st.integers(0, 2)
SEEDS = st.integers(0, 1000)


class OnDisk(RuleBasedStateMachine):
    """A machine with a folder of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


def run(machine: Callable[[], RuleBasedStateMachine], examples: int) -> None:
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=15, deadline=None)
    )


def trial_machine(make_trials: Any, make_meta: Any) -> type[OnDisk]:
    class TrialStoreMachine(OnDisk):
        """write, overwrite, delete, refuse; the model maps a task to its trials."""

        @initialize()
        def begin(self) -> None:
            self.model: dict[int, Trials] = {}
            self.meta = make_meta(make_trials())
            write_meta(self.folder, self.meta)

        @rule(task=TASKS, seed=SEEDS, count=st.integers(1, 4))
        def write(self, task: int, seed: int, count: int) -> None:
            trials = make_trials(seed=seed, count=count)
            write_trials(self.folder, self.meta, task, trials)
            self.model[task] = trials

        @rule(task=TASKS, seed=SEEDS)
        def write_the_same_again(self, task: int, seed: int) -> None:
            if task in self.model:
                before = digest_tree(self.folder)
                write_trials(self.folder, self.meta, task, self.model[task])
                assert digest_tree(self.folder) == before

        @rule(task=TASKS)
        def refuse(self, task: int) -> None:
            bad = make_trials()
            bad.rewards[1, 1, 1] = np.nan
            with pytest.raises(DataError, match=f"task {task}, trial 1, step 5"):
                write_trials(self.folder, self.meta, task, bad)

        @rule(task=TASKS)
        def delete(self, task: int) -> None:
            task_path(self.folder, task).unlink(missing_ok=True)
            self.model.pop(task, None)

        @rule(task=TASKS, cut=st.floats(0, 1, exclude_max=True))
        def truncate(self, task: int, cut: float) -> None:
            path = task_path(self.folder, task)
            if task in self.model:
                whole = path.read_bytes()
                path.write_bytes(whole[: int(cut * len(whole))])
                with pytest.raises(DataError, match=path.name):
                    read_trials(self.folder, task)
                path.write_bytes(whole)

        @invariant()
        def agrees(self) -> None:
            if not hasattr(self, "model"):
                return
            meta = read_meta(self.folder)
            assert missing_tasks(self.folder, meta) == [t for t in range(3) if t not in self.model]
            for task in range(3):
                if task not in self.model:
                    with pytest.raises(DataError, match="missing"):
                        read_trials(self.folder, task)
                    continue
                found = read_trials(self.folder, task, meta)
                for name, array in self.model[task].arrays.items():
                    np.testing.assert_array_equal(found.arrays[name], array)

    return TrialStoreMachine


def hyper_state_machine(make_fields: Any) -> type[OnDisk]:
    class HyperStateMachine(OnDisk):
        """write in any order, seal, read; the model maps a task to its fields."""

        @initialize(
            trials=st.integers(1, 3), n_actions=st.sampled_from([None, 3]), extra=st.booleans()
        )
        def begin(self, trials: int, n_actions: int | None, extra: bool) -> None:
            self.model: dict[int, dict[str, np.ndarray]] = {}
            self.layout = HyperStateLayout(3, trials, 2, 2, 2, 1, 1, n_actions, extra)
            self.writer = HyperStateWriter(self.folder / "x.zarr", self.layout)
            self.sealed = False

        @precondition(lambda self: not self.sealed)
        @rule(task=TASKS, seed=SEEDS)
        def write(self, task: int, seed: int) -> None:
            fields = make_fields(self.layout, seed)
            if task in self.model:
                with pytest.raises(DataError, match="written already"):
                    self.writer.write_task(task, fields)
            else:
                self.writer.write_task(task, fields)
                self.model[task] = fields

        @precondition(lambda self: not self.sealed)
        @rule(task=TASKS)
        def refuse(self, task: int) -> None:
            fields = make_fields(self.layout)
            fields["beliefs"][0, 1, 1] = np.inf
            with pytest.raises(DataError, match=r"trial 0, belief 1|written already"):
                self.writer.write_task(task, fields)

        @precondition(lambda self: not self.sealed)
        @rule()
        def seal(self) -> None:
            if len(self.model) == 3:
                self.writer.close()
                self.sealed = True
            else:
                with pytest.raises(DataError, match="were not written"):
                    self.writer.close()

        @rule(task=TASKS, data=st.data())
        def read(self, task: int, data: st.DataObject) -> None:
            if not self.sealed:
                with pytest.raises(DataError, match="never finished"):
                    HyperStates.open(self.folder / "x.zarr")
                return
            store = HyperStates.open(self.folder / "x.zarr")
            names = data.draw(st.lists(st.sampled_from(store.names), unique=True))
            read, loaded = store.read(names, task), store.load(names)
            assert list(read) == list(loaded) == names
            for name in names:
                np.testing.assert_array_equal(read[name], self.model[task][name])
                np.testing.assert_array_equal(loaded[name][task], self.model[task][name])

    return HyperStateMachine


class CheckpointMachine(OnDisk):
    """save, damage, reopen; the model is the last two notes, and which of them are whole."""

    @initialize()
    def begin(self) -> None:
        self.newest: int | None = None  # None: absent or damaged
        self.before: int | None = None
        self.reopen()

    @rule()
    def reopen(self) -> None:
        self.checkpoint = CheckpointFile(self.folder / "c")

    @rule(note=SEEDS)
    def save(self, note: int) -> None:
        self.checkpoint.save({"x": np.full(3, note)}, note)
        self.before = self.before if self.newest is None else self.newest
        self.newest = note

    @rule(newest=st.booleans(), position=st.floats(0, 1, exclude_max=True))
    def damage(self, newest: bool, position: float) -> None:
        path = self.checkpoint.path if newest else self.checkpoint.previous
        whole = self.newest if newest else self.before
        if whole is not None:  # the same bit flipped again would mend it
            damaged = bytearray(path.read_bytes())
            damaged[int(position * len(damaged))] ^= 0x40
            path.write_bytes(damaged)
            self.reopen()
            if newest:
                self.newest = None
            else:
                self.before = None

    @rule()
    def remove(self) -> None:
        self.checkpoint.remove()
        self.newest = self.before = None

    @rule()
    def load(self) -> None:
        wanted = self.before if self.newest is None else self.newest
        found = self.checkpoint.load()
        assert (None if found is None else found[1]) == wanted
        if found is not None:
            np.testing.assert_array_equal(found[0]["x"], found[1])


def test_the_trial_store_is_a_dict(make_trials: Any, make_meta: Any) -> None:
    run(trial_machine(make_trials, make_meta), 15)


def test_the_hyper_state_store_is_a_dict(make_fields: Any) -> None:
    run(hyper_state_machine(make_fields), 15)


def test_checkpoints_are_the_last_two_notes() -> None:
    run(CheckpointMachine, 30)


@pytest.mark.slow
def test_the_stores_are_dicts_at_length(make_trials: Any, make_meta: Any, make_fields: Any) -> None:
    run(trial_machine(make_trials, make_meta), 200)
    run(hyper_state_machine(make_fields), 200)
    run(CheckpointMachine, 200)
