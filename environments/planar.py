"""What the four point-robot families share: a point in the plane that steps by up to 0.1 an axis.

Actions are in [-1, 1]^2; the simulator scales them by 0.1, so stored actions are the policy's own
(the published code scales random warm-up actions twice, which makes them 10 times too small).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from environments.base import Actions, Bool, Float32, Float64, spread
from environments.errors import TaskError
from environments.observable import ObservableFamily

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEP_SIZE = 0.1
"""Largest displacement of one step along each axis (max-norm)."""
GOAL_RADIUS = 0.2


class PlanarFamily(ObservableFamily):
    """A point in the plane, observed exactly; s' = s + 0.1 a unless a family says otherwise."""

    def sample_tasks(self, count: int, rng: np.random.Generator) -> Float64:
        """Draw `count` distinct tasks uniformly between the bounds, (count, task)."""
        if count < 1:
            raise TaskError(f"{self.spec.name}: {count} tasks asked for, at least one is needed")
        low, high = self.task_bounds()
        tasks = rng.uniform(low, high, (count, self.spec.task_dim))
        while len(np.unique(tasks, axis=0)) < count:  # of probability zero, but then still right
            tasks = rng.uniform(low, high, (count, self.spec.task_dim))
        return tasks

    @abstractmethod
    def task_bounds(self) -> tuple[float, float]:
        """Lowest and highest value of every task parameter; tasks are uniform between."""

    def validate_tasks(self, tasks: Float64) -> None:
        """Raise TaskError unless every task is finite and within the bounds."""
        super().validate_tasks(tasks)
        low, high = self.task_bounds()
        for index in np.flatnonzero(((tasks < low) | (tasks > high)).any(axis=1))[:1]:
            raise TaskError(
                f"{self.spec.name}: task {index} is {tuple(tasks[index].tolist())}, "
                f"expected {', '.join(self.spec.task_names)} in [{low:.4g}, {high:.4g}]"
            )

    def transition(self, observations: Float32, actions: Actions, tasks: Float64) -> Float32:
        """s + 0.1 a in float64, rounded once to float32."""
        return proposed(observations, actions).astype(np.float32)

    def reward(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Any = None,
    ) -> Float32:
        """1 where s' lies in the goal, else 0, (...,); dense families override this."""
        return self.success(observations, actions, next_observations, tasks).astype(np.float32)

    def outcome(
        self, observations: Float32, actions: Actions, next_observations: Float32, tasks: Float64
    ) -> tuple[Float32, Bool]:
        """Reward and success of a step."""
        if type(self).reward is not PlanarFamily.reward:
            return super().outcome(observations, actions, next_observations, tasks)
        inside = self.success(observations, actions, next_observations, tasks)
        return inside.astype(np.float32), inside

    def success(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Any = None,
    ) -> Bool:
        """Whether s' lies in the goal, (...,)."""
        inside = self.in_goal(next_observations.astype(np.float64), tasks)
        return spread(inside, observations, actions, next_observations, tasks)

    @abstractmethod
    def in_goal(self, positions: Float64, tasks: Float64) -> Bool:
        """Whether positions (..., 2) lie in the goal of tasks (..., task), (...,)."""

    def plot_rollout(self, axes: Axes, observations: Float32, task: Float64) -> None:
        """Draw arena, goal and the path of every episode of (K, H + 1, 2)."""
        from environments.plots import draw_paths

        self.draw_arena(axes, task)
        draw_paths(axes, observations)

    @abstractmethod
    def draw_arena(self, axes: Axes, task: Float64) -> None:
        """Draw what does not move: walls and the goal."""


def proposed(observations: Float32, actions: Actions) -> Float64:
    """s + 0.1 a in float64, (..., 2)."""
    return observations.astype(np.float64) + STEP_SIZE * actions.astype(np.float64)


def distance(first: Float64, second: Float64) -> Float64:
    """Euclidean distance between points (..., 2), (...,)."""
    x, y = first[..., 0] - second[..., 0], first[..., 1] - second[..., 1]
    length: Float64 = np.sqrt(x * x + y * y)  # five times as fast as hypot; nothing overflows here
    return length


def on_circle(angles: Float64) -> Float64:
    """Points (..., 2) of the unit circle at angles (...,), in radians."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def towards(observations: Float32, targets: Float64) -> Float32:
    """The action (..., 2) that goes straight for a target, each axis as fast as it can.

    The box reachable in t steps is [-0.1 t, 0.1 t]^2 and this reaches the point of it nearest
    to the target, so no policy enters a disc around the target earlier.
    """
    gap = (targets - observations.astype(np.float64)) / STEP_SIZE
    return np.clip(gap, -1.0, 1.0).astype(np.float32)
