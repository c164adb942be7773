"""Families whose observation is the whole state, so that a transition is a pure function too.

The state is kept as the float32 observation itself: what a simulator steps from is what it has
returned, so one logged transition is enough to check it, and reward and dynamics see the same
numbers whether they are stepped or recomputed from a file.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from environments.actions import check_actions
from environments.base import Actions, Bool, Float32, Float64, Simulator, Start, Step, TaskFamily
from environments.errors import TaskError


class ObservableFamily(TaskFamily):
    """A family given by a pure transition and a distribution of wide starts."""

    @abstractmethod
    def transition(self, observations: Float32, actions: Actions, tasks: Float64) -> Float32:
        """The next observations (..., obs), deterministic and vectorised over leading axes."""

    @abstractmethod
    def wide_starts(self, tasks: Float64, rng: np.random.Generator) -> Float32:
        """One start per task from the wide distribution of data collection, (n, obs)."""

    def outcome(
        self, observations: Float32, actions: Actions, next_observations: Float32, tasks: Float64
    ) -> tuple[Float32, Bool]:
        """Reward and success of a step; where one follows from the other, computed once."""
        step = (observations, actions, next_observations, tasks)
        return self.reward(*step), self.success(*step)

    def origin_starts(self, tasks: Float64) -> Float32:
        """The one fixed start of evaluation, repeated, (n, obs)."""
        return np.zeros((len(tasks), self.spec.observation_dim), dtype=np.float32)

    def simulator(self, tasks: Float64, start: Start = "origin") -> ObservableSimulator:
        """A simulator of len(tasks) environments; raises TaskError for an illegal task or start."""
        tasks = np.array(tasks, dtype=np.float64)
        self.validate_tasks(tasks)
        if start not in ("origin", "wide"):
            raise TaskError(f"{self.spec.name}: start is {start!r}, expected 'origin' or 'wide'")
        return ObservableSimulator(self, tasks, start)

    def check_actions(self, actions: Actions, count: int) -> None:
        """Raise TaskError unless actions are (count, act), of the right kind and in range."""
        check_actions(self.spec, actions, count)


class ObservableSimulator(Simulator):
    """Steps n environments of an observable family; environment i runs task i."""

    def __init__(self, family: ObservableFamily, tasks: Float64, start: Start) -> None:
        self.family = family
        self.tasks = tasks
        self.start = start
        self._observations: Float32 | None = None

    def reset(self, rng: np.random.Generator) -> Float32:
        """Begin an episode everywhere; returns the observations, (n, obs)."""
        if self.start == "wide":
            self._observations = self.family.wide_starts(self.tasks, rng)
        else:
            self._observations = self.family.origin_starts(self.tasks)
        return self._observations.copy()

    def step(self, actions: Actions) -> Step:
        """Apply actions (n, act); raises TaskError where one is out of range or of wrong shape."""
        if self._observations is None:
            raise TaskError(f"{self.family.spec.name}: step was called before the first reset")
        family, before, tasks = self.family, self._observations, self.tasks
        actions = np.asarray(actions)
        family.check_actions(actions, len(tasks))
        after = family.transition(before, actions, tasks)
        self._observations = after
        rewards, successes = family.outcome(before, actions, after, tasks)
        return Step(
            observations=after.copy(),
            rewards=rewards,
            terminations=family.termination(before, actions, after, tasks),
            successes=successes,
        )
