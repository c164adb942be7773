"""The point-robot families: reference returns, dynamics, starts, goals."""

from __future__ import annotations

import numpy as np
import pytest

from environments.errors import TaskError
from environments.planar import distance, on_circle
from environments.point_robot import PointRobot
from environments.point_robot_sparse import PointRobotSparse, search_path
from environments.point_robot_wind import PointRobotWind
from environments.registry import load_family


def _even_tasks(name: str, count: int) -> np.ndarray:
    """Tasks spread evenly over the family's range, so that means have no sampling noise."""
    family = load_family(name)
    low, high = family.task_bounds()  # type: ignore[attr-defined]
    axis = low + (high - low) * (np.arange(count) + 0.5) / count
    return np.stack(np.meshgrid(*[axis] * family.spec.task_dim), -1).reshape(
        -1, family.spec.task_dim
    )


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        ("point_robot_sparse", 2000, 53.6),
        ("escape_room", 2000, 52.1),
        ("point_robot_wind", 60, 16.7),
    ],
)
def test_oracle_reaches_the_reference_values(name: str, count: int, expected: float) -> None:
    family = load_family(name)
    returns = family.oracle_returns(_even_tasks(name, count))
    np.testing.assert_allclose(returns.mean(axis=0), expected, atol=0.05)
    assert returns.shape[1] == family.spec.episodes


def test_oracle_is_the_quickest_way() -> None:
    """No policy is in the disc before the box of reachable points [-0.1 t, 0.1 t]^2 meets it."""
    family = PointRobotSparse()
    tasks = _even_tasks("point_robot_sparse", 500)
    goals = on_circle(tasks[:, 0])
    times = np.arange(1, 61)
    nearest = np.clip(goals[:, None], -0.1 * times[:, None], 0.1 * times[:, None])
    reachable = distance(nearest, goals[:, None]) <= 0.2
    np.testing.assert_allclose(family.oracle_returns(tasks)[:, 0], reachable.sum(axis=1), atol=1)
    assert family.oracle_returns(tasks).mean() <= reachable.sum(axis=1).mean() + 0.05


def test_search_reaches_the_reference_values() -> None:
    family, tasks = PointRobotSparse(), _even_tasks("point_robot_sparse", 2001)
    returns = family.search_returns(tasks)
    np.testing.assert_allclose(returns.mean(axis=0), [41.8, 53.5], atol=0.1)
    assert returns[:, 0].min() >= 29, "the sweep found every goal"
    assert (family.oracle_returns(tasks)[:, 1] - returns[:, 1] <= 2).all()
    ends = family.search_returns(np.array([[0.0], [np.pi]]), episodes=3)
    assert ends.shape == (2, 3)
    assert ends.min() >= 29


def test_search_path_keeps_to_the_action_box() -> None:
    path = search_path(60)
    assert path.shape == (61, 2)
    assert np.abs(np.diff(path, axis=0)).max() <= 0.1 + 1e-12


def test_a_step_is_a_tenth_of_the_action() -> None:
    family = PointRobot()
    simulator = family.simulator(np.zeros((3, 2)))
    simulator.reset(np.random.default_rng(0))
    step = simulator.step(np.array([[1, -1], [0.5, 0], [0, 0]], dtype=np.float32))
    np.testing.assert_allclose(step.observations, [[0.1, -0.1], [0.05, 0], [0, 0]], atol=1e-7)


def test_dense_reward_is_minus_the_distance() -> None:
    family, rng = PointRobot(), np.random.default_rng(0)
    after = rng.normal(size=(5, 7, 2)).astype(np.float32)
    goals = rng.uniform(-1, 1, (5, 1, 2))
    rewards = family.reward(after, np.zeros((5, 7, 2), np.float32), after, goals)
    np.testing.assert_allclose(rewards, -np.linalg.norm(after - goals, axis=-1), atol=1e-6)
    assert family.oracle_returns(family.sample_tasks(500, rng)).mean() == pytest.approx(
        -2.4, abs=0.3
    )


def test_sparse_reward_is_one_in_the_disc_on_both_paths() -> None:
    family = PointRobotSparse()
    angle = np.pi / 3
    inside, outside = 0.81 * on_circle(np.array(angle)), 0.79 * on_circle(np.array(angle))
    after = np.stack([inside, outside]).astype(np.float32)
    rewards = family.reward(after, np.zeros((2, 2), np.float32), after, np.array([angle]))
    assert rewards.tolist() == [1.0, 0.0]


def test_wind_is_added_to_every_step() -> None:
    family = PointRobotWind()
    wind = np.array([[0.05, -0.03]])
    simulator = family.simulator(wind)
    simulator.reset(np.random.default_rng(0))
    for _ in range(4):
        step = simulator.step(np.array([[-0.5, 1.0]], dtype=np.float32))
    np.testing.assert_allclose(step.observations, 4 * np.array([[0.0, 0.07]]), atol=1e-6)
    with pytest.raises(TaskError, match="task 0"):
        family.validate_tasks(np.array([[0.06, 0.0]]))


def test_wide_starts_fill_their_rectangle() -> None:
    for name, low, high in (
        ("point_robot", (-1, -1), (1, 1)),
        ("point_robot_sparse", (-1.5, -0.5), (1.5, 1.5)),
    ):
        family = load_family(name)
        tasks = np.repeat(family.sample_tasks(1, np.random.default_rng(0)), 4000, axis=0)
        starts = family.simulator(tasks, "wide").reset(np.random.default_rng(1))
        np.testing.assert_allclose(starts.min(axis=0), low, atol=0.01)
        np.testing.assert_allclose(starts.max(axis=0), high, atol=0.01)
        np.testing.assert_allclose(starts.mean(axis=0), np.add(low, high) / 2, atol=0.05)
    assert load_family("point_robot_wind").spec.collection_start == "origin"
