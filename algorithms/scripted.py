"""Behaviour for collection that learns nothing: the family's noisy script, or a user's policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithms.collecting import Actor
from algorithms.errors import AlgorithmError
from environments.base import TaskFamily


class ScriptedActor(Actor):
    """Acts by `TaskFamily.scripted_actions`, task by task."""

    def __init__(
        self,
        family: TaskFamily,
        tasks: NDArray[np.float64],
        trials: int,
        rng: np.random.Generator,
        generator: torch.Generator,
        noise: float | Sequence[float],
    ) -> None:
        super().__init__(None, family, generator, 0.0)
        self._family = family
        self._tasks = np.repeat(tasks, trials, axis=0)
        self._rng = rng
        self._levels = (noise,) if isinstance(noise, float | int) else tuple(noise)
        self._noise: float | NDArray[np.float64] = self._levels[0]

    def begin_episode(self) -> None:
        """Where there are several levels of noise, each environment draws its own."""
        if len(self._levels) > 1:
            drawn = self._rng.integers(0, len(self._levels), len(self._tasks))
            self._noise = np.array(self._levels)[drawn]

    def act(self, observations: Tensor, donors: Tensor | None) -> Tensor:
        """Noisy scripted actions (rows, act); with donors, the script of the donor's task."""
        tasks, trials, _ = observations.shape
        rows = observations.reshape(tasks * trials, -1).numpy()
        target = self._tasks
        if donors is not None:
            target = self._tasks.reshape(tasks, trials, -1)[donors.numpy()].reshape(
                rows.shape[0], -1
            )
        return torch.from_numpy(self._family.scripted_actions(rows, target, self._rng, self._noise))


Policy = Callable[
    [NDArray[np.float32], NDArray[np.float64], np.random.Generator], NDArray[np.generic]
]
"""Actions (n, act) for observations (n, obs) and tasks (n, task)."""


class PolicyActor(Actor):
    """Acts by a user's own function."""

    def __init__(
        self,
        policy: Policy,
        family: TaskFamily,
        tasks: NDArray[np.float64],
        trials: int,
        rng: np.random.Generator,
        generator: torch.Generator,
    ) -> None:
        super().__init__(None, family, generator, 0.0)
        self._policy = policy
        self._kind = np.float32 if family.spec.n_actions is None else np.int64
        self._width = family.spec.action_dim
        self._tasks = np.repeat(tasks, trials, axis=0)
        self._rng = rng

    def act(self, observations: Tensor, donors: Tensor | None) -> Tensor:
        """The function's actions (rows, act).

        Raises:
            AlgorithmError: it gives another shape.
        """
        rows = observations.reshape(len(self._tasks), -1).numpy()
        actions = np.asarray(self._policy(rows, self._tasks, self._rng))
        if actions.shape != (len(rows), self._width):
            raise AlgorithmError(
                f"collect.policy gave actions of shape {actions.shape}, expected "
                f"{(len(rows), self._width)}"
            )
        return torch.from_numpy(np.ascontiguousarray(actions, dtype=self._kind))
