"""Rules, batches and noise that the learners' tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.config import LearnerConfig
from algorithms.learners import Batch, Learner, make_learner

RULES = [
    "dqn",
    "dqn-muon",
    "cql-discrete",
    "sac",
    "sac-tuned",
    "sac-muon",
    "cql",
    "iql",
    "td3bc",
    "rebrac",
]
N_ACTIONS, ACTION_DIM = 3, 2


def is_discrete(rule: str) -> bool:
    return rule in {"dqn", "dqn-muon", "cql-discrete"}


def make(
    rule: str, *, state_dim: int = 4, agents: int = 1, seed: int = 0, **changes: Any
) -> Learner:
    """A small learner; a `-discrete`, `-tuned` or `-muon` suffix names a variant."""
    settings: dict[str, Any] = {
        "rule": rule.partition("-")[0],
        "learn_temperature": rule == "sac-tuned",
        "muon": 1.0 if rule.endswith("-muon") else None,
        "critic_layers": (16, 16),
        "actor_layers": (16, 16),
        "discount": 0.9,
    }
    return make_learner(
        LearnerConfig(**(settings | changes)),
        state_dim,
        1 if is_discrete(rule) else ACTION_DIM,
        N_ACTIONS if is_discrete(rule) else None,
        agents=agents,
        seed=seed,
    )


def random_batch(
    rule: str, *, agents: int = 1, rows: int = 8, state_dim: int = 4, seed: int = 0
) -> Batch:
    """Standard normal states and rewards, any actions, some terminations."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def actions() -> Tensor:
        if is_discrete(rule):
            return torch.randint(N_ACTIONS, (agents, rows), generator=generator)
        return torch.rand(agents, rows, ACTION_DIM, generator=generator) * 2 - 1

    return Batch(
        normal(agents, rows, state_dim),
        actions(),
        normal(agents, rows),
        normal(agents, rows, state_dim),
        (torch.rand(agents, rows, generator=generator) > 0.2).float(),
        actions(),
    )


def only(batch: Batch, agent: int) -> Batch:
    """The rows of one agent, as a batch of one agent."""
    fields = {n: f[agent : agent + 1] for n, f in batch._asdict().items() if f is not None}
    return Batch(**fields)


def share_noise(
    monkeypatch: pytest.MonkeyPatch, learner: Learner, agents: int, agent: int | None = None
) -> None:
    """Draw all noise for `agents` agents, from the count of calls; give one agent its slice."""
    calls = iter(range(10_000))

    def draws(kind: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def draw(_: int, *shape: int) -> Tensor:
            generator = torch.Generator().manual_seed(next(calls))
            drawn = kind((agents, *shape), generator=generator)
            return drawn if agent is None else drawn[agent : agent + 1]

        return draw

    monkeypatch.setattr(learner, "noise", draws(torch.randn))
    uniform = draws(torch.rand)
    monkeypatch.setattr(learner, "uniform", lambda *shape: uniform(*shape) * 2 - 1)
