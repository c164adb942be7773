"""Trials as the ELBO reads them: transitions in order, and what the reward decoder must predict."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithms.errors import AlgorithmError
from datasets.trials import Trials
from environments.base import TaskFamily
from models.config import RewardDecoderConfig
from models.inputs import Transitions

Float32 = NDArray[np.float32]


class ElboBatch(NamedTuple):
    """B trials of T = K*H steps: what is encoded, and what its posteriors decode."""

    transitions: Transitions  # encoded
    decoded: Transitions  # the same, but where relabelling asks for a donor's
    targets: Tensor  # (B, T) decoded reward, or 1 where it is the high one of two (Bernoulli)
    cells: Tensor | None  # (B, T) int64, the decoded cell of s', for a reward head a cell


def check_likelihood(family: TaskFamily, config: RewardDecoderConfig) -> None:
    """Raise AlgorithmError unless the family's rewards fit the decoder's likelihood."""
    spec = family.spec
    if not config.enabled or config.likelihood == "squared-error":
        return
    if spec.binary_reward is None:
        raise AlgorithmError(
            f"reward_decoder.likelihood is {config.likelihood}, but rewards of {spec.name} are not "
            "one of two values: use squared-error"
        )
    if config.likelihood == "bernoulli-per-cell" and spec.cells is None:
        raise AlgorithmError(
            f"reward_decoder.likelihood is bernoulli-per-cell, but {spec.name} has no cells: "
            "use bernoulli"
        )


def to_transitions(trials: Trials, device: torch.device | str = "cpu") -> Transitions:
    """The steps of N trials in order, (N, T, ...), on `device`; episode boundaries vanish.

    Every episode brings its own reset observation as the s of its first step.
    """
    flat = (trials.count, trials.steps, -1)
    return Transitions(
        observations=_tensor(trials.observations[:, :, :-1].reshape(flat), device),
        actions=_tensor(trials.actions.reshape(flat), device),
        rewards=_tensor(trials.rewards.reshape(flat[:2]), device),
        next_observations=_tensor(trials.observations[:, :, 1:].reshape(flat), device),
    )


def make_batch(
    trials: Trials,
    family: TaskFamily,
    config: RewardDecoderConfig,
    device: torch.device | str = "cpu",
    decoded: Trials | None = None,
) -> ElboBatch:
    """N trials with the decoder's targets, on `device`; `decoded` trials are their own if None."""
    encoded = to_transitions(trials, device)
    transitions = encoded
    if decoded is not None and decoded is not trials:
        trials, transitions = decoded, to_transitions(decoded, device)
    rewards = trials.rewards.reshape(trials.count, trials.steps)
    targets: Float32 = rewards
    cells = None
    if config.enabled and config.likelihood != "squared-error":
        targets = is_high(rewards, family.spec.binary_reward)
    if config.enabled and config.likelihood == "bernoulli-per-cell":
        entered = family.cell(trials.next_observations)
        cells = _tensor(entered.reshape(trials.count, trials.steps), device)
    return ElboBatch(encoded, transitions, _tensor(targets, device), cells)


def is_high(rewards: Float32, binary_reward: tuple[float, float] | None) -> Float32:
    """1 where the reward is the high one of its two values, else 0; any shape."""
    if binary_reward is None:
        raise AlgorithmError("the reward is not one of two values: Bernoulli targets need that")
    return (rewards > sum(binary_reward) / 2).astype(np.float32)


def _tensor(array: NDArray[Any], device: torch.device | str) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(array)).to(device)
