"""Double DQN and its conservative variant against loops written from the equations."""

from __future__ import annotations

import math

import pytest
import torch
from learner_cases import N_ACTIONS, make, random_batch
from torch import Tensor

from algorithms.learners import Batch
from algorithms.learners.cql import DiscreteCQL
from algorithms.learners.dqn import DQN

AGENTS = 2


def moved(rule: str, **changes: float) -> DQN:
    """A learner whose target network differs from its network."""
    learner = make(rule, agents=AGENTS, **changes)
    assert isinstance(learner, DQN)
    for seed in range(3):
        learner.update(random_batch(rule, agents=AGENTS, seed=seed))
    with torch.no_grad():
        for parameter in learner.critic.parameters():
            parameter.mul_(1.5)
    return learner


def values(network: torch.nn.Module, state: Tensor, agent: int) -> list[float]:
    """Q(s, .) of one agent at one state."""
    states = torch.zeros(AGENTS, 1, 4)
    states[agent, 0] = state
    with torch.no_grad():
        row: list[float] = network(states)[agent, 0].tolist()
    return row


def expected_targets(learner: DQN, batch: Batch) -> list[list[float]]:
    """y = r + gamma c Q'(s', argmax Q(s', .)), one transition at a time."""
    targets = []
    for agent in range(AGENTS):
        row = []
        for b in range(batch.rewards.shape[1]):
            following = batch.next_states[agent, b]
            online = values(learner.critic, following, agent)
            best = max(range(N_ACTIONS), key=online.__getitem__)
            value = values(learner.target_critic, following, agent)[best]
            discount = learner.config.discount * float(batch.continues[agent, b])
            row.append(float(batch.rewards[agent, b]) + discount * value)
        targets.append(row)
    return targets


def test_targets_are_double_estimates() -> None:
    learner, batch = moved("dqn"), random_batch("dqn", agents=AGENTS, rows=20, seed=9)
    torch.testing.assert_close(
        learner.targets(batch), torch.tensor(expected_targets(learner, batch))
    )


def test_a_termination_ends_the_return() -> None:
    learner, batch = moved("dqn"), random_batch("dqn", agents=AGENTS)
    ended = batch._replace(continues=torch.zeros_like(batch.continues))
    assert torch.equal(learner.targets(ended), batch.rewards)


@pytest.mark.parametrize("rule", ["dqn", "cql-discrete"])
def test_losses(rule: str) -> None:
    weight = 0.7
    learner, batch = moved(rule, cql_weight=weight), random_batch(rule, agents=AGENTS, seed=9)
    targets = torch.tensor(expected_targets(learner, batch))
    losses, _ = learner.losses(batch, targets)
    for agent in range(AGENTS):
        total = 0.0
        for b in range(batch.rewards.shape[1]):
            row = values(learner.critic, batch.states[agent, b], agent)
            chosen = row[int(batch.actions[agent, b])]
            total += (chosen - float(targets[agent, b])) ** 2
            if rule == "cql-discrete":
                total += weight * (math.log(sum(math.exp(q) for q in row)) - chosen)
        assert losses[agent].item() == pytest.approx(total / batch.rewards.shape[1], rel=1e-5)


def test_targets_follow_by_polyak_averaging() -> None:
    learner = moved("dqn", polyak=0.1)
    old = [p.clone() for p in learner.target_critic.parameters()]
    learner.update(random_batch("dqn", agents=AGENTS))
    live, new = learner.critic.parameters(), learner.target_critic.parameters()
    for before, target, parameter in zip(old, new, live, strict=True):
        torch.testing.assert_close(target, 0.9 * before + 0.1 * parameter.detach())


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_the_conservative_term_is_finite_for_large_values(scale: float) -> None:
    learner, batch = moved("cql-discrete"), random_batch("dqn", agents=AGENTS)
    assert isinstance(learner, DiscreteCQL)
    with torch.no_grad():
        learner.critic.biases[-1].copy_(torch.tensor([scale, 0.0, -scale]))
    losses, metrics = learner.losses(batch, torch.zeros(AGENTS, 8))
    assert bool(losses.isfinite().all())
    assert bool((metrics["gap"] >= 0).all())


def test_the_conservative_term_pushes_values_outside_the_log_down() -> None:
    plain, conservative = make("dqn"), make("cql-discrete", cql_weight=5.0)
    batch = random_batch("dqn", rows=64)
    batch = batch._replace(actions=torch.zeros_like(batch.actions))
    for learner in (plain, conservative):
        for _ in range(200):
            learner.update(batch)
    assert bool((conservative.act(batch.states, True) == 0).all())
    assert not bool((plain.act(batch.states, True) == 0).all())
