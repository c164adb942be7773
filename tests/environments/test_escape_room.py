"""Escape room: which steps the wall lets through, against a plain walk along the segment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from environments.escape_room import DOOR_HALF_WIDTH, EscapeRoom
from environments.planar import on_circle

ROOM = EscapeRoom()


def _move(before: np.ndarray, step: tuple[float, float], door: float) -> np.ndarray:
    """One step of `step` / 0.1 from a float32 position."""
    action = np.array(step, dtype=np.float32) / np.float32(0.1)
    return ROOM.transition(np.asarray(before, dtype=np.float32), action, np.array([door]))


def _radius(point: np.ndarray) -> float:
    return float(np.hypot(*point.astype(np.float64)))


def _away(angle: float, door: float) -> float:
    """Angular distance between two directions, from the cosine, in [0, pi]."""
    return float(np.arccos(np.clip(np.cos(angle - door), -1, 1)))


def _walk(before: np.ndarray, after: np.ndarray, door: float) -> str:
    """Follow the segment in small steps: pass, block, or edge where it is too close to tell."""
    points = before + np.linspace(0, 1, 20_001)[:, None] * (after - before)
    radii = np.hypot(points[:, 0], points[:, 1])
    if np.abs(radii - 1)[[0, -1]].min() < 1e-6 or 0 < radii.max() - 1 < 1e-6:
        return "edge"
    crossings = np.flatnonzero((radii[1:] > 1) != (radii[:-1] > 1))
    gaps = [_away(np.arctan2(*points[i, ::-1]), door) - DOOR_HALF_WIDTH for i in crossings]
    if any(abs(gap) < 1e-4 for gap in gaps):
        return "edge"
    return "block" if any(gap > 0 for gap in gaps) else "pass"


@settings(max_examples=200, deadline=None)
@given(
    radius=st.floats(0.85, 1.15),
    angle=st.floats(-np.pi, np.pi),
    action=st.tuples(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32)),
    door=st.floats(0, np.pi),
)
def test_wall_agrees_with_a_walk_along_the_segment(
    radius: float, angle: float, action: tuple[float, float], door: float
) -> None:
    before = (radius * on_circle(np.array(angle))).astype(np.float32)
    actions = np.array(action, dtype=np.float32)
    free = (before.astype(np.float64) + 0.1 * actions.astype(np.float64)).astype(np.float32)
    moved = ROOM.transition(before, actions, np.array([door]))
    verdict = _walk(before.astype(np.float64), free.astype(np.float64), door)
    if verdict == "pass":
        np.testing.assert_array_equal(moved, free)
    elif verdict == "block":
        assert _radius(moved) == pytest.approx(1.01 if _radius(before) > 1 else 0.99, abs=1e-6)
        assert _away(np.arctan2(*moved[::-1]), np.arctan2(*free[::-1])) < 1e-3


@pytest.mark.parametrize("door", [0.0, 0.05, np.pi / 2, 3.1, np.pi])
def test_door_lets_through_on_both_sides_of_its_centre(door: float) -> None:
    """The published door test compares raw angles, and loses what lies beyond pi or below -pi."""
    for offset in (-0.9, -0.3, 0.3, 0.9):
        direction = on_circle(np.array(door + offset * DOOR_HALF_WIDTH))
        assert _radius(_move(0.95 * direction, tuple(0.1 * direction), door)) > 1
        assert _radius(_move(1.05 * direction, tuple(-0.1 * direction), door)) < 1
    for offset in (-1.1, 1.1):
        direction = on_circle(np.array(door + offset * DOOR_HALF_WIDTH))
        stopped = _move(0.95 * direction, tuple(0.1 * direction), door)
        assert _radius(stopped) == pytest.approx(0.99, abs=1e-6)
        kept_out = _move(1.05 * direction, tuple(-0.1 * direction), door)
        assert _radius(kept_out) == pytest.approx(1.01, abs=1e-6)


def test_cutting_a_corner_from_outside_stays_outside() -> None:
    before = np.array([1.0005, -0.05])  # from here to (1.0005, 0.05) the wall is met twice
    assert np.hypot(1.0005, 0.0) > 1
    moved = _move(np.array([0.9995, -0.05]), (0.0, 0.1), np.pi / 2)
    blocked = _radius(np.array([0.9995, -0.05], dtype=np.float32)) > 1
    assert blocked
    assert _radius(moved) == pytest.approx(1.01, abs=1e-6)
    free = _move(before, (0.0, 0.1), np.pi / 2)
    assert free[0] == np.float32(1.0005)


def test_nobody_leaves_but_by_the_door() -> None:
    """Rounding never carries a point through the wall: a million random steps along it."""
    rng = np.random.default_rng(0)
    doors = np.full((2000, 1), np.pi / 2)
    simulator = ROOM.simulator(doors, "wide")
    inside = np.ones(2000, dtype=np.bool_)
    observations = simulator.reset(rng)
    for _ in range(500):
        outward = np.sign(observations) * rng.uniform(-0.2, 1, observations.shape)
        step = simulator.step(np.clip(outward, -1, 1).astype(np.float32))
        left = step.successes & inside
        angles = np.arctan2(step.observations[left, 1], step.observations[left, 0])
        assert (np.abs(angles - np.pi / 2) < DOOR_HALF_WIDTH + 0.15).all()
        inside &= ~step.successes
        observations = step.observations
    assert 0.1 < inside.mean() < 1


def test_reward_is_one_outside() -> None:
    after = np.array([[1.0, 0.0], [0.8, 0.7], [0.99, 0.0]], dtype=np.float32)
    rewards = ROOM.reward(after, np.zeros((3, 2), np.float32), after, np.array([0.3]))
    assert rewards.tolist() == [0.0, 1.0, 0.0]


def test_oracle_gets_out_from_every_start() -> None:
    rng = np.random.default_rng(0)
    doors = ROOM.sample_tasks(2000, rng)
    simulator = ROOM.simulator(doors, "wide")
    observations, out = simulator.reset(rng), np.zeros(2000)
    for _ in range(60):
        step = simulator.step(ROOM.oracle_actions(observations, doors))
        observations, out = step.observations, step.successes
    assert out.all()


def test_wide_starts_are_uniform_in_radius() -> None:
    tasks = np.zeros((20_000, 1))
    starts = ROOM.simulator(tasks, "wide").reset(np.random.default_rng(0)).astype(np.float64)
    radii, angles = np.hypot(*starts.T), np.arctan2(*starts.T[::-1])
    np.testing.assert_allclose(np.quantile(radii, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.02)
    np.testing.assert_allclose(np.quantile(angles, [0.25, 0.75]), [-np.pi / 2, np.pi / 2], atol=0.1)
