"""Ant semi-circle with sparse rewards: logs of agents that saw dense ones (BOReL, 2021).

As `ant_semicircle`, but the reward of a step is 1 if the torso's (x, y) is within 0.2 of the goal
after it, else 0, minus 0.1 |a|^2. An ordinary agent never finds such a goal, so the agents that
make the data learn from the dense reward; what is stored, and all that is learnt later, is sparse.

Deliberate deviations from the published code: those of `ant_semicircle`. Wide starts avoid the
ring on which goals lie, as in the published configuration; `AntSemicircleSparseOnRing` allows it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from environments.base import Actions, Float32, Float64, Sim, Spec
from environments.locomotion.ant_semicircle import CONTROL_COST, AntSemicircle
from environments.locomotion.family import effort


class AntSemicircleSparse(AntSemicircle):
    """Tasks that differ in the angle of a goal that pays only who is in it."""

    spec: ClassVar[Spec] = replace(AntSemicircle.spec, name="ant_semicircle_sparse")

    def reward(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Sim | None = None,
    ) -> Float32:
        """1[|(x, y) - g| <= 0.2] - 0.1 |a|^2, (...,)."""
        inside = self.success(observations, actions, next_observations, tasks)
        reward: Float32 = (inside - CONTROL_COST * effort(actions)).astype(np.float32)
        return reward

    def learning_reward(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Sim | None = None,
    ) -> Float32:
        """The dense reward of `ant_semicircle`, (...,)."""
        return super().reward(observations, actions, next_observations, tasks, sim)


class AntSemicircleSparseOnRing(AntSemicircleSparse):
    """The same, with wide starts anywhere in the rectangle, inside the goal too."""

    starts_on_ring: ClassVar[bool] = True
    spec: ClassVar[Spec] = replace(AntSemicircle.spec, name="ant_semicircle_sparse_on_ring")
