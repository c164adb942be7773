"""A NumPy replay buffer: one array a field, allocated once, sampled uniformly."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from environments.base import Float32


class Sample(NamedTuple):
    """B transitions."""

    states: Tensor  # (B, state_dim)
    actions: Tensor  # (B, act), float in [-1, 1] or int64
    rewards: Tensor  # (B,)
    next_states: Tensor  # (B, state_dim)
    terminals: Tensor  # (B,) 1 where the environment ended, 0 at time limits


class ReplayBuffer:
    """Transitions of one task; `size` of them are filled."""

    def __init__(self, capacity: int, state_dim: int, action_dim: int, discrete: bool) -> None:
        self.states = np.zeros((capacity, state_dim), np.float32)
        self.actions = np.zeros((capacity, action_dim), np.int64 if discrete else np.float32)
        self.rewards = np.zeros(capacity, np.float32)
        self.next_states = np.zeros((capacity, state_dim), np.float32)
        self.terminals = np.zeros(capacity, np.float32)
        self.size = 0

    def add(
        self,
        state: Float32,
        action: NDArray[Any],
        reward: float,
        next_state: Float32,
        terminal: bool,
    ) -> None:
        """Append one transition."""
        self.states[self.size] = state
        self.actions[self.size] = action
        self.rewards[self.size] = reward
        self.next_states[self.size] = next_state
        self.terminals[self.size] = terminal
        self.size += 1

    def draw(self, rng: np.random.Generator, count: int) -> list[NDArray[Any]]:
        """The fields of `count` transitions, uniform with replacement, in the order of `Sample`."""
        index = rng.integers(0, self.size, count)
        return [field[index] for field in self.fields()]

    def sample(self, rng: np.random.Generator, count: int) -> Sample:
        """`count` transitions, uniform with replacement, as tensors."""
        return Sample(*map(torch.from_numpy, self.draw(rng, count)))

    def fields(self) -> list[NDArray[Any]]:
        """The filled part of every field, in the order of `Sample`."""
        fields = (self.states, self.actions, self.rewards, self.next_states, self.terminals)
        return [field[: self.size] for field in fields]
