"""Semi-circle: a point finds a disc on the unit half circle (Dorfman et al., BOReL, 2021).

The task is the goal's angle, U(0, pi), on the unit circle. Reward 1 for a step that ends within
0.2 of the goal, else 0; H = 60, K = 2. Evaluation starts at the origin; collection starts from
x ~ U(-1.5, 1.5), y ~ U(-0.5, 1.5), goal ring included.

Deliberate deviations from the published code: `reward` is +1 in the disc, as `step` is (there it
is minus the distance, so relabelled data contradict real data), and evaluation really starts at
the origin (there it starts wide, sometimes inside the goal).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from environments.base import Bool, Float32, Float64, Spec
from environments.planar import (
    GOAL_RADIUS,
    STEP_SIZE,
    PlanarFamily,
    distance,
    on_circle,
    towards,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEARCH_RADIUS = 0.87
"""Radius of the scripted sweep; nearer to the centre it is shorter, but each point sees less."""


class PointRobotSparse(PlanarFamily):
    """Tasks that differ in the angle of a goal disc on the half circle."""

    spec: ClassVar[Spec] = Spec(
        name="point_robot_sparse",
        observation_names=("x", "y"),
        action_dim=2,
        horizon=60,
        episodes=2,
        task_names=("goal_angle",),
        tasks_differ_in="reward",
        binary_reward=(0.0, 1.0),
    )

    def task_bounds(self) -> tuple[float, float]:
        """Angles of the upper half circle, in radians."""
        return 0.0, np.pi

    def wide_starts(self, tasks: Float64, rng: np.random.Generator) -> Float32:
        """Uniform over the rectangle around the half circle, (n, 2)."""
        return rng.uniform((-1.5, -0.5), (1.5, 1.5), (len(tasks), 2)).astype(np.float32)

    def in_goal(self, positions: Float64, tasks: Float64) -> Bool:
        """Whether positions (..., 2) lie within 0.2 of the goal, (...,)."""
        return distance(positions, on_circle(tasks[..., 0])) <= GOAL_RADIUS

    def oracle_actions(self, observations: Float32, tasks: Float64) -> Float32:
        """Straight to the goal, (..., 2)."""
        return towards(observations, on_circle(tasks[..., 0]))

    def search_returns(self, tasks: Float64, episodes: int | None = None) -> Float64:
        """Return per episode, (n, K), of a search that does not know the goal.

        Episode 1 sweeps the arc and stays where the first reward comes; every later one goes
        straight to the middle of the goals that explain it.
        """
        simulator = self.simulator(tasks, "origin")
        path = search_path(self.spec.horizon)
        returns = np.zeros((len(tasks), episodes or self.spec.episodes))
        estimate = np.full(len(tasks), np.nan)
        for episode in range(returns.shape[1]):
            observations = simulator.reset(np.random.default_rng(0))
            known = ~np.isnan(estimate)
            targets = on_circle(np.where(known, estimate, 0.0))
            found = np.zeros(len(tasks), dtype=np.bool_)
            for index in range(self.spec.horizon):
                target = np.where(known[:, None], targets, path[index + 1])
                actions = towards(observations, target)
                step = simulator.step(np.where(found[:, None], np.float32(0.0), actions))
                returns[:, episode] += step.rewards
                first = step.successes & ~found & ~known
                estimate[first] = _explain(path[: index + 1], path[index + 1])
                found |= step.successes
                observations = step.observations
        return returns

    def draw_arena(self, axes: Axes, task: Float64) -> None:
        """Draw the half circle on which goals lie and the goal disc."""
        from environments.plots import draw_disc, draw_half_circle

        draw_half_circle(axes)
        draw_disc(axes, on_circle(task[0]), GOAL_RADIUS)


def search_path(horizon: int, radius: float = SEARCH_RADIUS) -> Float64:
    """Points (horizon + 1, 2) of a sweep from the origin along the half circle, max-norm steps.

    It starts at the angle from which the goal at angle 0 is just in reach, and every step is
    as long as the box of actions lets it be.
    """
    reach = 0.99 * _reach(radius)  # less, so that rounding cannot lose the goal at angle 0
    points = [np.zeros(2)]
    begin = radius * on_circle(np.asarray(reach))
    while not np.allclose(points[-1], begin):
        points.append(points[-1] + np.clip(begin - points[-1], -STEP_SIZE, STEP_SIZE))
    angle = reach
    while len(points) <= horizon:
        ahead = np.linspace(angle, min(angle + 2 * STEP_SIZE / radius, np.pi), 512)
        candidates = radius * on_circle(ahead)
        legal = np.abs(candidates - points[-1]).max(axis=1) <= STEP_SIZE
        angle = float(ahead[legal][-1])
        points.append(radius * on_circle(np.asarray(angle)))
    return np.stack(points[: horizon + 1])


def _reach(radius: float) -> float:
    """Half the angle of the goals within 0.2 of a point at this radius (law of cosines)."""
    return float(np.arccos((1 + radius**2 - GOAL_RADIUS**2) / (2 * radius)))


def _explain(missed: Float64, hit: Float64) -> float:
    """The middle of the goal angles rewarded at the point `hit` but at none of those `missed`.

    They may lie on both sides of what was seen before; the middle of the two ends is still
    within reach of either.
    """
    angles = np.linspace(0.0, np.pi, 2001)
    goals = on_circle(angles)
    missed_all = (distance(missed[:, None], goals) > GOAL_RADIUS).all(axis=0)
    new = angles[missed_all & (distance(hit, goals) <= GOAL_RADIUS)]
    if len(new):
        return float(new[0] + new[-1]) / 2
    # The goals that explain it are a sliver narrower than the grid of angles, at an edge.
    return float(angles[distance(hit, goals).argmin()])
