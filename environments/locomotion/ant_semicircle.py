"""Ant semi-circle with dense rewards: an ant walks to a goal on the half circle (BOReL, 2021).

The task is the goal's angle, U(0, pi), on the unit circle. The reward of a step is minus the L1
distance of the torso's (x, y) after it to the goal, minus 0.1 |a|^2; H = 200, K = 2. Observations
are qpos (15, with x and y) and qvel (14). Nothing ends an episode. `origin` is the model at rest
at (0, 0); `wide` has x ~ U(-1.5, 1.5), y ~ U(-0.5, 1.5) outside 0.8 <= |(x, y)| <= 1.2, as in the
published collection.

Deliberate deviations from the published code: positions are those of qpos after the step, not the
body frame's, which lags a time step behind; a step within 0.2 of the goal is a success, as with
sparse rewards (there the dense class has none); MuJoCo is 3.3 or newer, the model Gymnasium's v5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from environments.base import Actions, Bool, Float32, Float64, Sim, Spec, spread
from environments.locomotion.ant import POSITIONS, VELOCITIES, AntFamily
from environments.locomotion.family import effort
from environments.planar import GOAL_RADIUS, distance, on_circle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONTROL_COST = 0.1
RING = (0.8, 1.2)
"""Distances from the middle at which goals are reached; wide starts may be kept out of them."""


class AntSemicircle(AntFamily):
    """Tasks that differ in the angle of a goal on the half circle."""

    has_success: ClassVar[bool] = True
    task_bounds: ClassVar[tuple[float, float]] = (0.0, np.pi)
    starts_on_ring: ClassVar[bool] = False  # whether wide starts may lie where goals can be

    spec: ClassVar[Spec] = Spec(
        name="ant_semicircle",
        observation_names=(*POSITIONS, *VELOCITIES),
        action_dim=8,
        horizon=200,
        episodes=2,
        task_names=("goal_angle",),
        tasks_differ_in="reward",
    )

    def wide_starts(self, states: Float64, rng: np.random.Generator) -> None:
        """Place resting ants (n, width) in the rectangle around the half circle, in place."""
        places = self.physics.positions(states)[:, :2]
        left = np.arange(len(places))
        while len(left):
            places[left] = rng.uniform((-1.5, -0.5), (1.5, 1.5), (len(left), 2))
            radii = np.hypot(*places[left].T)
            left = left[(radii >= RING[0]) & (radii <= RING[1]) & (not self.starts_on_ring)]

    def reward(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Sim | None = None,
    ) -> Float32:
        """-|(x, y) - g|_1 - 0.1 |a|^2, (...,)."""
        away = np.abs(_places(next_observations) - on_circle(tasks[..., 0])).sum(axis=-1)
        reward = -(away + CONTROL_COST * effort(actions)).astype(np.float32)
        return spread(reward, observations, actions, next_observations, tasks)

    def success(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: object = None,
    ) -> Bool:
        """Whether the torso is within 0.2 of the goal after the step, (...,)."""
        inside = distance(_places(next_observations), on_circle(tasks[..., 0])) <= GOAL_RADIUS
        return spread(inside, observations, actions, next_observations, tasks)

    def plot_rollout(self, axes: Axes, observations: Float32, task: Float64) -> None:
        """Draw the half circle, the goal and the path of every episode of (K, H + 1, 29)."""
        from environments.plots import draw_disc, draw_half_circle, draw_paths

        draw_half_circle(axes)
        draw_disc(axes, on_circle(task[0]), GOAL_RADIUS)
        draw_paths(axes, observations[..., :2])


def _places(observations: Float32) -> Float64:
    """(x, y) of the torso, (..., 2)."""
    return observations[..., :2].astype(np.float64)
