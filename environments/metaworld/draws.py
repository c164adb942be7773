"""Task vectors of ML1: drawn as Meta-World draws them, its split and IDAQ's, and what is legal."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from environments.base import Float64
from environments.errors import TaskError
from environments.metaworld.facts import Facts

SPLITS = ("ml1", "idaq")
SPLIT_TASKS = 50
IDAQ_TRAIN = 40
IDAQ_SEED = 1337


class Uniform(Protocol):
    """What both of NumPy's kinds of generator offer."""

    def uniform(self, low: Float64, high: Float64) -> Float64:
        """One draw."""


def draw(facts: Facts, rng: Uniform) -> Float64:
    """One legal task (width,): uniform, drawn again while object and goal are too close."""
    low, high = np.array(facts.low), np.array(facts.high)
    while True:
        task = rng.uniform(low, high)
        if facts.distance is None or not too_close(task[None], facts.distance)[0]:
            return task


def too_close(tasks: Float64, distance: float) -> np.ndarray:
    """Where a reset would draw again, and so never end on a fixed task, (n,)."""
    # Each norm by itself, as Meta-World does: along an axis NumPy sums in another way.
    gaps = (np.linalg.norm(task[:2] - task[3:5]) for task in tasks)
    return np.array([gap < distance for gap in gaps])


def check(facts: Facts, tasks: Float64) -> None:
    """Raise TaskError, with the index, unless tasks (n, width) are ones that a reset may draw."""
    low, high = np.array(facts.low), np.array(facts.high)
    for index in np.flatnonzero(((tasks < low) | (tasks > high)).any(axis=1))[:1]:
        raise TaskError(
            f"{facts.name}: task {index} is {tasks[index].tolist()}, "
            f"expected values from {low.tolist()} to {high.tolist()}"
        )
    if facts.distance is None:
        return
    for index in np.flatnonzero(too_close(tasks, facts.distance))[:1]:
        raise TaskError(
            f"{facts.name}: object and goal of task {index}, {tasks[index].tolist()}, are nearer "
            f"than {facts.distance} m on the table, expected at least that"
        )


def split(facts: Facts, name: str, seed: int) -> tuple[Float64, Float64]:
    """Training and test tasks that the field compares on.

    `ml1`: 50 and 50, those of `metaworld.ML1(name, seed)`, whose test tasks are the training tasks
    of seed + 1. `idaq`: the 40 and 10 of Meta-World's version 2, published with seed 1337
    (`IDAQ_SEED`).
    """
    if name == "ml1":
        train, test = (_benchmark(facts, seed + more, resets=2) for more in (0, 1))
    elif name == "idaq":
        drawn = _benchmark(facts, seed, resets=1)
        train, test = drawn[:IDAQ_TRAIN], drawn[IDAQ_TRAIN:]
    else:
        near = " or ".join(map(repr, SPLITS))
        raise TaskError(f"{facts.name} has no split {name!r}, expected {near}")
    common = {task.tobytes() for task in train} & {task.tobytes() for task in test}
    if common or len(np.unique(train, axis=0)) < len(train):
        raise TaskError(f"{facts.name}: split {name!r} of seed {seed} holds one task twice")
    return train, test


def _benchmark(facts: Facts, seed: int, resets: int) -> Float64:
    """The 50 tasks of a seed, (50, width); version 3 resets twice a task and keeps the second."""
    if not 0 <= seed < 2**32:
        raise TaskError(f"{facts.name}: seed {seed} of a split, expected one from 0 to 2**32 - 2")
    rng = np.random.RandomState(seed)  # Meta-World's own kind
    drawn = [draw(facts, rng) for _ in range(SPLIT_TASKS * resets)]
    return np.stack(drawn[resets - 1 :: resets])
