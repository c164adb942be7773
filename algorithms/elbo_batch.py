"""Trials as the ELBO reads them: transitions in order, and what the reward decoder must predict."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithms.decoding import DecodedSteps, own_steps
from algorithms.errors import AlgorithmError
from datasets.trials import Trials
from environments.base import TaskFamily
from models.config import RewardDecoderConfig
from models.inputs import Transitions

Float32 = NDArray[np.float32]


class ElboBatch(NamedTuple):
    """B trials of T = K*H steps that are encoded, and the S steps that their posteriors decode."""

    transitions: Transitions  # encoded, T steps
    decoded: Transitions  # S steps, the trial's own (S = T) or others
    targets: Tensor  # (B, S) decoded reward, or 1 where it is the high one of two (Bernoulli)
    cells: Tensor | None = None  # (B, S) int64, the decoded cell of s', for a reward head a cell
    task_targets: Tensor | None = None  # (B, S, N) targets under each of N tasks, to be averaged
    task_weights: Tensor | None = None  # (B, T + 1, N) with these weights


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
    decoded: DecodedSteps | None = None,
) -> ElboBatch:
    """N trials with the decoder's targets, on `device`; they decode their own steps if None."""
    encoded = to_transitions(trials, device)
    steps = own_steps(trials) if decoded is None else decoded
    transitions = encoded
    if decoded is not None:
        arrays = (steps.observations, steps.actions, steps.rewards, steps.next_observations)
        transitions = Transitions(*(_tensor(array, device) for array in arrays))
    cells = None
    if config.enabled and config.likelihood == "bernoulli-per-cell":
        cells = _tensor(family.cell(steps.next_observations), device)
    batch = ElboBatch(encoded, transitions, _targets(steps.rewards, family, config, device), cells)
    if steps.average is None:
        return batch
    return batch._replace(
        task_targets=_targets(steps.average.rewards, family, config, device),
        task_weights=_tensor(steps.average.weights, device),
    )


def _targets(
    rewards: Float32, family: TaskFamily, config: RewardDecoderConfig, device: torch.device | str
) -> Tensor:
    """What the reward decoder predicts of rewards (...)."""
    if config.enabled and config.likelihood != "squared-error":
        rewards = is_high(rewards, family.spec.binary_reward)
    return _tensor(rewards, device)


def is_high(rewards: Float32, binary_reward: tuple[float, float] | None) -> Float32:
    """1 where the reward is the high one of its two values, else 0; any shape."""
    if binary_reward is None:
        raise AlgorithmError("the reward is not one of two values: Bernoulli targets need that")
    return (rewards > sum(binary_reward) / 2).astype(np.float32)


def _tensor(array: NDArray[Any], device: torch.device | str) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(array)).to(device)
