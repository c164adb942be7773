"""Reward relabelling: exact, across tasks, never in place, donors without replacement."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from algorithms.config import RelabellingConfig
from algorithms.donors import Donors, draw_donors
from algorithms.errors import AlgorithmError
from algorithms.relabelling import (
    check_relabelling,
    draw_targets,
    relabel_batch,
    relabel_rewards,
)
from datasets.trials import Trials
from environments.base import TaskFamily
from environments.registry import load_family

REWARD_FAMILIES = ["gridworld", "point_robot", "point_robot_sparse"]


def collect(family: TaskFamily, tasks: np.ndarray, seed: int, episodes: int = 4) -> Trials:
    """One scripted trial a task, tasks (n, task_dim)."""
    spec, rng = family.spec, np.random.default_rng(seed)
    horizon = 8
    simulator = family.simulator(tasks, "wide")
    shape = (len(tasks), episodes, horizon)
    observations = np.empty((*shape[:2], horizon + 1, spec.observation_dim), np.float32)
    actions = np.empty((*shape, spec.action_dim), np.int64 if spec.n_actions else np.float32)
    rewards = np.empty(shape, np.float32)
    for k in range(episodes):
        observations[:, k, 0] = simulator.reset(rng)
        for h in range(horizon):
            actions[:, k, h] = family.scripted_actions(observations[:, k, h], tasks, rng, 0.3)
            step = simulator.step(actions[:, k, h])
            observations[:, k, h + 1], rewards[:, k, h] = step.observations, step.rewards
    ends = np.zeros(shape, np.bool_)
    return Trials(observations, actions, rewards, ends, ends.copy())


@pytest.mark.parametrize("name", REWARD_FAMILIES)
def test_own_task_reproduces_rewards_and_another_changes_them(name: str) -> None:
    family = load_family(name)
    tasks = family.sample_tasks(10, np.random.default_rng(0))
    trials = collect(family, tasks, 1)
    own = relabel_rewards(trials, trials, family, tasks)
    np.testing.assert_allclose(own.rewards, trials.rewards, atol=1e-6)
    other = relabel_rewards(trials, trials, family, np.roll(tasks, 1, 0))
    assert (other.rewards[:, :2] != trials.rewards[:, :2]).any()
    np.testing.assert_array_equal(other.rewards[:, 2:], trials.rewards[:, 2:])


@pytest.mark.parametrize(("episodes", "lead"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_the_first_half_of_episodes_is_the_donors(episodes: int, lead: int) -> None:
    family = load_family("gridworld")
    tasks = family.sample_tasks(6, np.random.default_rng(0))
    trials, donors = (collect(family, tasks, seed, episodes) for seed in (1, 2))
    before = {n: a.copy() for part in (trials, donors) for n, a in part.arrays.items()}
    relabelled = relabel_rewards(trials, donors, family, tasks)
    for name in ("observations", "actions"):
        found = getattr(relabelled, name)
        np.testing.assert_array_equal(found[:, :lead], getattr(donors, name)[:, :lead])
        np.testing.assert_array_equal(found[:, lead:], getattr(trials, name)[:, lead:])
    relabelled.validate()
    for part in (trials, donors)[1:]:
        for name, array in part.arrays.items():
            np.testing.assert_array_equal(array, before[name])


def test_a_batch_leaves_the_table_alone_and_is_consistent() -> None:
    family = load_family("gridworld")
    tasks = family.sample_tasks(4, np.random.default_rng(0))
    owner = np.repeat(np.arange(4), 5)
    table = collect(family, tasks[owner], 1)
    for array in table.arrays.values():
        array.flags.writeable = False
    pools = [np.flatnonzero(owner == task) for task in range(4)]
    rows = np.array([0, 7, 8, 19])
    donors = Donors(table, pools, family, tasks)
    config = RelabellingConfig()
    rng = np.random.default_rng(0)
    batch = relabel_batch(rng, table.select(rows), owner[rows], donors, config)
    # Rewards are those of the row's own task, whoever acted.
    expected = family.reward(
        batch.observations[:, :, :-1],
        batch.actions,
        batch.next_observations,
        tasks[owner[rows]][:, None, None],
    )
    np.testing.assert_allclose(batch.rewards, expected, atol=1e-6)
    assert (batch.actions[:, :2] != table.actions[rows, :2]).any((1, 2, 3)).all()
    np.testing.assert_array_equal(batch.actions[:, 2:], table.actions[rows, 2:])


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_a_share_of_the_batch_is_relabelled(fraction: float) -> None:
    family = load_family("gridworld")
    tasks = family.sample_tasks(4, np.random.default_rng(0))
    owner = np.repeat(np.arange(4), 5)
    table = collect(family, tasks[owner], 1)
    pools = [np.flatnonzero(owner == task) for task in range(4)]
    config = RelabellingConfig(fraction=fraction)
    donors = Donors(table, pools, family, tasks)
    batch = relabel_batch(np.random.default_rng(0), table, owner, donors, config)
    changed = (batch.observations != table.observations).any((1, 2, 3)).sum()
    assert changed == round(20 * fraction)


def test_off_means_untouched() -> None:
    family = load_family("gridworld")
    tasks = family.sample_tasks(2, np.random.default_rng(0))
    table = collect(family, tasks, 1)
    config = RelabellingConfig(enabled=False)
    rng = np.random.default_rng(0)
    pools = [np.array([0]), np.array([1])]
    batch = relabel_batch(rng, table, np.arange(2), Donors(table, pools, family, tasks), config)
    np.testing.assert_array_equal(batch.rewards, table.rewards)
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


@pytest.mark.parametrize(("tasks", "trials", "each"), [(2, 8, 8), (8, 8, 8), (21, 500, 8)])
def test_donors_are_other_tasks_and_never_twice(tasks: int, trials: int, each: int) -> None:
    """Also where the batch is the whole table, so that every trial is needed as a donor."""
    pools = list(np.arange(tasks * trials).reshape(tasks, trials))
    targets = np.repeat(np.arange(min(tasks, 8)), each)
    rng = np.random.default_rng(0)
    drawn = draw_donors(rng, targets, pools, RelabellingConfig(), slots=20).T
    assert drawn.shape == (20, len(targets))
    for donors in drawn:
        assert len(np.unique(donors)) == len(donors)
        assert (donors // trials != targets).all()
    assert any((drawn[0] != donors).any() for donors in drawn[1:])


def test_donors_are_uniform_over_the_other_tasks_and_their_trials() -> None:
    pools = [np.arange(4), np.arange(4, 6), np.arange(6, 16)]
    targets = np.array([0, 2])
    rng = np.random.default_rng(0)
    drawn = draw_donors(rng, targets, pools, RelabellingConfig(), slots=40_000)
    share = np.bincount(drawn[0], minlength=16) / 40_000
    expected = np.repeat([0.0, 1 / 4, 1 / 20], [4, 2, 10])  # a half each for tasks 1 and 2
    np.testing.assert_allclose(share, expected, atol=0.01)


def test_donors_come_from_their_pools_of_unequal_size() -> None:
    pools = [np.array([3, 5]), np.array([10]), np.array([20, 21, 22])]
    rng = np.random.default_rng(0)
    for _ in range(50):
        donors = draw_donors(rng, np.array([0, 1, 2]), pools, RelabellingConfig())[:, 0]
        assert len(set(donors)) == 3
        assert set(donors) <= {3, 5, 10, 20, 21, 22}
        assert donors[0] not in pools[0]


def test_any_task_may_give_donors_if_asked() -> None:
    pools = list(np.arange(40).reshape(4, 10))
    config = RelabellingConfig(donors="any-task")
    targets = np.repeat(np.arange(4), 4)
    rng = np.random.default_rng(0)
    own = draw_donors(rng, targets, pools, config, slots=20) // 10 == targets[:, None]
    assert own.any()


def test_too_few_donors_are_refused() -> None:
    pools = [np.arange(2), np.arange(2, 4)]
    with pytest.raises(AlgorithmError, match="lower trials_per_task"):
        draw_donors(np.random.default_rng(0), np.zeros(3, np.int64), pools, RelabellingConfig())


def test_targets_are_a_sorted_draw() -> None:
    targets = draw_targets(np.random.default_rng(0), 10, 0.3)
    assert len(targets) == 3
    assert (np.diff(targets) > 0).all()


def test_tasks_that_differ_in_dynamics_are_refused() -> None:
    wind = load_family("point_robot_wind")
    with pytest.raises(AlgorithmError, match=r"differ in dynamics; set relabelling\.enabled"):
        check_relabelling(wind, 5, RelabellingConfig())
    check_relabelling(wind, 5, RelabellingConfig(enabled=False))


def test_one_task_is_refused() -> None:
    with pytest.raises(AlgorithmError, match="at least two tasks"):
        check_relabelling(load_family("gridworld"), 1, RelabellingConfig())


def test_whole_trials_are_donors_to_the_end() -> None:
    family = load_family("gridworld")
    tasks = family.all_tasks()[:4]
    owner = np.repeat(np.arange(4), 10)
    table = collect(family, tasks[owner], 1)
    pools = [np.flatnonzero(owner == task) for task in range(4)]
    rows, rng, before = np.arange(0, 40, 2), np.random.default_rng(0), table.rewards.copy()
    for share in (1.0, 0.5):
        config = RelabellingConfig(whole_trials=share)
        donors = Donors(table, pools, family, tasks)
        batch = relabel_batch(rng, table.select(rows), owner[rows], donors, config)
        foreign = (batch.actions[:, 2:] != table.actions[rows, 2:]).any((1, 2, 3))
        assert foreign.sum() == round(share * len(rows))
        for row, trial in zip(rows[foreign], batch.actions[foreign], strict=True):
            for slot, episode in enumerate(trial):
                same = (table.actions[:, slot] == episode).all((1, 2))
                assert same.any()
                assert owner[same.argmax()] != owner[row]
        expected = family.reward(
            batch.observations[:, :, :-1],
            batch.actions,
            batch.next_observations,
            tasks[owner[rows]][:, None, None],
        )
        np.testing.assert_array_equal(batch.rewards, expected)
    np.testing.assert_array_equal(table.rewards, before)


def test_until_success_without_whole_trials_is_refused() -> None:
    with pytest.raises(ValidationError, match="set piece_steps"):
        RelabellingConfig(piece_persistence=0.5)
    with pytest.raises(ValidationError, match="set whole_trials above 0"):
        RelabellingConfig(until_success=True)
    RelabellingConfig(until_success=True, enabled=False)


def test_the_own_agent_takes_over_after_the_first_success() -> None:
    family = load_family("gridworld")
    tasks = family.all_tasks()[:6]
    owner = np.repeat(np.arange(6), 10)
    table = collect(family, tasks[owner], 1)
    pools = [np.flatnonzero(owner == task) for task in range(6)]
    rows = np.arange(60)
    config = RelabellingConfig(whole_trials=1.0, until_success=True, donors="any-task")
    donors = Donors(table, pools, family, tasks)
    batch = relabel_batch(np.random.default_rng(0), table, owner, donors, config)
    found_in = np.zeros(4, int)
    for row in rows:
        found = False
        for k in range(4):
            mine = (batch.observations[row, k] == table.observations[row, k]).all()
            if found:
                assert mine
                np.testing.assert_array_equal(batch.rewards[row, k], table.rewards[row, k])
            found_in[k] += found
            found |= bool((batch.rewards[row, k] > 0.5).any())
    assert (found_in[1:] > 0).all()
    assert (found_in < 60).all()
    with pytest.raises(AlgorithmError, match="need a reward of two values"):
        check_relabelling(load_family("point_robot"), 5, config)


def test_donors_act_on_after_the_find_in_a_share_of_trials() -> None:
    family = load_family("gridworld")
    tasks = family.all_tasks()[:6]
    owner = np.repeat(np.arange(6), 10)
    table = collect(family, tasks[owner], 1)
    pools = [np.flatnonzero(owner == task) for task in range(6)]
    donors = Donors(table, pools, family, tasks)
    batches = {}
    for share in (0.0, 0.5, 1.0):
        config = RelabellingConfig(
            whole_trials=1.0,
            until_success=True,
            donors="any-task",
            donors_after_success=share,
        )
        rng = np.random.default_rng(0)
        batches[share] = relabel_batch(rng, table, owner, donors, config)
    own_acts, donors_act = (
        (batches[0.5].observations == batches[share].observations).all((1, 2, 3))
        for share in (0.0, 1.0)
    )
    assert (own_acts | donors_act).all()
    changed = ~(own_acts & donors_act)  # the find left episodes to be acted
    assert changed.sum() > 20
    assert 0.3 < own_acts[changed].mean() < 0.7
    reached = (batches[1.0].next_observations == tasks[owner][:, None, None]).all(-1)
    np.testing.assert_array_equal(batches[1.0].rewards > 0, reached)
    with pytest.raises(ValidationError, match="set that to true"):
        RelabellingConfig(whole_trials=1.0, donors_after_success=0.5)


def test_pieces_come_from_many_donors_and_end_when_the_goal_is_found() -> None:
    """Cut trials: a donor a piece, the task's own agent from the piece after the first find."""
    family = load_family("gridworld")
    tasks = family.sample_tasks(6, np.random.default_rng(0))
    owner = np.repeat(np.arange(6), 40)
    whole = collect(family, tasks[owner], 1, episodes=2)
    table = whole.cut(4)
    pools = [np.flatnonzero(owner == task) for task in range(6)]
    config = RelabellingConfig(
        fraction=1.0, donors="any-task", whole_trials=1.0, until_success=True, piece_steps=4
    )
    rows = np.arange(0, 240, 12)
    donors = Donors(table, pools, family, tasks)
    rng = np.random.default_rng(2)
    found = relabel_batch(rng, table.select(rows), owner[rows], donors, config)
    assert (found.episodes, found.horizon) == (4, 4)
    logged = [
        {piece.tobytes(): owner[row] for row, piece in enumerate(table.observations[:, slot])}
        for slot in range(4)
    ]
    donors: set[int] = set()
    for place, row in enumerate(rows):
        task, found_before = tasks[owner[row]], False
        for slot in range(4):
            observations = found.observations[place, slot]
            if found_before:
                np.testing.assert_array_equal(observations, table.observations[row, slot])
            else:
                donors.add(logged[slot][observations.tobytes()])  # somebody's, in the same slot
            reached = (observations[1:] == task).all(-1)
            np.testing.assert_array_equal(found.rewards[place, slot] > 0, reached)
            found_before |= bool(reached.any())
    assert donors == set(range(6))


