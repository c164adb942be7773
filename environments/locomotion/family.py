"""What the families of walking bodies share: a model, its noisy starts and a batched simulator."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from environments.base import (
    Actions,
    Bool,
    Float32,
    Float64,
    Simulator,
    Start,
    Step,
    TaskFamily,
    common_shape,
)
from environments.errors import TaskError

if TYPE_CHECKING:
    from environments.locomotion.physics import Physics

TIME_STEP = 0.05  # seconds of an environment step: 5 of the models' 0.01
FRAME_SKIP = 5


class LocomotionFamily(TaskFamily):
    """A body in MuJoCo whose tasks are one number each, uniform between two bounds.

    There is no scripted expert, so these families have no oracle.
    """

    has_success: ClassVar[bool] = False
    asset: ClassVar[str]  # the model's file among Gymnasium's
    rows_per_thread: ClassVar[int]  # environments that make a thread of their own worthwhile
    task_bounds: ClassVar[tuple[float, float]]
    reset_noise: ClassVar[float] = 0.1  # of wide starts: uniform in qpos, normal in qvel

    # Tasks

    def sample_tasks(self, count: int, rng: np.random.Generator) -> Float64:
        """Draw `count` distinct tasks uniformly between the bounds, (count, 1)."""
        if count < 1:
            raise TaskError(f"{self.spec.name}: {count} tasks asked for, at least one is needed")
        tasks = rng.uniform(*self.task_bounds, (count, 1))
        while len(np.unique(tasks, axis=0)) < count:  # of probability zero, but then still right
            tasks = rng.uniform(*self.task_bounds, (count, 1))
        return tasks

    def validate_tasks(self, tasks: Float64) -> None:
        """Raise TaskError unless every task is finite and within the bounds."""
        super().validate_tasks(tasks)
        low, high = self.task_bounds
        for index in np.flatnonzero(((tasks < low) | (tasks > high)).any(axis=1))[:1]:
            raise TaskError(
                f"{self.spec.name}: task {index} is {tasks[index, 0]}, "
                f"expected {self.spec.task_names[0]} in [{low:.4g}, {high:.4g}]"
            )

    # Dynamics

    @functools.cached_property
    def physics(self) -> Physics:
        """The model and what steps it; MuJoCo is imported when it is first needed."""
        from environments.locomotion.physics import Physics

        return Physics(self.asset, FRAME_SKIP, self.rows_per_thread)

    def simulator(self, tasks: Float64, start: Start = "origin") -> LocomotionSimulator:
        """A simulator of len(tasks) environments; raises TaskError for an illegal task or start."""
        tasks = np.array(tasks, dtype=np.float64)
        self.validate_tasks(tasks)
        if start not in ("origin", "wide"):
            raise TaskError(f"{self.spec.name}: start is {start!r}, expected 'origin' or 'wide'")
        return LocomotionSimulator(self, tasks, start)

    @abstractmethod
    def observe(self, states: Float64) -> Float32:
        """Observations (n, obs) of physics states (n, width)."""

    def wide_starts(self, states: Float64, rng: np.random.Generator) -> None:
        """Make states at rest (n, width) those of a wide start, in place: Gymnasium's reset."""
        positions, velocities = self.physics.positions(states), self.physics.velocities(states)
        positions += rng.uniform(-self.reset_noise, self.reset_noise, positions.shape)
        velocities += self.reset_noise * rng.standard_normal(velocities.shape)

    def step_infos(self, before: Float64, after: Float64) -> Mapping[str, Float64]:
        """`Spec.infos` of a step between physics states (n, width)."""
        return {}

    def success(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: object = None,
    ) -> Bool:
        """Never, (...,): there is no goal to be in, unless a family says otherwise."""
        return np.zeros(common_shape(observations, actions, next_observations, tasks), np.bool_)


class LocomotionSimulator(Simulator):
    """Steps n bodies; environment i runs task i. One that has ended stays where it is."""

    def __init__(self, family: LocomotionFamily, tasks: Float64, start: Start) -> None:
        self.family = family
        self.tasks = tasks
        self.start = start
        self._states: Float64 | None = None  # (n, width)
        self._observations = np.empty((0, 0), np.float32)
        self._ended = np.zeros(len(tasks), np.bool_)

    def reset(self, rng: np.random.Generator) -> Float32:
        """Begin an episode everywhere; returns the observations, (n, obs)."""
        self._states = self.family.physics.rest(len(self.tasks))
        if self.start == "wide":
            self.family.wide_starts(self._states, rng)
        self._ended = np.zeros(len(self.tasks), np.bool_)
        self._observations = self.family.observe(self._states)
        return self._observations.copy()

    def step(self, actions: Actions) -> Step:
        """Apply actions (n, act); raises TaskError where one is out of range or of wrong shape."""
        family, before, states = self.family, self._observations, self._states
        if states is None:
            raise TaskError(f"{family.spec.name}: step was called before the first reset")
        actions = np.asarray(actions)
        family.check_actions(actions, len(self.tasks))
        after = family.physics.step(states, actions)
        after[self._ended] = states[self._ended]
        infos = family.step_infos(states, after)
        self._states, self._observations = after, family.observe(after)
        told = (before, actions, self._observations, self.tasks)
        sim = {**infos, "task": self.tasks}
        self._ended = family.termination(*told, sim)
        return Step(
            observations=self._observations.copy(),
            rewards=family.reward(*told, sim),
            terminations=self._ended.copy(),
            successes=family.success(*told, sim),
            infos=infos,
        )


def effort(actions: Actions) -> Float64:
    """|a|^2 of actions (..., act) in float64, (...,)."""
    squared: Float64 = np.einsum("...i,...i", actions, actions, dtype=np.float64)
    return squared
