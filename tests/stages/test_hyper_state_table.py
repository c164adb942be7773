"""The table of transitions, as read from a store, against the numbers that were put there."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from numbered_store import TASKS, TRIALS, H, K, L, T, write_store
from waits import Waits

from algorithms.config import LearnerConfig
from algorithms.learners import make_learner
from stages.config import OfflineConfig
from stages.errors import StageError
from stages.hyper_state_table import HyperStateTable, moments
from stages.stored_tasks import StoredTasks


def load(folder: Path, config: OfflineConfig) -> HyperStateTable:
    """All tasks of a store."""
    tasks = StoredTasks(folder, config)
    table, task = tasks.room(len(tasks)), tasks.room(1)
    for index in range(len(tasks)):
        tasks.read(index, task)
        table.put(index, task)
    return table


def expected_rows(task: int, trial: int, t: int) -> tuple[list[float], list[float]]:
    """Hyper-state before and after step t, from the definition of the Bayes-adaptive MDP."""
    k, h = divmod(t, H)
    if h < H - 1:
        after = (k, h + 1)
    elif k < K - 1:
        after = (k + 1, 0)  # the next episode's reset, with the belief carried on
    else:
        after = (k, H)  # the end of the trial: its last observation
    beliefs = [[1000.0 * task + 100 * trial + t + i] * (2 * L) for i in (0, 1)]
    return [task, trial, k, h, *beliefs[0]], [task, trial, *after, *beliefs[1]]


@pytest.mark.parametrize("n_actions", [None, 7])
@pytest.mark.parametrize("beliefs", [True, False])
def test_every_transition_is_the_definitions(
    beliefs: bool, n_actions: int | None, tmp_path: Path
) -> None:
    write_store(tmp_path, n_actions)
    table = load(tmp_path, OfflineConfig(beliefs=beliefs))
    width = 4 + 2 * L if beliefs else 4
    assert table.rows.shape == (TASKS * TRIALS * K * (H + 1), width)
    assert table.steps == T
    batch = table.sample(3000, torch.Generator().manual_seed(0))
    assert batch.states.shape == (1, 3000, width)
    assert batch.actions.shape == ((1, 3000) if n_actions else (1, 3000, 1))
    assert batch.next_actions is not None
    assert batch.others is None
    drawn = {
        name: tensor[0].numpy() for name, tensor in batch._asdict().items() if name != "others"
    }
    actions, following = (drawn[n].reshape(3000) for n in ("actions", "next_actions"))
    seen = set()
    for row in range(3000):
        task, trial, k, h = drawn["states"][row, :4].astype(int).tolist()
        t = k * H + h
        here, after = expected_rows(task, trial, t)
        assert drawn["states"][row].tolist() == here[:width]
        assert drawn["next_states"][row].tolist() == after[:width]
        numbers = [100 * task + 10 * trial + s for s in (t, min(t + 1, T - 1))]
        assert drawn["rewards"][row] == numbers[0]
        wanted = [n % n_actions if n_actions else np.float32(n / 1000) for n in numbers]
        assert [actions[row], following[row]] == wanted
        assert drawn["continues"][row] == (0.0 if t % 5 == 0 else 1.0)
        seen.add((task, trial, t))
    assert seen == set(product(range(TASKS), range(TRIALS), range(T)))


def test_transitions_are_drawn_uniformly(tmp_path: Path) -> None:
    write_store(tmp_path)
    table = load(tmp_path, OfflineConfig())
    batch = table.sample(48_000, torch.Generator().manual_seed(0))
    _, counts = torch.unique(batch.rewards, return_counts=True)
    assert len(counts) == TASKS * TRIALS * T
    assert (counts - 1000).abs().max() < 150  # five standard deviations


def test_belief_rewards_take_the_place_of_rewards(tmp_path: Path) -> None:
    write_store(tmp_path / "with", belief_rewards=True)
    config = OfflineConfig(use_belief_rewards=True)
    table = load(tmp_path / "with", config)
    own = load(tmp_path / "with", OfflineConfig())
    assert torch.equal(table.rewards, -own.rewards)
    write_store(tmp_path / "without")
    with pytest.raises(StageError, match=r"hold no R\+; set relabel.belief_rewards"):
        load(tmp_path / "without", config)


@pytest.mark.parametrize("parts", [7, 30, 60])
def test_moments_are_those_of_all_rows(parts: int, tmp_path: Path) -> None:
    write_store(tmp_path)
    table = load(tmp_path, OfflineConfig())
    table.rows[:, 2] = 5.0  # a constant input
    mean, deviation = moments(table.rows.split(parts))
    rows = table.rows.numpy().astype(np.float64)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-6)
    expected = rows.std(0, ddof=1)
    expected[2] = 1e-4
    np.testing.assert_allclose(deviation, expected, rtol=1e-6)


def test_a_piece_ends_with_its_own_last_observation(tmp_path: Path) -> None:
    """Two pieces an episode: only every second end is a reset."""
    write_store(tmp_path, pieces=2)
    table = load(tmp_path, OfflineConfig())
    batch = table.sample(500, torch.Generator().manual_seed(0))
    seen = set()
    for here, after in zip(batch.states[0].tolist(), batch.next_states[0].tolist(), strict=True):
        task, trial, piece, h, belief = here[:5]
        assert after == [task, trial, piece, h + 1, *[belief + 1] * (2 * L)]
        seen.add((piece, h))
    assert seen == set(product(range(K), range(H)))  # K = 2 pieces are one episode: no reset at all


def test_other_outcomes_stand_beside_their_transitions(tmp_path: Path) -> None:
    write_store(tmp_path, outcomes=True)
    table = load(tmp_path, OfflineConfig())
    batch = table.sample(500, torch.Generator().manual_seed(0))
    assert batch.others is not None
    places, chances, rewards, next_states = batch.others
    doubtful = [row for row, state in enumerate(batch.states[0]) if state[3] % 2 == 1]  # odd steps
    assert places.tolist() == doubtful
    logged = batch.rewards[:, places]
    torch.testing.assert_close(chances, 1 / (1 + logged))
    torch.testing.assert_close(rewards, -logged)
    observations = batch.next_states[:, places, :4]
    assert torch.equal(next_states[..., :4], observations)
    wanted = -(batch.states[:, places, 4:])
    assert torch.equal(next_states[..., 4:], wanted)
    blind = load(tmp_path, OfflineConfig(beliefs=False))
    assert blind.sample(5, torch.Generator()).others is None


def test_fixed_shapes_change_no_target(tmp_path: Path) -> None:
    write_store(tmp_path, outcomes=True)
    table = load(tmp_path, OfflineConfig())
    fixed, free = (
        table.sample(500, torch.Generator().manual_seed(0), fixed_shapes=way)
        for way in (True, False)
    )
    assert fixed.others is not None
    assert free.others is not None
    assert fixed.others.chances.shape == (1, 500)
    assert 0 < free.others.chances.shape[1] < 500
    width = free.states.shape[2]
    learner = make_learner(LearnerConfig(rule="dqn"), width, 1, 5, agents=1, seed=0)
    torch.testing.assert_close(learner.targets(fixed), learner.targets(free))


def test_drawing_fixed_shapes_waits_for_nothing(tmp_path: Path) -> None:
    write_store(tmp_path, outcomes=True)
    table = load(tmp_path, OfflineConfig())
    draws = torch.Generator().manual_seed(0)
    with Waits() as waits:
        table.sample(50, draws, fixed_shapes=True)
    assert waits.found == []
    with Waits() as waits:
        table.sample(50, draws, fixed_shapes=False)
    assert waits.found == ["aten::nonzero"]


def test_belief_rewards_beside_other_outcomes_are_refused(tmp_path: Path) -> None:
    write_store(tmp_path, belief_rewards=True, outcomes=True)
    with pytest.raises(StageError, match=r"set relabel\.relabelling\.task_averaging to false"):
        load(tmp_path, OfflineConfig(use_belief_rewards=True))
