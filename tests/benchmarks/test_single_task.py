"""Agents of the test tasks: trained like those of the logs, and counted only while that holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import single_task
from environments.registry import load_family
from pipeline.presets import load_config
from stages.config import CollectConfig


class Towards(torch.nn.Module):
    """Agents that go to the goals they were told."""

    def __init__(self, goals: np.ndarray) -> None:
        super().__init__()
        self.goals = torch.from_numpy(goals.astype(np.float32))

    def act(self, states: Tensor, deterministic: bool) -> Tensor:
        assert deterministic
        return ((self.goals[:, None] - states) / 0.1).clip(-1, 1)


def test_an_episode_of_each_tasks_agent() -> None:
    family = load_family("point_robot")
    tasks = family.sample_tasks(5, np.random.default_rng(0))
    found = single_task.episode_returns(family, tasks, Towards(tasks))  # type: ignore[arg-type]
    oracle = family.oracle_returns(tasks, 1)
    assert oracle is not None
    np.testing.assert_allclose(found, oracle[:, 0], rtol=1e-5)


def test_numbers_are_kept_with_the_settings_that_made_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(config: CollectConfig, seed: int) -> np.ndarray:
        assert (config.domain, seed) == ("cheetah_vel", 4)
        return np.array([-10.0, -20.0])

    monkeypatch.setattr(single_task, "single_task_returns", measured)
    path = tmp_path / "single_task.json"
    assert single_task.current_mean("cheetah_vel", path) is None
    assert single_task.main(["cheetah_vel", "--seed", "4"], path) == 0
    assert single_task.current_mean("cheetah_vel", path) == -15.0
    assert single_task.current_mean("point_robot", path) is None
    rows = json.loads(path.read_text())
    rows["cheetah_vel"]["collect"]["iterations"] += 1
    path.write_text(json.dumps(rows))
    assert single_task.current_mean("cheetah_vel", path) is None


def test_a_few_rounds_train_every_test_task() -> None:
    config = load_config("point_robot").config.collect
    tiny = {"iterations": 1, "random_trials": 1, "updates_per_iteration": 2, "batch_size": 4}
    returns = single_task.single_task_returns(config.model_copy(update=tiny), 0)
    assert returns.shape == (config.tasks.test,)
    assert np.isfinite(returns).all()
