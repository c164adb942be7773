"""Donors: trials of other tasks' behaviour, and how a batch draws from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from algorithms.config import RelabellingConfig
from algorithms.errors import AlgorithmError
from datasets.trials import Trials
from environments.base import TaskFamily

Int64 = NDArray[np.int64]

_DRAWS = 16  # attempts before a batch that nearly exhausts the donors is drawn in order instead


class Donors(NamedTuple):
    """Behaviour to relabel from, and the tasks whose rewards it can be given."""

    trials: Trials  # (rows, K, H, ...)
    pools: Sequence[Int64]  # a task, its rows that may be donors
    family: TaskFamily
    tasks: NDArray[np.float64]  # (tasks, task_dim), as many as pools


def draw_donors(
    rng: np.random.Generator,
    target_tasks: Int64,
    pools: Sequence[Int64],
    config: RelabellingConfig,
) -> Int64:
    """A donor for each target, no donor twice; (n,) entries of the pools.

    target_tasks (n,) is the task of each target; pools holds, a task, the rows that may be donors.
    The donor's task is uniform over the other tasks (or over all), the trial uniform within it.

    Raises:
        AlgorithmError: there are not enough donor trials for a batch of this size.
    """
    sizes = np.array([len(pool) for pool in pools])
    for _ in range(_DRAWS):
        tasks = _draw_tasks(rng, target_tasks, len(pools), config)
        if (np.bincount(tasks, minlength=len(pools)) <= sizes).all():
            break
    else:
        # Nearly every trial is needed, so independent draws rarely fit: shift all tasks alike.
        first = 0 if config.donors == "any-task" else 1
        tasks = (target_tasks + rng.integers(first, len(pools))) % len(pools)
        if (np.bincount(tasks, minlength=len(pools)) > sizes).any():
            raise AlgorithmError(
                f"relabelling needs {len(target_tasks)} different donor trials a batch, but the "
                f"tasks have {sizes.min()} to {sizes.max()} trials: lower trials_per_task"
            )
    places = _draw_without_replacement(rng, tasks, sizes)
    offsets = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    return np.concatenate(pools)[offsets[tasks] + places]


def _draw_tasks(
    rng: np.random.Generator, target_tasks: Int64, count: int, config: RelabellingConfig
) -> Int64:
    if config.donors == "any-task":
        return rng.integers(0, count, len(target_tasks))
    return (target_tasks + rng.integers(1, count, len(target_tasks))) % count


def _draw_without_replacement(
    rng: np.random.Generator, tasks: Int64, sizes: NDArray[np.int64]
) -> Int64:
    """A place in [0, size of the task's pool) for each entry of tasks (n,), no place twice."""
    places = rng.integers(0, sizes[tasks])
    while True:
        first = np.unique(tasks * sizes.max() + places, return_index=True)[1]
        if len(first) == len(places):
            return places
        again = np.setdiff1d(np.arange(len(places)), first)
        places[again] = rng.integers(0, sizes[tasks[again]])
