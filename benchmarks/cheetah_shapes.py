"""A stand-in with the shapes of half-cheetah-vel: no physics, so only what learns is timed with it.

Observations, actions, horizon and episodes are those of BOReL's HalfCheetahVel, and the reward has
its form: minus the distance of the forward velocity (from the torso's x in s and s') to the task's,
minus 0.05 |a|^2. The dynamics are linear, so that a step costs nothing worth measuring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from environments.base import Actions, Bool, Float32, Float64, Spec, spread
from environments.observable import ObservableFamily

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, ACTIONS = 20, 6
TIME_STEP = 0.05  # seconds
CONTROL_COST = 0.05
TOP_SPEED = 3.0  # of a drive of 1, and the fastest task
DECAY = 0.9  # share of everything but x that a step keeps
FORCES = np.random.default_rng(0).uniform(-0.1, 0.1, (ACTIONS, WIDTH - 1))
"""What actions add to everything but x, (6, 19); the first column, the drive, is their mean."""
FORCES[:, 0] = (1 - DECAY) / ACTIONS


class CheetahShapes(ObservableFamily):
    """Tasks that differ in the target velocity, U(0, 3); coordinate 0 is x, coordinate 1 drives."""

    spec: ClassVar[Spec] = Spec(
        name="cheetah_shapes",
        observation_names=("x", "drive", *(f"joint_{joint}" for joint in range(WIDTH - 2))),
        action_dim=ACTIONS,
        horizon=200,
        episodes=2,
        task_names=("velocity",),
        tasks_differ_in="reward",
    )

    def sample_tasks(self, count: int, rng: np.random.Generator) -> Float64:
        """Draw `count` target velocities, (count, 1)."""
        return rng.uniform(0.0, TOP_SPEED, (count, 1))

    def wide_starts(self, tasks: Float64, rng: np.random.Generator) -> Float32:
        """Small noise around rest, (n, 20)."""
        return rng.uniform(-0.1, 0.1, (len(tasks), WIDTH)).astype(np.float32)

    def transition(self, observations: Float32, actions: Actions, tasks: Float64) -> Float32:
        """Joints decay and are pushed; x moves with the new drive, (..., 20)."""
        before = observations.astype(np.float64)
        joints = DECAY * before[..., 1:] + actions.astype(np.float64) @ FORCES
        x = before[..., :1] + TIME_STEP * TOP_SPEED * joints[..., :1]
        return np.concatenate([x, joints], axis=-1).astype(np.float32)

    def reward(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Any = None,
    ) -> Float32:
        """-|velocity - task's| - 0.05 |a|^2, (...,)."""
        moved = next_observations[..., 0].astype(np.float64) - observations[..., 0]
        missed = np.abs(moved / TIME_STEP - tasks[..., 0])
        effort = np.einsum("...i,...i", actions, actions, dtype=np.float64)
        reward: Float32 = -(missed + CONTROL_COST * effort).astype(np.float32)
        return reward

    def success(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Any = None,
    ) -> Bool:
        """Never, (...,): there is no goal set."""
        return spread(np.array(False), observations, actions, next_observations, tasks)

    def oracle_actions(self, observations: Float32, tasks: Float64) -> Actions:
        """The constant actions (..., 6) whose drive settles at the task's velocity."""
        steady = np.broadcast_to(tasks / TOP_SPEED, (*observations.shape[:-1], ACTIONS))
        return steady.astype(np.float32)

    def plot_rollout(self, axes: Axes, observations: Float32, task: Float64) -> None:
        """Draw x over time, one line an episode of (K, H + 1, 20)."""
        axes.plot(observations[..., 0].T)
