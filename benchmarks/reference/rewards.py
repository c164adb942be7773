"""Reward relabelling of a batch: a reward call for every single transition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from datasets.trials import Trials
from environments.base import Float32

Reward = Callable[[Float32, NDArray[Any], Float32], float]
"""The reward of one transition (s, a, s') under one task."""


def relabel_rewards(trials: Trials, donors: Trials, rewards: Sequence[Reward]) -> Trials:
    """Trials whose first max(1, K // 2) episodes are the donors', under their own tasks' rewards.

    trials and donors (N, K, H, ...), a reward for the task of each of the N. No environment that
    has a plain simulator terminates.
    """
    lead = max(1, trials.episodes // 2)
    joined = {name: array.copy() for name, array in trials.arrays.items() if "/" not in name}
    for name in ("observations", "actions", "truncations"):
        joined[name][:, :lead] = getattr(donors, name)[:, :lead]
    joined["terminations"][:, :lead] = False
    for trial, reward in enumerate(rewards):
        for episode in range(lead):
            observations = donors.observations[trial, episode]
            actions = donors.actions[trial, episode]
            for step in range(trials.horizon):
                joined["rewards"][trial, episode, step] = reward(
                    observations[step], actions[step], observations[step + 1]
                )
    return replace(trials, **joined, infos={})