@pytest.mark.parametrize("persistence", [0.0, 0.75])
def test_donors_go_on_in_the_next_piece_as_often_as_asked(persistence: float) -> None:
    """In trials of 8 pieces, whose actions tell which logged trial they are from."""
    family = load_family("gridworld")
    tasks = family.sample_tasks(6, np.random.default_rng(0))
    owner = np.repeat(np.arange(6), 200)
    table = collect(family, tasks[owner], 1, episodes=4).cut(4)
    names = np.zeros_like(table.actions) + np.arange(1200)[:, None, None, None]
    table = replace(table, actions=names)
    pools = [np.flatnonzero(owner == task) for task in range(6)]
    config = RelabellingConfig(
        donors="any-task", whole_trials=1.0, piece_steps=4, piece_persistence=persistence
    )
    rows = np.arange(0, 1200, 2)
    donors = Donors(table, pools, family, tasks)
    rng = np.random.default_rng(2)
    found = relabel_batch(rng, table.select(rows), owner[rows], donors, config)
    name = found.actions[:, :, 0, 0]
    assert (name[:, 1:] == name[:, :-1]).mean() == pytest.approx(persistence / 2, abs=0.02)
    assert np.bincount(owner[name[:, 5]]) / len(rows) == pytest.approx(1 / 6, abs=0.05)


