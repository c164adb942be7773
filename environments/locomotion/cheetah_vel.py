"""Half-cheetah at a hidden velocity: two legs run as fast as the task says (PEARL, BOReL, 2021).

The task is a velocity g along x, U(0, 3) m/s. With v = (x' - x) / 0.05 s the displacement of the
torso in a step over its duration, the reward of a step is -|v - g| - 0.05 |a|^2; H = 200, K = 2.
Observations are qpos without x (8), qvel (9) and the torso's position (x, y, z). `origin` is the
model at rest; `wide` is Gymnasium's reset: qpos uniform within 0.1 and qvel normal with 0.1.

Deliberate deviations from the published code: v is that of the observed positions in float32, in
`step` as in relabelling, so the two agree exactly (there relabelling simulates a wrong step, which
is wrong by 0.39 a step on average); the torso's position is that of qpos after the step, not the
body frame's, which lags a time step behind; evaluation starts at rest (there with the reset's
noise), so that its starts are fixed; MuJoCo is 3.3 or newer and the model Gymnasium's v5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from environments.base import Actions, Float32, Float64, Sim, Spec
from environments.locomotion.family import TIME_STEP, LocomotionFamily, effort

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONTROL_COST = 0.05
TORSO_X = 17
"""Column of the observations with the torso's x."""
TORSO_HEIGHT = 0.7  # of the torso's frame where the vertical slide is 0
JOINTS = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")


class CheetahVel(LocomotionFamily):
    """Tasks that differ in the velocity to run at."""

    asset: ClassVar[str] = "half_cheetah.xml"
    rows_per_thread: ClassVar[int] = 30
    task_bounds: ClassVar[tuple[float, float]] = (0.0, 3.0)

    spec: ClassVar[Spec] = Spec(
        name="cheetah_vel",
        observation_names=(
            *("slide_z", "pitch", *JOINTS),
            *("velocity_x", "velocity_z", "velocity_pitch", *(f"velocity_{j}" for j in JOINTS)),
            *("torso_x", "torso_y", "torso_z"),
        ),
        action_dim=6,
        horizon=200,
        episodes=2,
        task_names=("velocity",),
        tasks_differ_in="reward",
    )

    def observe(self, states: Float64) -> Float32:
        """qpos without x, qvel, torso position; (n, 20)."""
        positions, velocities = self.physics.positions(states), self.physics.velocities(states)
        x, z = positions[:, :1], TORSO_HEIGHT + positions[:, 1:2]
        parts = (positions[:, 1:], velocities, x, np.zeros_like(x), z)
        return np.concatenate(parts, axis=1).astype(np.float32)

    def reward(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Sim | None = None,
    ) -> Float32:
        """-|v - g| - 0.05 |a|^2, (...,)."""
        missed = np.abs(velocity(observations, next_observations) - tasks[..., 0])
        reward: Float32 = -(missed + CONTROL_COST * effort(actions)).astype(np.float32)
        return reward

    def plot_rollout(self, axes: Axes, observations: Float32, task: Float64) -> None:
        """Draw the torso's velocity over time for every episode of (K, H + 1, 20), and g."""
        from environments.plots import draw_series

        seconds = TIME_STEP * np.arange(1, observations.shape[1], dtype=np.float64)
        run = velocity(observations[:, :-1], observations[:, 1:])  # (K, H)
        draw_series(axes, seconds, run, target=float(task[0]), labels=("seconds", "m/s"))


def velocity(observations: Float32, next_observations: Float32) -> Float64:
    """Mean velocity of the torso along x in a step, m/s, (...,)."""
    moved = next_observations[..., TORSO_X].astype(np.float64) - observations[..., TORSO_X]
    return np.asarray(moved / TIME_STEP)
