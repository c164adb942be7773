"""Soft actor-critic against `torch.distributions` and loops written from the equations."""

from __future__ import annotations

import math

import pytest
import torch
from learner_cases import ACTION_DIM, make, random_batch, share_noise
from torch import Tensor
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from algorithms.learners.base import twin_values
from algorithms.learners.policies import Gaussian, sample
from algorithms.learners.sac import SAC

AGENTS = 2


def distribution(policy: Gaussian) -> TransformedDistribution:
    """The tanh-Gaussian as torch builds it."""
    normal = Independent(Normal(policy.mean, policy.log_std.exp()), 1)
    return TransformedDistribution(normal, [TanhTransform(cache_size=1)])


def moved(rule: str = "sac", **changes: float) -> SAC:
    """A learner whose targets differ from its critics."""
    learner = make(rule, agents=AGENTS, temperature=0.3, **changes)
    assert isinstance(learner, SAC)
    for seed in range(3):
        learner.update(random_batch(rule, agents=AGENTS, seed=seed))
    with torch.no_grad():
        for parameter in learner.critic.parameters():
            parameter.mul_(1.5)
    return learner


def fixed_noise(learner: SAC, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Make every draw of the learner the same, and give it: (A, 8, action_dim)."""
    noise = torch.randn(AGENTS, 8, ACTION_DIM, generator=torch.Generator().manual_seed(4))
    monkeypatch.setattr(learner, "noise", lambda *shape: noise)
    return noise


def test_log_densities_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    policy = Gaussian(
        torch.randn(50, 3, generator=generator, dtype=torch.float64),
        torch.randn(50, 3, generator=generator, dtype=torch.float64) - 1,
    )
    noise = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    actions, densities = sample(policy, noise)
    expected = distribution(policy).log_prob(actions)
    torch.testing.assert_close(densities, expected, rtol=1e-6, atol=1e-6)


def test_the_written_out_gradient_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_std, noise = torch.randn(3, 9, 4, generator=generator, dtype=torch.float64)
    mean.requires_grad_()
    log_std.requires_grad_()
    assert torch.autograd.gradcheck(lambda m, s: sample(Gaussian(m, s), noise), (mean, log_std))


def test_the_density_integrates_to_one() -> None:
    policy = Gaussian(torch.tensor([0.4]).double(), torch.tensor([-0.3]).double())
    edges = torch.linspace(-1, 1, 20001, dtype=torch.float64)
    centres = (edges[1:] + edges[:-1]) / 2
    noise = (torch.atanh(centres).unsqueeze(1) - policy.mean) / policy.log_std.exp()
    mass = sample(policy, noise)[1].exp().sum() * (2 / 20000)
    assert float(mass) == pytest.approx(1.0, abs=1e-4)


def test_log_densities_stay_finite_and_exact_where_the_tanh_saturates() -> None:
    policy = Gaussian(torch.tensor([[30.0], [-30.0]]), torch.tensor([[0.0], [0.0]]))
    actions, densities = sample(policy, torch.zeros(2, 1))
    assert actions.flatten().tolist() == [1.0, -1.0]
    # 1 - tanh(u)^2 = 4 exp(-2 |u|) to the last digit there
    exact = -0.5 * math.log(2 * math.pi) - (math.log(4) - 60.0)
    assert densities.tolist() == pytest.approx([exact, exact], rel=1e-6)


def test_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, batch = moved(), random_batch("sac", agents=AGENTS, seed=7)
    noise = fixed_noise(learner, monkeypatch)
    targets = learner.targets(batch)
    with torch.no_grad():
        policy = learner.policy(batch.next_states)
        actions = torch.tanh(policy.mean + policy.log_std.exp() * noise)
        entropies = distribution(policy).log_prob(actions)
        values = twin_values(learner.target_critic, batch.next_states, actions)
    for a in range(AGENTS):
        for b in range(8):
            soft = min(float(values[0, a, b]), float(values[1, a, b]))
            soft -= 0.3 * float(entropies[a, b])
            expected = float(batch.rewards[a, b]) + 0.9 * float(batch.continues[a, b]) * soft
            assert float(targets[a, b]) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_critic_losses() -> None:
    learner, batch = moved(), random_batch("sac", agents=AGENTS, seed=7)
    targets = torch.randn(AGENTS, 8, generator=torch.Generator().manual_seed(1))
    losses, _ = learner.critic_losses(batch.states, batch, targets)
    values = twin_values(learner.critic, batch.states, batch.actions).detach()
    for a in range(AGENTS):
        errors = [
            (float(values[j, a, b]) - float(targets[a, b])) ** 2 for j in range(2) for b in range(8)
        ]
        assert losses[a].item() == pytest.approx(sum(errors) / 8, rel=1e-5)


def test_actor_losses_and_their_gradient() -> None:
    learner, batch = moved(), random_batch("sac", agents=AGENTS, seed=7)
    noise = torch.randn(AGENTS, 8, ACTION_DIM, generator=torch.Generator().manual_seed(4))
    losses, _ = learner.actor_losses(batch.states, noise)
    policy = learner.policy(batch.states)
    actions = torch.tanh(policy.mean + policy.log_std.exp() * noise)
    densities = distribution(policy).log_prob(actions)
    values = twin_values(learner.critic, batch.states, actions).min(0).values
    expected = (0.3 * densities - values).mean(1)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-4)
    wanted = list(learner.actor.parameters())
    ours = torch.autograd.grad(losses.sum(), wanted)
    theirs = torch.autograd.grad(expected.sum(), wanted)
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


def test_the_critics_keep_their_weights_in_the_actors_step() -> None:
    learner, batch = moved(), random_batch("sac", agents=AGENTS)
    before = [p.clone() for p in learner.critic.parameters()]
    learner._update_actor(batch.states)
    assert all(torch.equal(p, q) for p, q in zip(before, learner.critic.parameters(), strict=True))


@pytest.mark.parametrize(("target", "sign"), [(-20.0, -1), (20.0, 1)])
def test_the_temperature_moves_towards_the_target_entropy(target: float, sign: int) -> None:
    learner = moved("sac-tuned", target_entropy=target)
    before = learner.log_temperature.detach().clone()
    metrics = learner.update(random_batch("sac", agents=AGENTS))
    change = learner.log_temperature.detach() - before
    assert torch.equal(change.sign(), torch.full((AGENTS,), float(sign)))
    expected = before * (metrics["entropy"] - target)
    torch.testing.assert_close(metrics["temperature_loss"], expected)


def test_the_default_target_entropy_is_minus_the_action_dimension() -> None:
    assert moved("sac-tuned").target_entropy == -ACTION_DIM


def test_a_fixed_temperature_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = moved()
    share_noise(monkeypatch, learner, AGENTS)
    learner.update(random_batch("sac", agents=AGENTS))
    torch.testing.assert_close(learner.temperature(), torch.full((AGENTS, 1), 0.3))
