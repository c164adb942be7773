"""Dense point robot: a point goes to a goal in a square (VariBAD Dream, Rimon et al., 2022).

The task is the goal, U([-1, 1]^2). Reward is minus the distance of s' to it; H = 60, K = 3.
Evaluation starts at the origin, collection from U([-1, 1]^2).

Deliberate deviations from the published code: it defines no success, here a step within 0.2 of
the goal is one, as in the sparse families; and it always starts wide, here only in collection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from environments.base import Actions, Bool, Float32, Float64, Spec, spread
from environments.planar import GOAL_RADIUS, PlanarFamily, distance, towards

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class PointRobot(PlanarFamily):
    """Tasks that differ in a goal point of the square."""

    spec: ClassVar[Spec] = Spec(
        name="point_robot",
        observation_names=("x", "y"),
        action_dim=2,
        horizon=60,
        episodes=3,
        task_names=("goal_x", "goal_y"),
        tasks_differ_in="reward",
    )

    def task_bounds(self) -> tuple[float, float]:
        """Both coordinates of the goal."""
        return -1.0, 1.0

    def wide_starts(self, tasks: Float64, rng: np.random.Generator) -> Float32:
        """Uniform over the square in which goals lie, (n, 2)."""
        return rng.uniform(-1.0, 1.0, (len(tasks), 2)).astype(np.float32)

    def reward(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Any = None,
    ) -> Float32:
        """Minus the distance of s' to the goal, (...,)."""
        reward = -distance(next_observations.astype(np.float64), tasks).astype(np.float32)
        return spread(reward, observations, actions, next_observations, tasks)

    def in_goal(self, positions: Float64, tasks: Float64) -> Bool:
        """Whether positions (..., 2) lie within 0.2 of the goal, (...,)."""
        return distance(positions, tasks) <= GOAL_RADIUS

    def oracle_actions(self, observations: Float32, tasks: Float64) -> Float32:
        """Straight to the goal, (..., 2)."""
        return towards(observations, tasks)

    def draw_arena(self, axes: Axes, task: Float64) -> None:
        """Draw the square in which goals lie and the goal."""
        from environments.plots import draw_disc, draw_square

        draw_square(axes, 1.0)
        draw_disc(axes, task, GOAL_RADIUS)
