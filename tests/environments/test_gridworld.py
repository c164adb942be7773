"""Gridworld: moves, starts, reference returns, and the exact posterior against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from environments.base import Int64
from environments.errors import TaskError
from environments.gridworld import GOALS, SIDE, Gridworld


@pytest.fixture
def family() -> Gridworld:
    return Gridworld()


def test_goals_leave_out_the_corner_of_the_start(family: Gridworld) -> None:
    goals = {tuple(goal) for goal in family.all_tasks().astype(int).tolist()}
    everything = {(x, y) for x in range(SIDE) for y in range(SIDE)}
    assert everything - goals == {(0, 0), (0, 1), (1, 0), (1, 1)}
    with pytest.raises(TaskError, match="22 tasks"):
        family.sample_tasks(22, np.random.default_rng(0))
    with pytest.raises(TaskError, match=r"task 1 is the cell \(1.0, 1.0\)"):
        family.validate_tasks(np.array([[2.0, 2.0], [1.0, 1.0]]))


def test_moves_and_edges(family: Gridworld) -> None:
    tasks = GOALS[:1]
    at = np.array([[2.0, 3.0]], dtype=np.float32)
    moved = [family.transition(at, np.array([[a]]), tasks)[0].tolist() for a in range(5)]
    assert moved == [[2, 3], [2, 4], [3, 3], [2, 2], [1, 3]]
    corner = np.zeros((1, 2), dtype=np.float32)
    for action, place in ((3, [0, 0]), (4, [0, 0]), (1, [0, 1]), (2, [1, 0])):
        assert family.transition(corner, np.array([[action]]), tasks)[0].tolist() == place


def test_rewards(family: Gridworld) -> None:
    at = np.array([[2, 2], [2, 3]], dtype=np.float32)
    rewards = family.reward(at, np.zeros((2, 1), np.int64), at, np.array([2.0, 3.0]))
    assert rewards.tolist() == [np.float32(-0.1), 1.0]


def test_wide_starts_are_uniform_but_for_the_goal(family: Gridworld) -> None:
    tasks = np.repeat(GOALS[7:8], 24_000, axis=0)
    starts = family.simulator(tasks, "wide").reset(np.random.default_rng(0))
    counts = np.bincount(family.cell(starts), minlength=25)
    goal = family.cell(GOALS[7])
    assert counts[goal] == 0
    np.testing.assert_allclose(np.delete(counts, goal), 1000, rtol=0.15)


def test_cells_are_row_major(family: Gridworld) -> None:
    places = np.array([[0, 0], [4, 0], [0, 1], [4, 4]], dtype=np.float32)
    assert family.cell(places).tolist() == [0, 4, 5, 24]


def test_oracle_and_search_reach_the_reference_values(family: Gridworld) -> None:
    tasks = family.all_tasks()
    oracle, search = family.oracle_returns(tasks), family.search_returns(tasks)
    np.testing.assert_allclose(oracle.mean(axis=0), 11.0714, atol=1e-3)
    np.testing.assert_allclose(search.mean(axis=0), [4.0, 11.0714, 11.0714, 11.0714], atol=1e-3)
    assert oracle.shape == (21, 4)
    assert family.search_returns(tasks, 2).shape == (21, 2)
    # An analytic value: a goal at distance d costs d - 1 steps and pays for the other 16 - d.
    distance = tasks.sum(axis=1)
    np.testing.assert_allclose(oracle[:, 0], (16 - distance) - 0.1 * (distance - 1), atol=1e-5)


def _brute_force(cells: Int64, rewards: np.ndarray) -> np.ndarray:
    """Bayes' rule goal by goal, in plain loops."""
    goals = [int(5 * y + x) for x, y in GOALS]
    beliefs = np.zeros((len(cells) + 1, 25))
    for t in range(len(cells) + 1):
        weight = np.zeros(25)
        for goal in goals:
            expected = [1.0 if cell == goal else -0.1 for cell in cells[:t]]
            weight[goal] = np.allclose(expected, rewards[:t])
        beliefs[t] = weight / weight.sum()
    return beliefs


def test_posterior_equals_brute_force(family: Gridworld) -> None:
    rng = np.random.default_rng(0)
    tasks = family.all_tasks()
    simulator = family.simulator(tasks, "wide")
    simulator.reset(rng)
    steps = [simulator.step(family.random_actions((21,), rng)) for _ in range(40)]
    cells = np.stack([family.cell(step.observations) for step in steps], axis=1)
    rewards = np.stack([step.rewards for step in steps], axis=1)
    posterior = family.posterior(cells, rewards)
    assert posterior.shape == (21, 41, 25)
    np.testing.assert_allclose(posterior.sum(axis=-1), 1.0)
    for index in range(21):
        np.testing.assert_allclose(posterior[index], _brute_force(cells[index], rewards[index]))
    # The true goal is never ruled out, and leading axes are only batch axes.
    assert (posterior[np.arange(21), :, family.cell(tasks)] > 0).all()
    folded = family.posterior(cells.reshape(3, 7, 40), rewards.reshape(3, 7, 40))
    np.testing.assert_array_equal(folded.reshape(21, 41, 25), posterior)


def test_posterior_refuses_rewards_that_no_goal_explains(family: Gridworld) -> None:
    rewards = np.array([[1.0, 1.0]], dtype=np.float32)
    with pytest.raises(TaskError, match=r"index \[0, 2\]"):
        family.posterior(np.array([[12, 13]]), rewards)
