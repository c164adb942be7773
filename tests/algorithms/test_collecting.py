"""The experience log, behaviours and trials of collection, against brute force."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.collecting import (
    Actor,
    ExperienceLog,
    derangement,
    group_simulator,
    run_trials,
)
from algorithms.scripted import ScriptedActor
from datasets.errors import DataError
from environments.base import Simulator, Step
from environments.registry import load_family

TASKS, TRIALS, K, H = 3, 5, 2, 4
FILLED = 3


def coded_log(discrete: bool = False) -> ExperienceLog:
    """Every observation is (task, trial, episode, time); rewards and actions number the step."""
    grid = torch.stack(
        torch.meshgrid(*(torch.arange(n) for n in (TASKS, TRIALS, K, H + 1)), indexing="ij"), -1
    ).float()
    number = torch.arange(TASKS * TRIALS * K * H).view(TASKS, TRIALS, K, H)
    actions = number[..., None] if discrete else number[..., None].float()
    return ExperienceLog(grid, actions, number.float(), number % 7 == 0, filled=FILLED)


@pytest.mark.parametrize("discrete", [False, True])
def test_a_batch_never_crosses_an_episodes_reset(discrete: bool) -> None:
    log = coded_log(discrete)
    batch = log.sample(400, torch.Generator().manual_seed(0))
    assert batch.states.shape == (TASKS, 400, 4)
    assert batch.actions.shape == ((TASKS, 400) if discrete else (TASKS, 400, 1))
    assert batch.actions.dtype == (torch.int64 if discrete else torch.float32)
    assert batch.next_actions is None
    rewards, ends = log.rewards.numpy(), log.terminations.numpy()
    drawn = {name: getattr(batch, name).numpy() for name in batch._fields[:5]}
    seen: set[tuple[int, ...]] = set()
    for task, row in np.ndindex(TASKS, 400):
        where = tuple(drawn["states"][task, row].astype(int).tolist())
        assert where[0] == task
        assert drawn["next_states"][task, row].tolist() == [*where[:3], where[3] + 1]
        assert drawn["rewards"][task, row] == rewards[where]
        assert drawn["actions"][task, row] == rewards[where]
        assert drawn["continues"][task, row] == (0.0 if ends[where] else 1.0)
        seen.add(where)
    assert seen == set(np.ndindex(TASKS, FILLED, K, H))  # all that is filled, and nothing else


def test_batches_are_uniform_over_steps_and_tasks_draw_their_own() -> None:
    log = coded_log()
    batch = log.sample(24_000, torch.Generator().manual_seed(1))
    for task in range(TASKS):
        counts = Counter(batch.rewards[task].tolist())
        assert len(counts) == FILLED * K * H
        assert max(abs(n - 1000) for n in counts.values()) < 150  # five standard deviations
    assert not torch.equal(batch.states[0, :, 1:], batch.states[1, :, 1:])


def test_trials_and_checkpoint_hold_the_filled_part() -> None:
    log = coded_log()
    trials = log.trials(1)
    assert trials.count == FILLED
    np.testing.assert_array_equal(trials.observations, log.observations[1, :FILLED].numpy())
    np.testing.assert_array_equal(trials.terminations, log.terminations[1, :FILLED].numpy())
    assert trials.truncations[..., -1].all()
    assert not trials.truncations[..., :-1].any()
    other = coded_log()
    for name in ("observations", "actions", "rewards", "terminations"):
        getattr(other, name).zero_()
    other.filled = 0
    other.restore(log.arrays())
    assert other.filled == FILLED
    for name in ("observations", "actions", "rewards", "terminations"):
        assert torch.equal(getattr(other, name)[:, :FILLED], getattr(log, name)[:, :FILLED])
        assert not getattr(other, name)[:, FILLED:].any()


@pytest.mark.parametrize("count", [2, 3, 4, 7, 20])
def test_donors_are_derangements(count: int) -> None:
    rng = np.random.default_rng(count)
    drawn = [derangement(count, rng) for _ in range(40)]
    for donors in drawn:
        assert sorted(donors.tolist()) == list(range(count))
        assert (donors != torch.arange(count)).all()
    if count > 2:
        assert len({tuple(donors.tolist()) for donors in drawn}) > 1


class Parrot:
    """A learner whose agent j acts j, and which remembers what each agent saw."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.saw: list[Tensor] = []

    def act(self, states: Tensor, deterministic: bool) -> Tensor:
        assert not deterministic
        self.saw.append(states)
        agents, rows, _ = states.shape
        return torch.arange(agents)[:, None].expand(agents, rows).contiguous()


