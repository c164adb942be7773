"""Ant in a hidden direction: an ant walks as far as it can one way (VariBAD, BOReL).

The task is an angle, U(0, 2 pi). With v the displacement of the torso's (x, y) in a step over its
0.05 s, the reward of a step is v . (cos, sin) - 0.5 |a|^2 + 1; H = 200, K = 2. It ends where the
torso's height leaves [0.2, 1]. Observations are qpos without x and y (13) and qvel (14), so the
reward takes v, which is stored with the data, from the simulator. `origin` is the model at rest;
`wide` is Gymnasium's reset: qpos uniform within 0.1 and qvel normal with 0.1.

Deliberate deviations from the published code: positions are those of qpos, not the body frame's,
which lags a time step behind; no contact cost, which was zero with the versions it was published
with; evaluation starts at rest (there with the reset's noise), so that its starts are fixed. A
fallen ant stays as it is to the end of the episode and is paid nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from environments.base import Actions, Bool, Float32, Float64, Sim, Spec, spread
from environments.errors import TaskError
from environments.locomotion.ant import POSITIONS, VELOCITIES, AntFamily
from environments.locomotion.family import TIME_STEP, effort
from environments.planar import on_circle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONTROL_COST = 0.5
SURVIVAL = 1.0
HEIGHTS = (0.2, 1.0)
VELOCITY = "velocity"
"""The info that the reward needs: (v_x, v_y) of the step, m/s."""


class AntDir(AntFamily):
    """Tasks that differ in the direction to walk."""

    task_bounds: ClassVar[tuple[float, float]] = (0.0, 2.0 * np.pi)

    spec: ClassVar[Spec] = Spec(
        name="ant_dir",
        observation_names=(*POSITIONS[2:], *VELOCITIES),
        action_dim=8,
        horizon=200,
        episodes=2,
        task_names=("direction",),
        tasks_differ_in="reward",
        infos={VELOCITY: 2},
    )

    def observe(self, states: Float64) -> Float32:
        """qpos without x and y, and qvel, (n, 27)."""
        return super().observe(states)[:, 2:]

    def step_infos(self, before: Float64, after: Float64) -> Mapping[str, Float64]:
        """The torso's velocity in a step, (n, 2)."""
        moved = self.physics.positions(after)[:, :2] - self.physics.positions(before)[:, :2]
        return {VELOCITY: moved / TIME_STEP}

    def reward(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Sim | None = None,
    ) -> Float32:
        """v . (cos, sin) - 0.5 |a|^2 + 1, and 0 once the ant has fallen, (...,).

        Raises:
            TaskError: `sim` lacks the step's velocity.
        """
        if sim is None or VELOCITY not in sim:
            raise TaskError(f"{self.spec.name}: the reward needs sim[{VELOCITY!r}], (..., 2)")
        along = (sim[VELOCITY] * on_circle(tasks[..., 0])).sum(axis=-1)
        paid = along - CONTROL_COST * effort(actions) + SURVIVAL
        reward = np.where(_fallen(observations), 0.0, paid).astype(np.float32)
        return spread(reward, observations, actions, next_observations, tasks)

    def termination(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Sim | None = None,
    ) -> Bool:
        """Whether the torso's height has left [0.2, 1] at s', (...,)."""
        fallen = _fallen(next_observations)
        return spread(fallen, observations, actions, next_observations, tasks)

    def ended_infos(self, last: Sim, shape: tuple[int, ...]) -> Sim:
        """A fallen ant does not move, (*shape, 2)."""
        return {VELOCITY: np.zeros((*shape, 2))}

    def plot_rollout(self, axes: Axes, observations: Float32, task: Float64) -> None:
        """Draw the way of the torso in every episode of (K, H + 1, 27) and the direction.

        Places are not observed: they are summed from the velocities that are.
        """
        from environments.plots import draw_direction, draw_paths

        column = self.spec.observation_names.index("velocity_x")
        velocities = observations[..., column : column + 2].astype(np.float64)
        places = TIME_STEP * velocities.cumsum(axis=1)
        draw_paths(axes, (places - places[:, :1]).astype(np.float32))
        draw_direction(axes, on_circle(task[0]), float(np.abs(places).max()))


def _fallen(observations: Float32) -> Bool:
    """Whether the torso is too low or too high, (...,)."""
    height = observations[..., 0]
    fallen: Bool = (height < np.float32(HEIGHTS[0])) | (height > np.float32(HEIGHTS[1]))
    return fallen
