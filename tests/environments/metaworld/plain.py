"""Meta-World's own environments, as they come, to compare with."""

from __future__ import annotations

import warnings
from typing import Any

import metaworld
import numpy as np

from environments.base import Float64


def plain_environment(key: str, task: Float64) -> tuple[Any, Float64]:
    """A fresh environment reset on a task, and its first observation (39,)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env: Any = metaworld.ALL_V3_ENVIRONMENTS[f"{key}-v3"]()
    env._freeze_rand_vec, env._last_rand_vec, env._set_task_called = True, task.copy(), True
    return env, env.reset()[0]


def ml1_tasks(key: str, seed: int) -> tuple[Float64, Float64]:
    """Training and test tasks of Meta-World's benchmark, (50, width) each."""
    import pickle  # what Meta-World packs its own tasks with; nothing here comes from a file

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = metaworld.ML1(f"{key}-v3", seed=seed)
    parts = (found.train_tasks, found.test_tasks)
    train, test = ([pickle.loads(task.data)["rand_vec"] for task in part] for part in parts)  # noqa: S301
    return np.array(train), np.array(test)