def test_fruitless_trials_find_late_what_others_find_early() -> None:
    family = load_family("gridworld")
    tasks = family.sample_tasks(6, np.random.default_rng(0))
    owner = np.repeat(np.arange(6), 60)
    table = collect(family, tasks[owner], 1, episodes=2).cut(2)
    pools = [np.flatnonzero(owner == task) for task in range(6)]
    rows = np.arange(0, 360, 3)
    first = {}  # in which slot trials find the goal first: the share of trials, a slot
    for share in (0.0, 0.5, 1.0):
        config = RelabellingConfig(
            donors="any-task", whole_trials=1.0, fruitless=share, task_averaging=True
        )
        rng = np.random.default_rng(2)
        donors = Donors(table, pools, family, tasks)
        trials = relabel_batch(rng, table.select(rows), owner[rows], donors, config)
        reached = (trials.next_observations == tasks[owner[rows]][:, None, None]).all(-1)
        np.testing.assert_array_equal(trials.rewards > 0, reached)  # whatever was drawn again
        finds = reached.any(2)
        first[share] = np.bincount(finds.argmax(1)[finds.any(1)], minlength=8) / len(rows)
    assert first[0.0][0] > 0.05
    assert first[1.0][0] < 0.01  # the first slot is always early
    assert first[1.0][4:].sum() > 0.1
    assert first[1.0].sum() < first[0.5].sum() < first[0.0].sum()


def test_fruitless_trials_need_averaged_outcomes() -> None:
    with pytest.raises(ValidationError, match="set task_averaging to true, or fruitless to 0"):
        RelabellingConfig(whole_trials=1.0, fruitless=0.5)
    with pytest.raises(ValidationError, match="fruitless is about whole trials"):
        RelabellingConfig(fruitless=0.5, task_averaging=True)
