"""The tasks that an agent learns from at a time: all of a store, or as many as the memory holds.

Where not all fit, they take turns in the slots of one table: at fixed updates the task that came
first gives way to the next, which a thread has read and laid out meanwhile. Which tasks are there
at an update follows from the settings and the seed alone, never from the speed of a disk, so a
checkpoint need not say it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import islice
from threading import Thread

import numpy as np
from torch import Tensor

from datasets.errors import DataError
from stages.config import OfflineConfig
from stages.errors import StageError
from stages.hyper_state_table import moments
from stages.stored_tasks import StoredTasks

_FEWEST_SLOTS = 2
_FEWEST_VISITS = 4  # of a task in a training: what was learned long ago is forgotten otherwise
_GIB = 2**30

log = logging.getLogger("omrl.train-offline")


class Residents:
    """A table of tasks, and who is in it when.

    Visits are counted: visit v is in slot v % slots, and the first `slots` are there at the start.
    """

    def __init__(
        self,
        tasks: StoredTasks,
        config: OfflineConfig,
        rng: np.random.Generator,
        device: str,
    ) -> None:
        """Make room for as many tasks as `memory_gb` holds; nothing is read yet.

        Raises:
            StageError: it holds too few to take turns.
        """
        self._tasks = tasks
        self.slots = _affordable_slots(tasks, config)
        self._turn = config.updates  # a single one, where all tasks are there
        order = iter(range(len(tasks)))
        if self.slots < len(tasks):
            self._turn = _turn_length(tasks, config)
            order = visits(len(tasks), self.slots, rng)
            log.warning(
                "%s: %d of %d tasks are in memory at a time (offline.memory_gb is %g); every %d "
                "updates one of them gives way to the next",
                "train-offline" if config.beliefs else "train-blind",
                self.slots, len(tasks), config.memory_gb, self._turn,
            )  # fmt: skip
        visits_in_all = self.slots + (config.updates - 1) // self._turn
        self._order = islice(order, visits_in_all)
        self.table = tasks.room(self.slots, device)
        self._spare = tasks.room(1)
        self._visits = 0
        self._coming: Future[None] | None = None

    def turn_to(self, update: int) -> None:
        """Let those tasks be in the table that are to be there at `update` (0 is the first).

        Later calls must not go back.

        Raises:
            DataError: a task is damaged; names it.
        """
        first = update // self._turn
        if self._coming is None:
            self._begin_with(first)
        while self._visits < first + self.slots:
            self._take()

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of every coordinate over all tasks, before the first turn; (S,) each.

        Raises:
            DataError: a task is damaged.
        """
        if self.slots < len(self._tasks):
            return moments(self._tasks.rows(self._spare))
        self.turn_to(0)
        return moments([self.table.rows])

    def _begin_with(self, visit: int) -> None:
        """Leave out the visits before, which a run before this one has had; read the first."""
        for _ in range(visit):
            next(self._order)
        self._visits = visit
        self._read_ahead()

    def _take(self) -> None:
        """Put the task read ahead into the slot that is its turn, and read the one after it."""
        assert self._coming is not None
        self._coming.result()  # waits if need be; raises what the reader raised
        self.table.put(self._visits % self.slots, self._spare)
        self._visits += 1
        self._read_ahead()

    def _read_ahead(self) -> None:
        """Begin to read the next task, if another is needed before the training ends."""
        task = next(self._order, None)
        if task is not None:
            self._coming = _in_background(lambda: self._read(task))

    def _read(self, task: int) -> None:
        try:
            self._tasks.read(task, self._spare)
        except DataError as error:
            raise DataError(f"task {task}: {error}") from error
        except Exception as error:
            error.add_note(f"while task {task} was read ahead")
            raise


def visits(tasks: int, slots: int, rng: np.random.Generator) -> Iterator[int]:
    """Tasks in the order in which they become resident, endlessly; fewer slots than tasks.

    Every epoch visits each task once, in an order of its own, and no task that is resident still.
    """
    order = rng.permutation(tasks).tolist()
    while True:
        yield from order
        gone, present = order[: tasks - slots], order[tasks - slots :]
        order = []
        for leaving in present:
            order.append(gone.pop(int(rng.integers(len(gone)))))
            gone.append(leaving)
        order += rng.permutation(gone).tolist()


def _affordable_slots(tasks: StoredTasks, config: OfflineConfig) -> int:
    """How many tasks fit into `memory_gb`, all of them at most.

    Raises:
        StageError: too few; says what would be enough.
    """
    fewest = min(_FEWEST_SLOTS, len(tasks))
    needed, budget = tasks.bytes_held(fewest), config.memory_gb * _GIB
    if needed > budget:
        raise StageError(
            f"offline.memory_gb is {config.memory_gb:g}, too little for {fewest} of the "
            f"{len(tasks)} tasks and one on its way; {_rounded_up(needed / _GIB)} would be enough"
        )
    each = tasks.bytes_held(fewest + 1) - needed
    return min(len(tasks), fewest + int((budget - needed) // each))


def _turn_length(tasks: StoredTasks, config: OfflineConfig) -> int:
    """Updates between two turns.

    If not set, as many as draw each of a task's transitions once on average, so that a transition
    is read once for each that is drawn; fewer where the training is too short for that.
    """
    if config.rotation_updates is not None:
        return config.rotation_updates
    transitions = tasks.layout.trials * tasks.layout.steps
    few_enough = config.updates // (_FEWEST_VISITS * len(tasks))
    return max(1, min(transitions // config.batch_size, few_enough))


def _in_background(work: Callable[[], None]) -> Future[None]:
    """Begin some work in a thread that nobody has to wait for, not even at the process's end."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    Thread(target=run, name="omrl-reader", daemon=True).start()
    return done


def _rounded_up(number: float) -> str:
    """Two significant digits, not less than `number`."""
    quantum = 10.0 ** (math.floor(math.log10(number)) - 1)
    return f"{math.ceil(number / quantum) * quantum:.2g}"
