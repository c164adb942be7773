"""The belief probe: finds a goal that is there, none that is not, and is honest out of sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import belief_probe, results
from benchmarks.belief_probe import Probe, goals_of, held_out_errors
from pipeline.errors import StoreError
from pipeline.records import RunRecord
from pipeline.store import Store

TASKS, EACH, LATENT = 30, 12, 4


@pytest.fixture
def beliefs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of which the goal is a quadratic, beside noise of 0.01 m; goals; task numbers."""
    rng = np.random.default_rng(0)
    goals = rng.uniform(-0.1, 0.1, (TASKS, 3))
    numbers = np.repeat(np.arange(TASKS), EACH)
    mixing = rng.normal(size=(3, LATENT))
    means = (10 * goals[numbers] + rng.normal(0, 0.1, (len(numbers), 3))) @ mixing
    return means, goals[numbers], numbers


def test_a_goal_in_the_belief_is_found_to_its_noise(
    beliefs: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    means, goals, numbers = beliefs
    found = held_out_errors(means, goals, numbers).mean()
    assert 0.01 < found < 0.02  # the mean length of three numbers of deviation 0.01 is 0.016
    half = numbers < TASKS // 2
    apart = Probe(means[half], goals[half]).errors(means[~half], goals[~half]).mean()
    assert 0.01 < apart < 0.025


def test_a_goal_that_is_not_in_the_belief_is_not_found() -> None:
    rng = np.random.default_rng(1)
    goals, numbers = rng.uniform(-0.1, 0.1, (TASKS, 3)), np.repeat(np.arange(TASKS), EACH)
    means = np.repeat(rng.normal(size=(TASKS, LATENT)), EACH, 0)  # tells the task by heart
    spread = np.linalg.norm(goals - goals.mean(0), axis=1).mean()
    assert held_out_errors(means, goals[numbers], numbers).mean() > 0.8 * spread


def test_beyond_the_logs_it_does_not_run_away(
    beliefs: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    means, goals, _ = beliefs
    probe = Probe(means, goals)
    assert probe.errors(1e6 * np.ones((1, LATENT)), np.zeros((1, 3)))[0] < 10


def test_ends_are_those_of_episodes() -> None:
    beliefs = np.arange(2 * 7 * 4, dtype=np.float32).reshape(2, 7, 4)  # T = 6, H = 3, L = 2
    ends = belief_probe._ends(beliefs, 3)
    assert ends.tolist() == [
        [beliefs[0, 3, :2].tolist(), beliefs[1, 3, :2].tolist()],
        [beliefs[0, 6, :2].tolist(), beliefs[1, 6, :2].tolist()],
    ]
    assert goals_of(np.arange(12.0).reshape(2, 6)).tolist() == [[3, 4, 5], [9, 10, 11]]


def test_only_runs_of_task_sets_are_probed(tmp_path: Path) -> None:
    record = RunRecord.__new__(RunRecord)
    object.__setattr__(record, "name", "gridworld-seed0")
    object.__setattr__(record, "status", "complete")
    object.__setattr__(record, "domain", "gridworld")
    with pytest.raises(StoreError, match="gridworld-seed0 is not a complete run of an ml1/ preset"):
        belief_probe.probe_run(record, Store(tmp_path))


def test_a_line_stands_where_every_seed_was_probed(tmp_path: Path) -> None:
    probe: dict[str, Any] = {
        "spread": 6.0,
        "logs": 1.0,
        "copies": 2.5,
        "given": 1.5,
        "own": [4.0, 3.0],
        "reward_bias": [0.5, -0.1],
        "reward_deviation": 2.0,
    }
    path = tmp_path / "probes.json"
    other = probe | {"own": [2.0, 1.0], "given": None}
    path.write_text(json.dumps({"ml1-push-seed0": probe, "ml1-push-seed1": other}))
    probes = belief_probe.read_probes(path)
    row = {"preset": "ml1/push", "domain": "ml1/push", "seeds": [0, 1]}
    (line,) = results._belief_lines([row], probes)
    assert line == ("ml1/push", "6.0", "1.0", "2.5", "1.5", "3.0, 2.0", "+0.50, -0.10", "2.00")
    assert not results._belief_lines([row | {"seeds": [0, 1, 2]}], probes)
    assert not results._belief_lines([row | {"domain": "ml1/sweep"}], probes)
    assert belief_probe.read_probes(tmp_path / "nothing.json") == {}