def test_an_agent_acts_in_the_task_it_visits() -> None:
    """Task i is acted by agent donors[i], which sees task i's states."""
    parrot = Parrot()
    actor = Actor(parrot, load_family("gridworld"), torch.Generator(), 0.0)  # type: ignore[arg-type]
    observations = torch.arange(5.0)[:, None, None].expand(5, 2, 2)
    own = actor.act(observations, None)
    assert own.flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    donors = torch.tensor([3, 0, 4, 2, 1])
    visited = actor.act(observations, donors)
    assert visited.shape == (10, 1)
    assert visited.view(5, 2)[:, 0].tolist() == donors.tolist()
    for task, agent in enumerate(donors.tolist()):
        assert (parrot.saw[-1][agent] == task).all()


@pytest.mark.parametrize("name", ["gridworld", "point_robot"])
def test_random_actions_fill_their_range(name: str) -> None:
    family = load_family(name)
    actor = Actor(None, family, torch.Generator().manual_seed(0), 1.0)
    actions = torch.cat([actor.act(torch.zeros(4, 25, 2), None) for _ in range(20)])
    assert actions.shape == (2000, family.spec.action_dim)
    if family.spec.n_actions:
        counts = torch.bincount(actions.flatten(), minlength=family.spec.n_actions)
        assert ((counts - 400).abs() < 100).all()
    else:
        assert actions.abs().max() <= 1
        assert abs(float(actions.mean())) < 0.05
        assert abs(float(actions.var()) - 1 / 3) < 0.02


def test_held_actions_change_every_so_many_steps() -> None:
    actor = Actor(None, load_family("point_robot"), torch.Generator().manual_seed(0), 1.0, hold=3)
    actions = [actor.act(torch.zeros(2, 2, 2), None) for _ in range(7)]
    same = [torch.equal(a, b) for a, b in pairwise(actions)]
    assert same == [True, True, False, True, True, False]


def test_a_share_of_actions_is_random() -> None:
    actor = Actor(Parrot(), load_family("gridworld"), torch.Generator().manual_seed(0), 0.4)  # type: ignore[arg-type]
    actions = actor.act(torch.zeros(1, 10_000, 2), None)  # agent 0 acts 0, as a fifth at random
    assert float((actions == 0).float().mean()) == pytest.approx(0.6 + 0.4 / 5, abs=0.02)


class Witness(Actor):
    """Random actions; remembers which donors it was given."""

    def __init__(self, name: str) -> None:
        super().__init__(None, load_family(name), torch.Generator().manual_seed(0), 1.0)
        self.guests: list[Tensor | None] = []

    def act(self, observations: Tensor, donors: Tensor | None) -> Tensor:
        self.guests.append(donors)
        return super().act(observations, donors)


@pytest.mark.parametrize(("episodes", "parts"), [(1, 1), (2, 2), (3, 3), (2, 10), (4, 2)])
def test_whoever_is_named_acts_in_each_part_of_a_trial(episodes: int, parts: int) -> None:
    family, rng = load_family("point_robot_wind"), np.random.default_rng(0)
    tasks = family.sample_tasks(2, rng)
    log = ExperienceLog.empty(family, 2, 1, episodes)
    witness = Witness("point_robot_wind")
    donors = [derangement(2, rng) if part % 2 else None for part in range(parts)]
    simulator = group_simulator(family, tasks, 1, "origin")
    run_trials(log, simulator, 1, witness, rng, donors)
    length = episodes * family.spec.horizon // parts
    expected = [donor for donor in donors for _ in range(length)]
    assert len(witness.guests) == len(expected)
    assert all(given is wanted for given, wanted in zip(witness.guests, expected, strict=True))


