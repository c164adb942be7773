"""A trained meta-agent on disk: its weights as safetensors, its sizes as JSON."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import ValidationError

from algorithms.config import LearnerConfig
from algorithms.errors import AlgorithmError
from algorithms.learners.base import Learner
from algorithms.learners.registry import make_learner
from algorithms.rollouts import MetaAgent
from datasets.checkpoints import load_tensors, save_tensors
from datasets.files import read_json, write_json
from environments.base import Spec
from models.config import FrozenConfig

DESCRIPTION = "agent.json"
FINAL, BEST = "agent.safetensors", "agent_best.safetensors"


class AgentDescription(FrozenConfig):
    """What an agent was built for."""

    learner: LearnerConfig
    family: str
    state_dim: int  # of a hyper-state, or of an observation where the agent is task-blind
    beliefs: bool  # false: task-blind
    episodes: int  # K of the trials trained on
    action_dim: int
    n_actions: int | None


def describe_agent(
    config: LearnerConfig, spec: Spec, state_dim: int, beliefs: bool, episodes: int
) -> AgentDescription:
    """The description of an agent for a family."""
    return AgentDescription(
        learner=config,
        family=spec.name,
        state_dim=state_dim,
        beliefs=beliefs,
        episodes=episodes,
        action_dim=spec.action_dim,
        n_actions=spec.n_actions,
    )


def save_description(folder: Path, description: AgentDescription) -> None:
    """Write agent.json: what `load_agent` needs beside the weights."""
    write_json(folder / DESCRIPTION, description.model_dump(mode="json"))


def load_agent_description(folder: Path) -> AgentDescription:
    """What the agent in a folder was built for.

    Raises:
        AlgorithmError: the description does not have the fields of one.
        DataError: the file is missing or damaged.
    """
    try:
        return AgentDescription.model_validate(read_json(folder / DESCRIPTION))
    except ValidationError as error:
        raise AlgorithmError(
            f"{folder / DESCRIPTION} is not an agent's description: {error}"
        ) from error


def build_agent(description: AgentDescription, seed: int, device: str) -> Learner:
    """An untrained learner of the sizes described.

    Raises:
        AlgorithmError: the rule does not fit the kind of actions.
    """
    return make_learner(
        description.learner,
        state_dim=description.state_dim,
        action_dim=description.action_dim,
        n_actions=description.n_actions,
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
        AlgorithmError: the weights do not fit the description.
        DataError: a file is missing or damaged.
    """
    description = load_agent_description(folder)
    arrays, _ = load_tensors(folder / weights)
    learner = build_agent(description, 0, device)
    learner.load_weights({name: torch.from_numpy(a).to(device) for name, a in arrays.items()})
    return MetaAgent(learner, description.beliefs)
