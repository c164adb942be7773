"""Donor plans: spread evenly, drawn without repetition, and what they relabel with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from algorithms.config import RelabellingConfig
from algorithms.decoding import choose_decoded
from algorithms.donor_plans import DonorPlan, choose_donors
from algorithms.donors import Donors
from algorithms.errors import AlgorithmError
from algorithms.relabelling import check_relabelling, relabel_batch
from datasets.trials import Trials
from environments.registry import load_family

TASKS, TRIALS, K, H, P = 4, 5, 2, 6, 9


def make_plan(rng: np.random.Generator) -> DonorPlan:
    """A plan whose rewards tell target, column and step: 100 i + p + h / 10."""
    task, trial, episode = choose_donors(rng, [TRIALS] * TASKS, K, P)
    target, column, step = np.ogrid[:TASKS, :P, :H]
    rewards = (100 * target + column + step / 10).astype(np.float32)
    ends = np.zeros(rewards.shape, np.bool_)
    ends[:, ::2, -1] = True
    shape = task.shape
    shared = np.full(shape, H)
    return DonorPlan(task, trial, episode, rewards, ends, shared, np.ones(shape, np.bool_))


def make_trials() -> Trials:
    """All trials of all tasks; an observation tells trial, episode and step: 100 n + 10 k + h."""
    trial, episode, step = np.ogrid[: TASKS * TRIALS, :K, : H + 1]
    observations = (100 * trial + 10 * episode + step)[..., None].astype(np.float32)
    shape = (TASKS * TRIALS, K, H)
    ends = np.zeros(shape, np.bool_)
    rewards = np.full(shape, -1, np.float32)
    return Trials(observations, np.zeros((*shape, 1), np.float32), rewards, ends, ends)


def make_donors(rng: np.random.Generator) -> Donors:
    rows = np.arange(TASKS * TRIALS).reshape(TASKS, TRIALS)
    family = load_family("point_robot")
    return Donors(
        make_trials(), tuple(rows), family, np.zeros((TASKS, 2)), make_plan(rng), rows[:, 0]
    )


def test_other_tasks_give_equally_many_donors_and_no_episode_comes_early_again() -> None:
    task, trial, episode = choose_donors(np.random.default_rng(0), [TRIALS] * TASKS, K, P)
    for target in range(TASKS):
        counts = np.bincount(task[target], minlength=TASKS)
        assert counts[target] == 0
        assert set(np.delete(counts, target)) == {P // (TASKS - 1)}
        named = set(zip(task[target], trial[target], episode[target], strict=True))
        assert len(named) == P
    again, trial, episode = choose_donors(np.random.default_rng(0), [1, 1], 2, 5)
    assert sorted(zip(trial[0], episode[0], strict=True)) == [(0, 0)] * 3 + [(0, 1)] * 2 or sorted(
        episode[0]
    ) in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])
    assert (again[0] == 1).all()


def test_one_task_has_no_donors() -> None:
    with pytest.raises(AlgorithmError, match="at least two tasks"):
        choose_donors(np.random.default_rng(0), [3], 2, 4)


def test_draws_of_a_task_never_repeat_within_a_slot_and_are_uniform() -> None:
    plan = make_plan(np.random.default_rng(1))
    own = np.array([2, 0, 2, 2, 0, 3])
    rng = np.random.default_rng(2)
    counts = np.zeros((TASKS, P))
    for _ in range(400):
        drawn = plan.draw(rng, own, np.full(3, H))
        for slot in drawn.T:
            for task in (0, 2):
                mine = slot[own == task]
                assert len(set(mine)) == len(mine)
        np.add.at(counts, (own[:, None], drawn), 1)
    for task, trials in ((0, 2), (2, 3), (3, 1)):
        expected = 400 * 3 * trials / P
        assert np.abs(counts[task] - expected).max() < 6 * np.sqrt(expected)


def test_few_donors_come_equally_often_and_none_is_told() -> None:
    plan = make_plan(np.random.default_rng(1))
    usable = np.zeros_like(plan.usable)
    usable[1, [2, 5, 7]] = True
    few = replace(plan, usable=usable)
    own = np.array([1] * 8 + [3] * 2)
    drawn = few.draw(np.random.default_rng(0), own, np.array([H, H]))
    assert (drawn[8:] == -1).all()
    for slot in drawn[:8].T:
        assert sorted(np.bincount(slot, minlength=P)[[2, 5, 7]]) == [2, 3, 3]


def test_a_dropping_plan_gives_no_step_after_contact() -> None:
    plan = make_plan(np.random.default_rng(1))
    shared = np.random.default_rng(0).integers(0, H + 1, plan.shared.shape)
    shared[2] = 0
    plan = replace(plan, shared=shared, usable=shared > 0, dropping=True)
    own = np.array([0, 1, 2, 3, 1])
    ends = np.array([2, 4, 6, 2])
    drawn = plan.draw(np.random.default_rng(0), own, ends)
    enough = shared[own][:, None] >= ends[None, :, None]
    assert np.array_equal(drawn >= 0, enough.any(-1))
    there = drawn >= 0
    assert plan.allows(own, drawn, ends)[there].all()
    rng = np.random.default_rng(3)
    donors = make_donors(rng)._replace(plan=plan)
    donors = donors._replace(trials=donors.trials.cut(2))
    batch = donors.trials.select(own * TRIALS)
    config = RelabellingConfig(piece_steps=2, whole_trials=1.0, piece_persistence=0.9)
    found = relabel_batch(rng, batch, own, donors, config)
    column = found.rewards[..., 0].astype(int) % 100
    piece = np.arange(batch.episodes) % (H // 2)
    for row, task in enumerate(own):
        for slot in range(batch.episodes):
            if np.array_equal(found.observations[row, slot], batch.observations[row, slot]):
                assert (found.rewards[row, slot] == -1).all()  # the log's own
            else:
                assert shared[task, column[row, slot]] >= 2 * (piece[slot] + 1)
    assert np.array_equal(found.observations[2], batch.observations[2])
    decoded = choose_decoded(rng, found, own, donors, RelabellingConfig(decoded_steps=200))
    for row, task in enumerate(own):
        known = decoded.rewards[row] >= 0
        tenths = np.rint(10 * (decoded.rewards[row][known] - 100 * task)).astype(int)
        p, step = np.divmod(tenths, 10)
        assert known.any() == (task != 2)
        assert (step < shared[task][p]).all()


def test_only_donors_of_the_given_rows_are_drawn() -> None:
    plan = make_plan(np.random.default_rng(1))
    rows = np.array([0, 1, 6, 7, 11, 12, 16, 17])
    firsts = np.arange(TASKS) * TRIALS
    kept = plan.among(rows, firsts)
    own = np.array([0, 1, 2, 3])
    drawn = kept.draw_freely(np.random.default_rng(0), own, 50)
    found = firsts[plan.task[own[:, None], drawn]] + plan.trial[own[:, None], drawn]
    assert np.isin(found, rows).all()


@pytest.mark.parametrize("pieces", [None, 3])
def test_a_relabelled_trial_opens_with_a_planned_episode_and_its_rewards(
    pieces: int | None,
) -> None:
    rng = np.random.default_rng(3)
    donors = make_donors(rng)
    assert donors.plan is not None
    table = donors.trials if pieces is None else donors.trials.cut(pieces)
    donors = donors._replace(trials=table)
    own = np.array([0, 1, 2, 3, 1])
    batch = table.select(own * TRIALS)
    config = RelabellingConfig(piece_steps=pieces)
    found = relabel_batch(rng, batch, own, donors, config)
    lead, steps = table.episodes // 2, table.horizon
    assert np.array_equal(found.observations[:, lead:], batch.observations[:, lead:])
    assert np.array_equal(found.rewards[:, lead:], batch.rewards[:, lead:])
    plan = donors.plan
    for row, target in enumerate(own):
        for slot in range(lead):
            first = float(found.observations[row, slot, 0, 0])
            trial, rest = divmod(first, 100)
            episode, step = divmod(rest, 10)
            begin = slot * steps % H
            assert step == begin
            column = int(round(float(found.rewards[row, slot, 0]) * 10) // 10 - 100 * target)
            assert plan.task[target, column] * TRIALS + plan.trial[target, column] == trial
            assert plan.episode[target, column] == episode
            expected = plan.rewards[target, column, begin : begin + steps]
            assert np.array_equal(found.rewards[row, slot], expected)
            ends = plan.terminations[target, column, begin : begin + steps]
            assert np.array_equal(found.terminations[row, slot], ends)


@pytest.mark.parametrize("pieces", [None, 3])
def test_decoded_steps_are_half_own_and_half_planned_with_the_rewards_of_either(
    pieces: int | None,
) -> None:
    rng = np.random.default_rng(4)
    donors = make_donors(rng)
    table = donors.trials if pieces is None else donors.trials.cut(pieces)
    donors = donors._replace(trials=table)
    own = np.array([0, 3])
    config = RelabellingConfig(decoded_steps=400, piece_steps=pieces)
    found = choose_decoded(rng, table.select(own * TRIALS), own, donors, config)
    trial = found.observations[..., 0] // 100
    mine = trial // TRIALS == own[:, None]
    assert abs(mine.mean() - 0.5) < 0.1
    assert (found.rewards[mine] == -1).all()  # as logged
    assert (found.rewards[~mine] // 100 == np.broadcast_to(own[:, None], mine.shape)[~mine]).all()
    step = found.observations[..., 0] % 10
    tenths = np.round(found.rewards * 10) % 10
    assert np.array_equal(tenths[~mine], step[~mine])
    assert np.array_equal(found.next_observations, found.observations + 1)


def test_nothing_to_relabel_is_said() -> None:
    family = load_family("ml1/sweep")
    with pytest.raises(AlgorithmError, match="nothing to relabel in ml1/sweep: the first obs"):
        check_relabelling(family, 5, RelabellingConfig())
    family = load_family("ml1/hammer")
    with pytest.raises(AlgorithmError, match="nothing to relabel in ml1/hammer: tasks share it"):
        check_relabelling(family, 5, RelabellingConfig())
    with pytest.raises(AlgorithmError, match="task_averaging needs rewards under every task"):
        check_relabelling(load_family("ml1/push"), 5, RelabellingConfig(task_averaging=True))
