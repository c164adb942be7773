"""Donors: trials of other tasks' behaviour, and how a batch draws from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from algorithms.config import RelabellingConfig
from algorithms.donor_plans import DonorPlan
from algorithms.errors import AlgorithmError
from datasets.trials import Trials
from environments.base import TaskFamily

Int64 = NDArray[np.int64]

_DRAWS = 16  # attempts before a batch that nearly exhausts the donors is drawn in order instead


class Donors(NamedTuple):
    """Behaviour to relabel from, and the tasks whose rewards it can be given.

    Where rewards need more than observations, only those of a plan are known.
    """

    trials: Trials  # (rows, K, H, ...)
    pools: Sequence[Int64]  # a task, its rows that may be donors
    family: TaskFamily
    tasks: NDArray[np.float64]  # (tasks, task_dim), as many as pools
    plan: DonorPlan | None = None
    firsts: Int64 | None = None  # (tasks,) row of each task's first trial; a plan needs it


def draw_donors(
    rng: np.random.Generator,
    target_tasks: Int64,
    pools: Sequence[Int64],
    config: RelabellingConfig,
    slots: int = 1,
) -> Int64:
    """Donors for each target, in every slot another draw; (n, slots) entries of the pools.

    target_tasks (n,) is the task of each target; pools holds, a task, the rows that may be donors.
    The donor's task is uniform over the other tasks (or over all), the trial uniform within it. In
    a slot no donor comes twice.

    Raises:
        AlgorithmError: there are not enough donor trials for a batch of this size.
    """
    sizes = np.array([len(pool) for pool in pools])
    tasks = _draw_tasks(rng, target_tasks, len(pools), config, slots)
    for _ in range(_DRAWS):
        crowded = np.flatnonzero((_counts(tasks, len(pools)) > sizes).any(1))
        if not len(crowded):
            break
        tasks[crowded] = _draw_tasks(rng, target_tasks, len(pools), config, len(crowded))
    else:
        # Nearly every trial is needed, so independent draws rarely fit: shift all tasks alike.
        first = 0 if config.donors == "any-task" else 1
        shifts = rng.integers(first, len(pools), (len(crowded), 1))
        tasks[crowded] = (target_tasks + shifts) % len(pools)
        if (_counts(tasks, len(pools)) > sizes).any():
            raise AlgorithmError(
                f"relabelling needs {len(target_tasks)} different donor trials a batch, but the "
                f"tasks have {sizes.min()} to {sizes.max()} trials: lower trials_per_task"
            )
    offsets = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    places = offsets[tasks] + _draw_without_replacement(rng, tasks, sizes)
    return np.concatenate(pools)[places].T


def _draw_tasks(
    rng: np.random.Generator,
    target_tasks: Int64,
    count: int,
    config: RelabellingConfig,
    slots: int,
) -> Int64:
    """A donor's task for every slot and target, (slots, n)."""
    shape = (slots, len(target_tasks))
    if config.donors == "any-task":
        return rng.integers(0, count, shape)
    return (target_tasks + rng.integers(1, count, shape)) % count


def _counts(tasks: Int64, count: int) -> Int64:
    """How often each of `count` tasks comes in each slot of tasks (slots, n); (slots, count)."""
    slots = len(tasks)
    keys = np.arange(slots)[:, None] * count + tasks
    return np.bincount(keys.reshape(-1), minlength=slots * count).reshape(slots, count)


def _draw_without_replacement(
    rng: np.random.Generator, tasks: Int64, sizes: NDArray[np.int64]
) -> Int64:
    """A place in [0, size of the task's pool) for each of tasks (slots, n), none twice a slot."""
    slots = np.arange(len(tasks))[:, None]
    first_place = ((slots * len(sizes) + tasks) * sizes.max()).reshape(-1)
    most = sizes[tasks].reshape(-1)
    places = rng.integers(0, most)
    while True:
        first = np.unique(first_place + places, return_index=True)[1]
        if len(first) == len(places):
            return places.reshape(tasks.shape)
        again = np.setdiff1d(np.arange(len(places)), first)
        places[again] = rng.integers(0, most[again])
