"""Task families that take no time: a corridor, a drifting point, and points that misbehave."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from environments.base import Actions, Bool, Float32, Float64, Simulator, Spec, Step, spread
from environments.observable import ObservableFamily

CORRIDOR, TWO_GOALS, DRIFT = (f"tiny_families:{name}" for name in ("Corridor", "TwoGoals", "Drift"))
STATED = "tiny_families:Stated"
BROKEN, RESTLESS = "tiny_families:BrokenReward", "tiny_families:Restless"


class Corridor(ObservableFamily):
    """Cells -2 .. 2; left, stay, right; 1 for a step that ends on the goal. H = 4, K = 2."""

    goals: ClassVar[tuple[int, ...]] = (-2, -1, 1, 2)
    spec: ClassVar[Spec] = Spec(
        name="corridor",
        observation_names=("x",),
        action_dim=1,
        n_actions=3,
        horizon=4,
        episodes=2,
        task_names=("goal",),
        tasks_differ_in="reward",
        binary_reward=(0.0, 1.0),
    )

    def all_tasks(self) -> Float64:
        return np.array(self.goals, np.float64)[:, None]

    def sample_tasks(self, count: int, rng: np.random.Generator) -> Float64:
        return self.all_tasks()[rng.permutation(len(self.goals))[:count]]

    def wide_starts(self, tasks: Float64, rng: np.random.Generator) -> Float32:
        return rng.integers(-2, 3, (len(tasks), 1)).astype(np.float32)

    def transition(self, observations: Float32, actions: Actions, tasks: Float64) -> Float32:
        return np.clip(observations + actions - 1, -2, 2).astype(np.float32)

    def reward(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Any = None,
    ) -> Float32:
        return self.success(observations, actions, next_observations, tasks).astype(np.float32)

    def success(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Any = None,
    ) -> Bool:
        reached = next_observations[..., 0] == tasks[..., 0]
        return spread(reached, observations, actions, next_observations, tasks)

    def oracle_actions(self, observations: Float32, tasks: Float64) -> Actions:
        return (np.sign(tasks - observations) + 1).astype(np.int64)

    def plot_rollout(self, axes: Any, observations: Float32, task: Float64) -> None:
        """Nothing to see."""


class TwoGoals(Corridor):
    """The corridor with goals at -1 and 1: one step to the wrong side tells which it is."""

    goals = (-1, 1)


class Drift(ObservableFamily):
    """x' = x + a / 2 + task, reward -|x' - 1|: dynamics differ, tasks are a continuum. H = 3."""

    spec: ClassVar[Spec] = Spec(
        name="drift",
        observation_names=("x",),
        action_dim=1,
        horizon=3,
        episodes=2,
        task_names=("drift",),
        tasks_differ_in="dynamics",
    )

    def sample_tasks(self, count: int, rng: np.random.Generator) -> Float64:
        return rng.uniform(-0.2, 0.2, (count, 1))

    def wide_starts(self, tasks: Float64, rng: np.random.Generator) -> Float32:
        return rng.uniform(-1, 1, (len(tasks), 1)).astype(np.float32)

    def transition(self, observations: Float32, actions: Actions, tasks: Float64) -> Float32:
        return (observations + 0.5 * actions + tasks).astype(np.float32)

    def reward(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Any = None,
    ) -> Float32:
        reward = -np.abs(next_observations[..., 0] - 1).astype(np.float32)
        return spread(reward, observations, actions, next_observations, tasks)

    def success(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Any = None,
    ) -> Bool:
        near = np.abs(next_observations[..., 0] - 1) < 0.1
        return spread(near, observations, actions, next_observations, tasks)

    def oracle_actions(self, observations: Float32, tasks: Float64) -> Actions:
        return np.clip(2 * (1 - observations - tasks), -1, 1).astype(np.float32)

    def plot_rollout(self, axes: Any, observations: Float32, task: Float64) -> None:
        """Nothing to see."""


class BrokenReward(Drift):
    """Rewards are NaN beyond x = 0.9, where the oracle goes."""

    def reward(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Any = None,
    ) -> Float32:
        reward = super().reward(observations, actions, next_observations, tasks)
        return np.where(next_observations[..., 0] > 0.9, np.float32(np.nan), reward)


class Restless(Drift):
    """Says that it starts at the origin, but starts anywhere."""

    generator = np.random.default_rng(0)

    def origin_starts(self, tasks: Float64) -> Float32:
        return self.wide_starts(tasks, self.generator)


class Stated(Drift):
    """A point whose reward follows from a state that observations round: tasks are (shift, goal).

    The state is x + shift, kept as the info "place"; observations hold x to one decimal. H = 3.
    """

    spec: ClassVar[Spec] = Spec(
        name="stated",
        observation_names=("x",),
        action_dim=1,
        horizon=3,
        episodes=2,
        task_names=("shift", "goal"),
        tasks_differ_in="reward",
        solid_goal=True,
        infos={"place": 1},
    )
    asked: ClassVar[int] = 0  # transitions whose reward was recomputed

    def sample_tasks(self, count: int, rng: np.random.Generator) -> Float64:
        return rng.uniform(-1, 1, (count, 2))

    def simulator(self, tasks: Float64, start: Any = "origin") -> Any:
        return StatedSimulator(np.array(tasks, np.float64), start)

    def reward(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Any = None,
    ) -> Float32:
        type(self).asked += sim["place"][..., 0].size
        return (-np.abs(sim["place"][..., 0] - tasks[..., 1])).astype(np.float32)

    def shared_prefix(self, own: Float64, target: Float64, sim: Any) -> Any:
        """Until the point is beyond 0.5."""
        beyond = np.abs(sim["place"][..., 0]) > 0.5
        return np.where(beyond.any(1), beyond.argmax(1), beyond.shape[1])

    def oracle_actions(self, observations: Float32, tasks: Float64) -> Actions:
        shift, goal = tasks[..., :1], tasks[..., 1:]
        return np.clip(2 * (goal - shift - observations), -1, 1).astype(np.float32)


class StatedSimulator(Simulator):
    """Keeps x in full precision."""

    def __init__(self, tasks: Float64, start: Any) -> None:
        self.tasks, self.start = tasks, start
        self._x = np.zeros((len(tasks), 1))

    def reset(self, rng: np.random.Generator) -> Float32:
        self._x = np.zeros_like(self._x)
        if self.start == "wide":
            self._x = rng.uniform(-1, 1, self._x.shape)
        return np.round(self._x, 1).astype(np.float32)

    def step(self, actions: Actions) -> Step:
        self._x = self._x + 0.5 * np.asarray(actions, np.float64)
        place = self._x + self.tasks[:, :1]
        rewards = -np.abs(place[:, 0] - self.tasks[:, 1])
        return Step(
            np.round(self._x, 1).astype(np.float32),
            rewards.astype(np.float32),
            np.zeros(len(place), np.bool_),
            rewards > -0.1,
            {"place": place},
        )
