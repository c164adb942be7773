"""Tasks of ML1 as vectors, and the two splits that the field compares on.

Metaworld draws its tasks from NumPy's global generator. Here the same draws come from a generator
of our own: `ml1` gives what `metaworld.ML1(name, seed)` of version 3 trains and tests on (its reset
draws twice, so every second draw counts, and its test tasks are the training tasks of seed + 1);
`idaq` gives what version 2 drew, the first 40 to train and the last 10 to test.
"""

from __future__ import annotations

import numpy as np

from environments.base import Float64
from environments.errors import TaskError
from environments.metaworld.arm import bounds
from environments.metaworld.facts import FACTS

COUNT = 50
IDAQ_TRAIN = 40


def legal(name: str, tasks: Float64) -> np.ndarray:
    """Which tasks (n, task) keep object and goal far enough apart, (n,)."""
    least = FACTS[name].least_distance
    if least is None:
        return np.ones(len(tasks), np.bool_)
    apart: np.ndarray = np.linalg.norm(tasks[:, :2] - tasks[:, 3:5], axis=1) >= least
    return apart


def draw(name: str, count: int, rng: np.random.Generator) -> Float64:
    """`count` tasks, uniform over the legal ones, (count, task)."""
    low, high = bounds(name)
    found = np.empty((0, len(low)))
    while len(found) < count:
        tasks = rng.uniform(low, high, (2 * count, len(low)))
        found = np.concatenate([found, tasks[legal(name, tasks)]])
    return found[:count]


def split(name: str, split_name: str, seed: int) -> tuple[Float64, Float64]:
    """Training and test tasks.

    Raises:
        TaskError: there is no such split.
    """
    if split_name == "ml1":
        train, test = (_drawn(name, s, 2 * COUNT)[1::2] for s in (seed, seed + 1))
    elif split_name == "idaq":
        tasks = _drawn(name, seed, COUNT)
        train, test = tasks[:IDAQ_TRAIN], tasks[IDAQ_TRAIN:]
    else:
        raise TaskError(f"ml1/{name} has no split {split_name!r}: take ml1 or idaq")
    seen = {task.tobytes() for task in train}
    shared = [index for index, task in enumerate(test) if task.tobytes() in seen]
    if shared:
        raise TaskError(f"ml1/{name}: test task {shared[0]} of split {split_name} is trained on")
    return train, test


def _drawn(name: str, seed: int, count: int) -> Float64:
    """The first legal draws of metaworld's generator with a seed, (count, task)."""
    low, high = bounds(name)
    rng = np.random.RandomState(seed)  # metaworld's; its stream is the benchmark
    found: list[Float64] = []
    while len(found) < count:
        task = rng.uniform(low, high, len(low))
        if legal(name, task[None])[0]:
            found.append(task)
    return np.array(found)
