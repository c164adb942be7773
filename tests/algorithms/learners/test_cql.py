"""The conservative term over continuous actions against integrals on a grid."""

from __future__ import annotations

import math

import pytest
import torch
from learner_cases import make, random_batch
from torch import Tensor
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from algorithms.learners.base import twin_values
from algorithms.learners.cql import CQL, importance_log_sum_exp
from algorithms.learners.policies import Gaussian, sample

AGENTS = 2


def learner(**changes: float) -> CQL:
    made = make("cql", agents=AGENTS, **changes)
    assert isinstance(made, CQL)
    for seed in range(3):
        made.update(random_batch("cql", agents=AGENTS, seed=seed))
    with torch.no_grad():  # values far enough from constant to be worth integrating
        for parameter in made.critic.parameters():
            parameter.mul_(2.0)
    return made


def grid(cells: int) -> Tensor:
    """Midpoints of [-1, 1]^2: (cells^2, 2)."""
    centres = (torch.arange(cells) + 0.5) * (2.0 / cells) - 1.0
    return torch.cartesian_prod(centres, centres)


def log_integral(made: CQL, state: Tensor, cells: int) -> Tensor:
    """log of the integral of exp Q(s, .), by midpoints, of both critics: (2, A)."""
    points = grid(cells).expand(AGENTS, -1, -1)
    states = state.unsqueeze(1).expand(-1, points.shape[1], -1)
    values = twin_values(made.critic, states, points).double()
    return torch.logsumexp(values, 2) + math.log((2.0 / cells) ** 2)


def test_the_estimator_is_exact_on_a_grid_of_uniform_proposals() -> None:
    made, state = learner(), random_batch("cql", agents=AGENTS, seed=5).states[:, 0]
    points = grid(60).expand(AGENTS, -1, -1)
    values = twin_values(made.critic, state.unsqueeze(1).expand(-1, 3600, -1), points)
    estimate = importance_log_sum_exp(values, torch.tensor(-2 * math.log(2.0)), 2)
    expected = log_integral(made, state, 400)
    torch.testing.assert_close(estimate.double(), expected, rtol=0, atol=1e-4)


def test_the_estimator_is_exact_for_stratified_draws_of_a_policy() -> None:
    """Equally likely quantiles of the policy are a grid in its own measure."""
    made, state = learner(), random_batch("cql", agents=AGENTS, seed=5).states[:, 0]
    levels = (torch.arange(500) + 0.5) / 500
    quantiles = Normal(0.0, 1.0).icdf(levels)
    noise = torch.cartesian_prod(quantiles, quantiles)
    policy = Gaussian(torch.tensor([0.2, -0.1]), torch.tensor([0.1, 0.2]))
    actions, log_proposals = sample(policy, noise)
    pairs = state.unsqueeze(1).expand(-1, len(actions), -1)
    values = twin_values(made.critic, pairs, actions.expand(AGENTS, -1, -1))
    estimate = importance_log_sum_exp(values.double(), log_proposals.double(), 2)
    torch.testing.assert_close(estimate, log_integral(made, state, 400), rtol=0, atol=2e-2)


def test_the_three_proposals_together_estimate_the_integral() -> None:
    made = learner()
    made.config = made.config.model_copy(update={"cql_actions": 40_000})
    states = random_batch("cql", agents=AGENTS, seed=5).states[:, :1]
    following = random_batch("cql", agents=AGENTS, seed=6).states[:, :1]
    actions, log_proposals = made.proposals(states, following)
    with torch.no_grad():
        values = twin_values(
            made.critic, states.expand(-1, 120_000, -1), actions.view(AGENTS, 120_000, 2)
        )
    estimate = importance_log_sum_exp(values, log_proposals.squeeze(2), 2)
    expected = log_integral(made, states[:, 0], 400)
    torch.testing.assert_close(estimate.double(), expected, rtol=0, atol=0.02)


def test_proposals_know_the_density_they_come_from() -> None:
    made = learner(cql_actions=5)
    batch = random_batch("cql", agents=AGENTS)
    actions, log_proposals = made.proposals(batch.states, batch.next_states)
    assert actions.shape == (AGENTS, 15, 8, 2)
    assert float(actions.abs().max()) <= 1.0
    torch.testing.assert_close(log_proposals[:, :5], torch.full((AGENTS, 5, 8), -2 * math.log(2)))
    for part, states in ((slice(5, 10), batch.states), (slice(10, 15), batch.next_states)):
        mean, log_std = made.policy(states)
        normal = Independent(Normal(mean.unsqueeze(1), log_std.exp().unsqueeze(1)), 1)
        expected = TransformedDistribution(normal, [TanhTransform()]).log_prob(actions[:, part])
        torch.testing.assert_close(log_proposals[:, part], expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_losses_add_the_conservative_term(weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    made = learner(cql_weight=weight, cql_actions=3)
    batch = random_batch("cql", agents=AGENTS, seed=8)
    proposed = made.proposals(batch.states, batch.next_states)
    monkeypatch.setattr(made, "proposals", lambda *_: proposed)
    targets = torch.randn(AGENTS, 8, generator=torch.Generator().manual_seed(0))
    losses, metrics = made.critic_losses(batch.states, batch, targets)
    actions, log_proposals = proposed
    with torch.no_grad():
        chosen = twin_values(made.critic, batch.states, batch.actions)
        proposals = [
            twin_values(made.critic, batch.states, actions[:, i]) - log_proposals[:, i]
            for i in range(9)
        ]
    for a in range(AGENTS):
        total, gap = 0.0, 0.0
        for j in range(2):
            for b in range(8):
                weighted = sum(math.exp(float(at[j, a, b])) for at in proposals)
                term = math.log(weighted / 9) - float(chosen[j, a, b])
                total += (float(chosen[j, a, b]) - float(targets[a, b])) ** 2 + weight * term
                gap += term / 2
        assert losses[a].item() == pytest.approx(total / 8, rel=1e-4)
        assert float(metrics["gap"][a]) == pytest.approx(gap / 8, rel=1e-4)


@pytest.mark.parametrize("value", [-1e4, 0.0, 1e4])
def test_the_term_is_finite_for_large_values(value: float) -> None:
    made, batch = learner(), random_batch("cql", agents=AGENTS)
    with torch.no_grad():
        made.critic.biases[-1].fill_(value)
    losses, metrics = made.critic_losses(batch.states, batch, torch.zeros(AGENTS, 8))
    assert bool(losses.isfinite().all())
    assert bool(metrics["gap"].isfinite().all())
    gradients = torch.autograd.grad(losses.sum(), list(made.critic.parameters()))
    assert all(bool(g.isfinite().all()) for g in gradients)


def test_the_estimator_is_finite_for_values_of_any_size() -> None:
    values = torch.linspace(-1e4, 1e4, 30).repeat(3, 1)
    assert bool(importance_log_sum_exp(values, torch.zeros(30), 1).isfinite().all())
    constant = torch.full((1, 6), -1e4)
    estimate = importance_log_sum_exp(constant, torch.full((6,), -math.log(2.0)), 1)
    assert estimate.tolist() == pytest.approx([-1e4 + math.log(2.0)])
