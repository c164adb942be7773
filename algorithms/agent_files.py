"""A trained meta-agent on disk: its weights as safetensors, its sizes as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from algorithms.config import LearnerConfig
from algorithms.learners.base import Learner
from algorithms.learners.registry import make_learner
from algorithms.rollouts import MetaAgent
from datasets.checkpoints import load_tensors, save_tensors
from datasets.files import read_json, write_json
from environments.base import Spec

DESCRIPTION = "agent.json"
FINAL, BEST = "agent.safetensors", "agent_best.safetensors"


def describe_agent(
    folder: Path, config: LearnerConfig, spec: Spec, state_dim: int, beliefs: bool, episodes: int
) -> None:
    """Write what `load_agent` needs beside the weights."""
    write_json(
        folder / DESCRIPTION,
        {
            "learner": config.model_dump(mode="json"),
            "family": spec.name,
            "state_dim": state_dim,
            "beliefs": beliefs,
            "episodes": episodes,
            "action_dim": spec.action_dim,
            "n_actions": spec.n_actions,
        },
    )


def build_agent(description: dict[str, Any], seed: int, device: str) -> Learner:
    """An untrained learner of the sizes described."""
    return make_learner(
        LearnerConfig.model_validate(description["learner"]),
        state_dim=description["state_dim"],
        action_dim=description["action_dim"],
        n_actions=description["n_actions"],
        agents=1,
        seed=seed,
        device=device,
    )


def save_weights(path: Path, learner: Learner, step: int) -> None:
    """The weights that act, after `step` updates; no optimiser, no targets."""
    arrays = {name: tensor.cpu().numpy() for name, tensor in learner.weights().items()}
    save_tensors(path, arrays, {"step": step})


def load_agent(folder: Path, weights: str = FINAL, device: str = "cpu") -> MetaAgent:
    """The agent whose weights lie in `folder / weights`.

    Raises:
        DataError: a file is missing or damaged.
    """
    description = read_json(folder / DESCRIPTION)
    arrays, _ = load_tensors(folder / weights)
    learner = build_agent(description, 0, device)
    learner.load_weights({name: torch.from_numpy(a).to(device) for name, a in arrays.items()})
    return MetaAgent(learner, bool(description["beliefs"]))