@pytest.mark.parametrize("name", ["gridworld", "point_robot_wind"])
def test_trials_are_what_single_environments_do(name: str) -> None:
    """Each trial again, alone and step by step, from its own resets with its own actions."""
    family, rng = load_family(name), np.random.default_rng(3)
    tasks = family.sample_tasks(3, rng)
    log = ExperienceLog.empty(family, 3, 3, 2)
    actor = Actor(None, family, torch.Generator().manual_seed(0), 1.0)
    returns = [
        run_trials(log, group_simulator(family, tasks, n, "wide"), n, actor, rng) for n in (1, 2)
    ]
    assert log.filled == 3
    for i in range(3):
        trials = log.trials(i).validate()
        for n, k in np.ndindex(3, 2):
            here = trials.observations[n, k, 0]
            for h in range(family.spec.horizon):
                action, after = trials.actions[n, k, h], trials.observations[n, k, h + 1]
                alone = family.transition(here[None], action[None], tasks[i : i + 1])[0]
                reward = family.reward(here[None], action[None], alone[None], tasks[i : i + 1])[0]
                np.testing.assert_array_equal(after, alone)
                assert trials.rewards[n, k, h] == reward
                here = alone
        sums = trials.rewards.astype(np.float64).sum((1, 2))
        assert [r[i] for r in returns] == pytest.approx([sums[0], sums[1:].mean()])


def test_a_tasks_data_do_not_depend_on_its_neighbours() -> None:
    """In one group the random numbers of a task are its own: other tasks change nothing."""
    family = load_family("point_robot_wind")
    tasks = family.sample_tasks(4, np.random.default_rng(0))
    logs = []
    for chosen in ([0, 1, 2], [0, 3, 1]):
        log = ExperienceLog.empty(family, 3, 2, 2)
        actor = Actor(None, family, torch.Generator().manual_seed(1), 1.0)
        simulator = group_simulator(family, tasks[chosen], 2, "wide")
        run_trials(log, simulator, 2, actor, np.random.default_rng(2))
        logs.append(log)
    assert torch.equal(logs[0].observations[0], logs[1].observations[0])
    assert torch.equal(logs[0].rewards[0], logs[1].rewards[0])
    assert not torch.equal(logs[0].observations[1], logs[1].observations[1])


def test_scripts_follow_the_oracle_or_the_donors() -> None:
    family, rng = load_family("point_robot_sparse"), np.random.default_rng(0)
    tasks = family.sample_tasks(3, rng)
    actor = ScriptedActor(family, tasks, 2, rng, torch.Generator(), 0.0)
    observations = torch.rand(3, 2, 2)
    rows = observations.reshape(6, 2).numpy()
    own = actor.act(observations, None)
    expected = family.oracle_actions(rows, np.repeat(tasks, 2, 0))
    np.testing.assert_array_equal(own.numpy(), expected)
    donors = torch.tensor([1, 2, 0])
    visited = actor.act(observations, donors)
    expected = family.oracle_actions(rows, np.repeat(tasks[donors.numpy()], 2, 0))
    np.testing.assert_array_equal(visited.numpy(), expected)
    noisy = ScriptedActor(family, tasks, 2, rng, torch.Generator(), 0.3).act(observations, None)
    assert not np.array_equal(noisy.numpy(), own.numpy())
    assert noisy.abs().max() <= 1


class Failing(Simulator):
    """Six environments, two a task, that turn NaN where they are told to."""

    def __init__(self, what: str, row: int, when: int) -> None:
        self.tasks, self.start = np.zeros((6, 2)), "origin"
        self._what, self._row, self._when, self._time = what, row, when, 0

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        observations = np.zeros((6, 2), np.float32)
        if self._what == "reset" and self._time == self._when:
            observations[self._row, 1] = np.nan
        return observations

    def step(self, actions: np.ndarray) -> Step:
        observations, rewards = np.zeros((6, 2), np.float32), np.zeros(6, np.float32)
        if self._time == self._when and self._what == "reward":
            rewards[self._row] = np.inf
        if self._time == self._when and self._what == "observation":
            observations[self._row] = np.nan
        self._time += 1
        return Step(observations, rewards, np.zeros(6, np.bool_), np.zeros(6, np.bool_))


@pytest.mark.parametrize(
    ("what", "row", "when", "message"),
    [
        ("reward", 3, 30, "task 41, trial 4, step 30: reward is NaN or infinite"),
        ("observation", 0, 0, "task 40, trial 3, step 0: next observation is NaN"),
        ("reset", 5, 25, "task 42, trial 4, reset of episode 1: observation is NaN"),
    ],
)
def test_what_is_not_finite_is_refused_with_its_place(
    what: str, row: int, when: int, message: str
) -> None:
    family = load_family("point_robot_wind")
    log = ExperienceLog.empty(family, 3, 5, 2, first_task=40)
    log.filled = 3
    actor = Actor(None, family, torch.Generator(), 1.0)
    with pytest.raises(DataError, match=message):
        run_trials(log, Failing(what, row, when), 2, actor, np.random.default_rng(0))
