"""Meta-World's scripted experts, which read the goal where ML1 shows zeros."""

from __future__ import annotations

import threading
import warnings
from functools import cache
from typing import Any

import numpy as np

from environments.base import Float32, Float64
from environments.metaworld.facts import Facts

GOAL = slice(36, 39)
_lock = threading.Lock()


def act(facts: Facts, observations: Float32, goals: Float64) -> Float32:
    """The expert's actions (rows, 4) on observations (rows, 39) with the goals (rows, 3)."""
    policy = _policy(facts.key)
    seen = observations.astype(np.float64)
    seen[:, GOAL] = goals
    actions = np.empty((len(seen), 4), np.float32)
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that gains may be too high: actions are clipped here
        for row, observation in enumerate(seen):
            actions[row] = policy.get_action(observation)
    return np.clip(actions, -1.0, 1.0)


@cache
def _policy(key: str) -> Any:
    from metaworld.policies import ENV_POLICY_MAP

    return ENV_POLICY_MAP[f"{key}-v3"]()
