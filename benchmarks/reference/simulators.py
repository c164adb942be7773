"""One environment of one task, stepped and rewarded one transition at a time, in plain Python.

Our families' simulators and rewards are vectorised: called on a single transition they spend their
time on broadcasting and checks, which would flatter whatever they are compared with.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import cheetah_shapes
from environments.base import Float32, Float64, Start, TaskFamily
from environments.gridworld import GOAL_REWARD, MOVES, SIDE, STEP_REWARD
from environments.planar import GOAL_RADIUS, STEP_SIZE


class TaskSimulator(ABC):
    """An environment that runs one task (task,); episodes end by their time limit only."""

    width: int  # of an observation

    def __init__(self, task: Float64, start: Start) -> None:
        self.task = task
        self.start = start
        self.observation = np.zeros(0, np.float32)

    def reset(self, rng: np.random.Generator) -> Float32:
        """Begin an episode; returns the observation (obs,)."""
        start = self.wide_start(rng) if self.start == "wide" else np.zeros(self.width)
        self.observation = start.astype(np.float32)
        return self.observation

    def step(self, action: NDArray[Any]) -> tuple[Float32, float]:
        """Apply an action (act,); returns the next observation (obs,) and the reward."""
        before = self.observation
        self.observation = self.transition(before, action)
        return self.observation, self.reward(before, action, self.observation)

    @abstractmethod
    def wide_start(self, rng: np.random.Generator) -> Float64:
        """A start of the distribution of data collection, (obs,)."""

    @abstractmethod
    def transition(self, observation: Float32, action: NDArray[Any]) -> Float32:
        """The next observation (obs,)."""

    @abstractmethod
    def reward(
        self, observation: Float32, action: NDArray[Any], next_observation: Float32
    ) -> float:
        """The reward of one transition."""


class GridworldTask(TaskSimulator):
    """The 5 x 5 grid with one goal cell."""

    width = 2

    def wide_start(self, rng: np.random.Generator) -> Float64:
        """Any cell but the goal."""
        goal = SIDE * self.task[1] + self.task[0]
        cell = rng.integers(0, SIDE * SIDE - 1)
        if cell >= goal:
            cell += 1
        return np.array([cell % SIDE, cell // SIDE], np.float64)

    def transition(self, observation: Float32, action: NDArray[Any]) -> Float32:
        """One cell further, unless that is off the grid."""
        x, y = observation.tolist()
        right, up = MOVES[action[0]].tolist()
        x, y = min(max(x + right, 0), SIDE - 1), min(max(y + up, 0), SIDE - 1)
        return np.array([x, y], np.float32)

    def reward(
        self, observation: Float32, action: NDArray[Any], next_observation: Float32
    ) -> float:
        """+1 on the goal, else -0.1."""
        reached = next_observation[0] == self.task[0] and next_observation[1] == self.task[1]
        return GOAL_REWARD if reached else STEP_REWARD


class SemiCircleTask(TaskSimulator):
    """The point robot with one goal disc."""

    width = 2

    def __init__(self, task: Float64, start: Start) -> None:
        super().__init__(task, start)
        self.goal = (math.cos(task[0]), math.sin(task[0]))

    def wide_start(self, rng: np.random.Generator) -> Float64:
        """Anywhere in the rectangle around the half circle."""
        return rng.uniform((-1.5, -0.5), (1.5, 1.5))

    def transition(self, observation: Float32, action: NDArray[Any]) -> Float32:
        """s + 0.1 a."""
        moved = observation.astype(np.float64) + STEP_SIZE * action.astype(np.float64)
        return moved.astype(np.float32)

    def reward(
        self, observation: Float32, action: NDArray[Any], next_observation: Float32
    ) -> float:
        """1 in the disc, else 0."""
        x, y = next_observation.tolist()
        return float(math.hypot(x - self.goal[0], y - self.goal[1]) <= GOAL_RADIUS)


class CheetahShapesTask(TaskSimulator):
    """The stand-in for half-cheetah with one target velocity."""

    width = cheetah_shapes.WIDTH

    def wide_start(self, rng: np.random.Generator) -> Float64:
        """Small noise around rest."""
        return rng.uniform(-0.1, 0.1, self.width)

    def transition(self, observation: Float32, action: NDArray[Any]) -> Float32:
        """Linear joints, and x moved by the new drive."""
        after = observation.astype(np.float64)
        after[1:] = cheetah_shapes.DECAY * after[1:] + action @ cheetah_shapes.FORCES
        after[0] += cheetah_shapes.TIME_STEP * cheetah_shapes.TOP_SPEED * after[1]
        return after.astype(np.float32)

    def reward(
        self, observation: Float32, action: NDArray[Any], next_observation: Float32
    ) -> float:
        """-|velocity - task's| - 0.05 |a|^2."""
        moved = float(next_observation[0]) - float(observation[0])
        missed = abs(moved / cheetah_shapes.TIME_STEP - float(self.task[0]))
        effort: float = sum(a * a for a in action.tolist())
        return -missed - cheetah_shapes.CONTROL_COST * effort


_SIMULATORS: dict[str, type[TaskSimulator]] = {
    "gridworld": GridworldTask,
    "point_robot_sparse": SemiCircleTask,
    "cheetah_shapes": CheetahShapesTask,
}


def make_simulator(family: TaskFamily, task: Float64, start: Start) -> TaskSimulator:
    """The environment of one task (task,); KeyError for a family without a plain simulator."""
    return _SIMULATORS[family.spec.name](task, start)
