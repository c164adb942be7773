"""Agents on disk: what is loaded acts like what was saved, and nothing else is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from algorithms.agent_files import (
    BEST,
    DESCRIPTION,
    FINAL,
    build_agent,
    describe_agent,
    load_agent,
    load_agent_description,
    save_description,
    save_weights,
)
from algorithms.config import LearnerConfig
from algorithms.errors import AlgorithmError
from algorithms.rollouts import MetaAgent
from datasets.checkpoints import load_tensors
from datasets.errors import DataError
from datasets.files import read_json, write_json
from environments.registry import load_family


def save(folder: Path, name: str, beliefs: bool = True) -> MetaAgent:
    """An untrained, normalising agent in a folder."""
    spec = load_family(name).spec
    config = LearnerConfig(
        rule="dqn" if spec.n_actions else "iql", critic_layers=(8,), actor_layers=(8,)
    )
    width = spec.observation_dim + (4 if beliefs else 0)
    description = describe_agent(config, spec, width, beliefs, 2)
    learner = build_agent(description, 3, "cpu")
    learner.set_normalisation(torch.rand(width), torch.rand(width) + 1)
    save_description(folder, description)
    save_weights(folder / FINAL, learner, 12)
    return MetaAgent(learner, beliefs)


@pytest.mark.parametrize("beliefs", [True, False])
@pytest.mark.parametrize("name", ["gridworld", "escape_room"])
def test_a_loaded_agent_acts_like_the_saved_one(name: str, beliefs: bool, tmp_path: Path) -> None:
    saved = save(tmp_path, name, beliefs)
    loaded = load_agent(tmp_path)
    assert loaded.beliefs == beliefs
    observations, belief = torch.randn(50, 2), torch.randn(50, 4)
    assert torch.equal(loaded.act(observations, belief), saved.act(observations, belief))
    assert load_tensors(tmp_path / FINAL)[1] == {"step": 12}


def test_the_description_round_trips(tmp_path: Path) -> None:
    save(tmp_path, "gridworld")
    description = load_agent_description(tmp_path)
    assert (description.family, description.state_dim, description.episodes) == ("gridworld", 6, 2)
    assert (description.action_dim, description.n_actions) == (1, 5)
    assert read_json(tmp_path / DESCRIPTION) == description.model_dump(mode="json")


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "gridworld")
    with pytest.raises(DataError, match=r"agent_best\.safetensors is missing"):
        load_agent(tmp_path, BEST)
    good = read_json(tmp_path / DESCRIPTION)
    write_json(tmp_path / DESCRIPTION, good | {"state_dim": 7})
    with pytest.raises(AlgorithmError, match="has shape"):
        load_agent(tmp_path)
    write_json(tmp_path / DESCRIPTION, good | {"colour": "red"})
    with pytest.raises(AlgorithmError, match=r"agent\.json is not an agent's description"):
        load_agent(tmp_path)
