"""Implicit Q-learning against loops written from the equations, and the expectile's limits."""

from __future__ import annotations

import math

import pytest
import torch
from learner_cases import ACTION_DIM, make, random_batch

from algorithms.learners.base import twin_values
from algorithms.learners.iql import IQL, expectile_loss

AGENTS = 2


def learner(**changes: float) -> IQL:
    made = make("iql", agents=AGENTS, **changes)
    assert isinstance(made, IQL)
    for seed in range(3):
        made.update(random_batch("iql", agents=AGENTS, seed=seed))
    return made


def minimiser(sample: torch.Tensor, expectile: float) -> float:
    """The v that minimises the mean expectile loss of `sample` - v, by bisection."""
    low, high = float(sample.min()), float(sample.max())
    for _ in range(60):
        v = torch.tensor((low + high) / 2, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(expectile_loss(sample - v, expectile).mean(), v)
        low, high = (v.item(), high) if float(slope) < 0 else (low, v.item())
    return (low + high) / 2


def test_expectile_of_one_half_is_half_the_squared_error() -> None:
    differences = torch.linspace(-3, 3, 13)
    assert torch.equal(expectile_loss(differences, 0.5), 0.5 * differences.square())


def test_expectiles_reach_from_the_mean_to_the_maximum() -> None:
    generator = torch.Generator().manual_seed(0)
    sample = torch.rand(200, generator=generator, dtype=torch.float64)
    assert minimiser(sample, 0.5) == pytest.approx(float(sample.mean()), abs=1e-9)
    expectiles = [minimiser(sample, tau) for tau in (0.5, 0.9, 0.99, 0.9999, 0.999999)]
    assert expectiles == sorted(expectiles)
    assert expectiles[-1] == pytest.approx(float(sample.max()), abs=1e-3)
    assert minimiser(sample, 1e-6) == pytest.approx(float(sample.min()), abs=1e-3)


def test_targets_read_the_value_and_no_action() -> None:
    made, batch = learner(), random_batch("iql", agents=AGENTS, seed=4)
    with torch.no_grad():
        value = made.value(batch.next_states).squeeze(2)
    expected = batch.rewards + 0.9 * batch.continues * value
    torch.testing.assert_close(made.targets(batch), expected)


def test_losses_of_one_update() -> None:
    tau = 0.7
    made, batch = learner(iql_expectile=tau), random_batch("iql", agents=AGENTS, seed=4)
    with torch.no_grad():
        best = twin_values(made.target_critic, batch.states, batch.actions).min(0).values
        advantages = best - made.value(batch.states).squeeze(2)
        targets = made.targets(batch)
        values = twin_values(made.critic, batch.states, batch.actions)
        actor_losses = made.actor_losses(batch.states, batch.actions, advantages)
    metrics = made.update(batch)
    torch.testing.assert_close(metrics["actor_loss"], actor_losses)
    for a in range(AGENTS):
        value_loss, critic_loss = 0.0, 0.0
        for b in range(8):
            u = float(advantages[a, b])
            value_loss += abs(tau - (1.0 if u < 0 else 0.0)) * u**2 / 8
            for j in range(2):
                critic_loss += (float(values[j, a, b]) - float(targets[a, b])) ** 2 / 8
        assert float(metrics["value_loss"][a]) == pytest.approx(value_loss, rel=1e-5)
        assert float(metrics["critic_loss"][a]) == pytest.approx(critic_loss, rel=1e-5)


def test_the_actors_loss_weighs_log_densities_by_clipped_advantages() -> None:
    made = learner(iql_inverse_temperature=2.0, iql_advantage_clip=5.0)
    batch = random_batch("iql", agents=AGENTS, seed=4)
    with torch.no_grad():
        made.log_std.copy_(torch.linspace(-1, 0.5, AGENTS * ACTION_DIM).view(AGENTS, 1, -1))
    advantages = torch.linspace(-1, 3, 16).view(AGENTS, 8)  # exp(2 * 3) is above the clip
    losses = made.actor_losses(batch.states, batch.actions, advantages)
    means = torch.tanh(made.actor(batch.states)).detach()
    for a in range(AGENTS):
        total = 0.0
        for b in range(8):
            log_density = 0.0
            for d in range(ACTION_DIM):
                log_std = made.log_std[a, 0, d].item()
                z = (float(batch.actions[a, b, d]) - float(means[a, b, d])) / math.exp(log_std)
                log_density += -0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi)
            total -= min(math.exp(2.0 * float(advantages[a, b])), 5.0) * log_density
        assert losses[a].item() == pytest.approx(total / 8, rel=1e-4)


def test_advantages_are_differentiable_by_the_value_only() -> None:
    made, batch = learner(), random_batch("iql", agents=AGENTS)
    total = made.advantages(batch.states, batch.actions).sum()
    torch.autograd.grad(total, list(made.value.parameters()), retain_graph=True)
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(total, list(made.critic.parameters()))
