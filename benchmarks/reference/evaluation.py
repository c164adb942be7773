"""Evaluation of one task after another, one step at a time: encoder, agent, environment."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.reference.agents import PlainAgent
from benchmarks.reference.networks import PlainEncoder
from benchmarks.reference.simulators import TaskSimulator
from environments.base import Float32


class Evaluated(NamedTuple):
    """What an agent lived through on one task."""

    rewards: Float32  # (K, H)
    beliefs: Float32  # (T + 1, 2L)


@torch.no_grad()
def evaluate_task(
    agent: PlainAgent,
    encoder: PlainEncoder,
    simulator: TaskSimulator,
    episodes: int,
    horizon: int,
    rng: np.random.Generator,
) -> Evaluated:
    """One trial from the prior, the belief carried over all episodes, deterministic."""
    rewards = np.zeros((episodes, horizon), np.float32)
    prior, hidden = encoder.prior(1)
    belief = prior[0]
    beliefs: list[Tensor] = [belief]
    for episode in range(episodes):
        observation = simulator.reset(rng)
        for step in range(horizon):
            state = np.concatenate([observation, belief.numpy()])
            action = agent.act(state, deterministic=True)
            observation, reward = simulator.step(action)
            rewards[episode, step] = reward
            filtered, hidden = encoder(
                torch.from_numpy(action).view(1, 1, -1),
                torch.tensor([[reward]]),
                torch.from_numpy(observation).view(1, 1, -1),
                hidden,
            )
            belief = filtered[0, 0]
            beliefs.append(belief)
    return Evaluated(rewards, torch.stack(beliefs).numpy())
