"""Behaviour for collection that learns nothing: the family's noisy scripted policy."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithms.collecting import Actor
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
        noise: float,
    ) -> None:
        super().__init__(None, family, generator, 0.0)
        self._family = family
        self._tasks = np.repeat(tasks, trials, axis=0)
        self._rng = rng
        self._noise = noise

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
