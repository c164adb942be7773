"""Wind: a point holds a known disc against a wind it must infer (Dorfman et al., BOReL).

The task is a wind, U([-0.05, 0.05]^2), added to every step: s' = s + 0.1 a + w. Reward 1 for a
step that ends within 0.2 of (0, 1), else 0; H = 25, K = 2. Tasks differ in dynamics, so rewards
cannot be relabelled across them.

Deliberate deviations from the published code: none in the MDP. There every episode starts at the
origin, in collection too; a wide start, x ~ U(-1.5, 1.5), y ~ U(-0.5, 1.5), is offered beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from environments.base import Actions, Bool, Float32, Float64, Spec
from environments.planar import GOAL_RADIUS, PlanarFamily, distance, proposed, towards

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GOAL = np.array([0.0, 1.0])


class PointRobotWind(PlanarFamily):
    """Tasks that differ in a constant wind."""

    spec: ClassVar[Spec] = Spec(
        name="point_robot_wind",
        observation_names=("x", "y"),
        action_dim=2,
        horizon=25,
        episodes=2,
        task_names=("wind_x", "wind_y"),
        tasks_differ_in="dynamics",
        binary_reward=(0.0, 1.0),
        collection_start="origin",
    )

    def task_bounds(self) -> tuple[float, float]:
        """Both components of the wind, displacement a step."""
        return -0.05, 0.05

    def wide_starts(self, tasks: Float64, rng: np.random.Generator) -> Float32:
        """Uniform over a rectangle around the goal, (n, 2)."""
        return rng.uniform((-1.5, -0.5), (1.5, 1.5), (len(tasks), 2)).astype(np.float32)

    def transition(self, observations: Float32, actions: Actions, tasks: Float64) -> Float32:
        """s + 0.1 a + w in float64, rounded once to float32."""
        return (proposed(observations, actions) + tasks).astype(np.float32)

    def in_goal(self, positions: Float64, tasks: Float64) -> Bool:
        """Whether positions (..., 2) lie within 0.2 of (0, 1), (...,)."""
        return distance(positions, GOAL) <= GOAL_RADIUS

    def oracle_actions(self, observations: Float32, tasks: Float64) -> Float32:
        """Straight to the goal, leaning against the wind, (..., 2)."""
        return towards(observations, GOAL - tasks)

    def draw_arena(self, axes: Axes, task: Float64) -> None:
        """Draw the goal and the wind."""
        from environments.plots import draw_disc, draw_wind

        draw_disc(axes, GOAL, GOAL_RADIUS)
        draw_wind(axes, task, self.task_bounds()[1])
