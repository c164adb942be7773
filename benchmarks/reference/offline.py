"""Offline RL on hyper-states: each task's transitions in NumPy buffers of their own.

A batch is drawn task by task and put together; one agent learns from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.reference.agents import PlainAgent
from benchmarks.reference.buffers import ReplayBuffer, Sample
from datasets.trials import Trials
from environments.base import Float32

TASKS, TRANSITIONS = 16, 256  # of a published batch: tasks, and transitions of each


def fill_buffer(trials: Trials, beliefs: Float32) -> ReplayBuffer:
    """The hyper-state transitions of one task's trials with beliefs (N, T + 1, 2L), in order.

    The step after an episode's last one starts at the next episode's reset observation with the
    belief carried on, and so does its next hyper-state; a trial's end is a truncation.
    """
    following = trials.next_observations.copy()
    following[:, :-1, -1] = trials.observations[:, 1:, 0]
    lead = trials.rewards.shape
    states = np.concatenate(
        [trials.observations[:, :, :-1], beliefs[:, :-1].reshape(*lead, -1)], -1
    )
    next_states = np.concatenate([following, beliefs[:, 1:].reshape(*lead, -1)], -1)
    width = states.shape[-1]
    discrete = trials.actions.dtype.kind == "i"
    buffer = ReplayBuffer(trials.rewards.size, width, trials.actions.shape[-1], discrete)
    buffer.states[:] = states.reshape(-1, width)
    buffer.actions[:] = trials.actions.reshape(len(buffer.states), -1)
    buffer.rewards[:] = trials.rewards.reshape(-1)
    buffer.next_states[:] = next_states.reshape(-1, width)
    buffer.terminals[:] = trials.terminations.reshape(-1)
    buffer.size = len(buffer.states)
    return buffer


def draw_tasks(rng: np.random.Generator, buffers: Sequence[ReplayBuffer]) -> NDArray[np.int64]:
    """The tasks of the batches to come, with replacement, (TASKS,)."""
    return rng.integers(0, len(buffers), TASKS)


def sample_tasks(
    rng: np.random.Generator,
    buffers: Sequence[ReplayBuffer],
    tasks: NDArray[np.int64],
    count: int = TRANSITIONS,
) -> Sample:
    """`count` transitions of each of these tasks."""
    drawn = [buffers[task].draw(rng, count) for task in tasks]
    return Sample(*(torch.from_numpy(np.concatenate(field)) for field in zip(*drawn, strict=True)))


def update(
    agent: PlainAgent,
    rng: np.random.Generator,
    buffers: Sequence[ReplayBuffer],
    tasks: NDArray[np.int64],
    count: int = TRANSITIONS,
) -> dict[str, float]:
    """One gradient step on a fresh batch; its losses."""
    return agent.update(sample_tasks(rng, buffers, tasks, count))
