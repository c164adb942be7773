"""The checker catches families that break the contract, each by the check that is meant to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from environments.base import TaskFamily
from environments.checker import check_family
from environments.contract import CHECKS
from environments.gridworld import Gridworld
from environments.point_robot import PointRobot
from environments.point_robot_sparse import PointRobotSparse
from environments.point_robot_wind import PointRobotWind


class WrongDtype(PointRobot):
    def reward(self, *args: Any, **kwargs: Any) -> Any:
        return super().reward(*args, **kwargs).astype(np.float64)


class RewardUnlikeStep(PointRobot):
    """The published defect B2: stepping pays something else than relabelling."""

    def simulator(self, tasks: Any, start: Any = "origin") -> Any:
        simulator = super().simulator(tasks, start)
        plain = simulator.step
        simulator.step = lambda a: (s := plain(a))._replace(rewards=s.rewards + 0.5)  # type: ignore[method-assign]
        return simulator


class UnseededStart(PointRobot):
    def wide_starts(self, tasks: Any, rng: Any) -> Any:
        return super().wide_starts(tasks, np.random.default_rng())


class FixedWideStart(PointRobot):
    def wide_starts(self, tasks: Any, rng: Any) -> Any:
        return self.origin_starts(tasks)


class RewardIgnoresTask(PointRobot):
    def reward(self, s: Any, a: Any, after: Any, tasks: Any, sim: Any = None) -> Any:
        return super().reward(s, a, after, np.zeros_like(tasks))


class RewardForRowsOnly(PointRobot):
    def reward(self, s: Any, a: Any, after: Any, tasks: Any, sim: Any = None) -> Any:
        return -np.linalg.norm(after[:, :2] - tasks[:, :2], axis=1).astype(np.float32)


class ImpureReward(PointRobot):
    def reward(self, s: Any, a: Any, after: Any, tasks: Any, sim: Any = None) -> Any:
        after -= 0.0
        return super().reward(s, a, after, tasks)


class RepeatedTasks(PointRobot):
    def sample_tasks(self, count: int, rng: Any) -> Any:
        return np.repeat(super().sample_tasks(1, rng), count, axis=0)


class UnseededTasks(PointRobot):
    def sample_tasks(self, count: int, rng: Any) -> Any:
        return super().sample_tasks(count, np.random.default_rng())


class AcceptsNan(PointRobot):
    def validate_tasks(self, tasks: Any) -> None:
        pass


class ClipsActions(PointRobot):
    def check_actions(self, actions: Any, count: int) -> None:
        pass


class WorseThanRandom(PointRobot):
    def oracle_actions(self, observations: Any, tasks: Any) -> Any:
        return -super().oracle_actions(observations, tasks)


class SaysReward(PointRobotWind):
    spec = replace(PointRobotWind.spec, tasks_differ_in="reward")


class SaysDynamics(PointRobot):
    spec = replace(PointRobot.spec, tasks_differ_in="dynamics")


class ThreeRewards(PointRobotSparse):
    spec = replace(PointRobotSparse.spec, binary_reward=(-1.0, 1.0))


class CellsOutOfRange(Gridworld):
    def cell(self, observations: Any) -> Any:
        return super().cell(observations) + 25


class BatchMatters(PointRobot):
    def transition(self, observations: Any, actions: Any, tasks: Any) -> Any:
        return super().transition(observations, actions, tasks) + np.float32(0.01) * len(tasks)


class OverwritesObservations(PointRobot):
    def simulator(self, tasks: Any, start: Any = "origin") -> Any:
        simulator = super().simulator(tasks, start)
        plain, buffer = simulator.step, np.zeros((len(tasks), 2), np.float32)

        def step(actions: Any) -> Any:
            result = plain(actions)
            buffer[:] = result.observations
            return result._replace(observations=buffer)

        simulator.step = step  # type: ignore[method-assign]
        return simulator


class BadSpec(PointRobot):
    spec = replace(PointRobot.spec, horizon=0)


class UnknownDifference(PointRobot):
    spec = replace(PointRobot.spec, tasks_differ_in="rewards")  # type: ignore[arg-type]


class DrawsNothing(PointRobot):
    def plot_rollout(self, axes: Any, observations: Any, task: Any) -> None:
        pass


class TerminatesElsewhere(PointRobot):
    def termination(self, s: Any, a: Any, after: Any, tasks: Any, sim: Any = None) -> Any:
        ends = super().termination(s, a, after, tasks)
        return ends if ends.ndim == 1 else ~ends


@pytest.mark.parametrize(
    ("broken", "check", "message"),
    [
        (WrongDtype, "reward is pure", "float64, expected float32"),
        (RewardUnlikeStep, "reward, termination", "up to 0.5"),
        (UnseededStart, "episodes repeat", "two wide runs"),
        (FixedWideStart, "origin starts", "all the same"),
        (RewardIgnoresTask, "reward depends", "same under every task"),
        (RewardForRowsOnly, "reward is pure", ""),
        (ImpureReward, "reward is pure", "read-only"),
        (RepeatedTasks, "tasks are distinct", "one task twice"),
        (UnseededTasks, "tasks are distinct", "other tasks"),
        (AcceptsNan, "illegal tasks", "NaN task"),
        (ClipsActions, "actions out of range", "1.5 was accepted"),
        (WorseThanRandom, "the oracle", "below random"),
        (SaysReward, "dynamics depend", "differ in dynamics"),
        (SaysDynamics, "dynamics depend", "same places"),
        (ThreeRewards, "rewards take", "are not"),
        (CellsOutOfRange, "cells index", "leave"),
        (BatchMatters, "n environments", "environment 0"),
        (OverwritesObservations, "returned observations", "changed observations"),
        (BadSpec, "spec is sane", "horizon is 0"),
        (UnknownDifference, "spec is sane", "'rewards', expected reward or dynamics"),
        (DrawsNothing, "a rollout", "drew nothing"),
        (TerminatesElsewhere, "reward, termination", "termination differs"),
    ],
)
def test_broken_families_are_caught(
    broken: Callable[[], TaskFamily], check: str, message: str
) -> None:
    failed = {result.name: result.message for result in check_family(broken()) if not result.ok}
    found = [text for name, text in failed.items() if name.startswith(check)]
    assert found, f"not caught; failed were {failed}"
    assert message in found[0]


def test_a_sound_family_passes_every_check() -> None:
    results = check_family(PointRobot(), seed=5)
    assert [result.name for result in results] == list(CHECKS)
    assert all(result.ok and result.message == "" for result in results)
