"""TD3+BC and ReBRAC against loops written from the equations."""

from __future__ import annotations

import pytest
import torch
from learner_cases import ACTION_DIM, make, random_batch
from torch import Tensor

from algorithms.errors import AlgorithmError
from algorithms.learners.base import twin_values
from algorithms.learners.rebrac import ReBRAC
from algorithms.learners.td3 import TD3
from algorithms.learners.td3bc import TD3BC

AGENTS = 2
RULES = ["td3bc", "rebrac"]


def learner(rule: str, **changes: float) -> TD3:
    made = make(rule, agents=AGENTS, **changes)
    assert isinstance(made, TD3)
    for seed in range(4):
        made.update(random_batch(rule, agents=AGENTS, seed=seed))
    with torch.no_grad():
        for parameter in (*made.critic.parameters(), *made.actor.parameters()):
            parameter.mul_(1.5)
    return made


def squared_distance(first: Tensor, second: Tensor) -> float:
    return float((first - second).square().sum())


@pytest.mark.parametrize("rule", RULES)
def test_targets_smooth_and_penalise(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = learner(rule, policy_noise=0.4, noise_clip=0.3, rebrac_critic_weight=0.6)
    batch = random_batch(rule, agents=AGENTS, seed=9)
    assert batch.next_actions is not None
    noise = torch.randn(AGENTS, 8, ACTION_DIM, generator=torch.Generator().manual_seed(4))
    monkeypatch.setattr(made, "noise", lambda *shape: noise.clone())
    targets = made.targets(batch)
    with torch.no_grad():
        clean = torch.tanh(made.target_actor(batch.next_states))
        actions = (clean + (0.4 * noise).clamp(-0.3, 0.3)).clamp(-1, 1)
        values = twin_values(made.target_critic, batch.next_states, actions)
    weight = 0.6 if rule == "rebrac" else 0.0
    for a in range(AGENTS):
        for b in range(8):
            value = min(float(values[0, a, b]), float(values[1, a, b]))
            value -= weight * squared_distance(actions[a, b], batch.next_actions[a, b])
            expected = float(batch.rewards[a, b]) + 0.9 * float(batch.continues[a, b]) * value
            assert float(targets[a, b]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 2.5])
def test_actor_losses_of_td3bc(alpha: float) -> None:
    made, batch = learner("td3bc", td3bc_weight=alpha), random_batch("td3bc", agents=AGENTS)
    losses = made.actor_losses(batch.states, batch.actions)
    chosen = made.policy(batch.states).detach()
    values = twin_values(made.critic, batch.states, chosen)[0].detach()
    for a in range(AGENTS):
        scale = sum(abs(float(values[a, b])) for b in range(8)) / 8
        total = 0.0
        for b in range(8):
            cloning = squared_distance(chosen[a, b], batch.actions[a, b]) / ACTION_DIM
            total += cloning - alpha / scale * float(values[a, b])
        assert losses[a].item() == pytest.approx(total / 8, rel=1e-4)


def test_td3bc_without_weight_is_behaviour_cloning() -> None:
    made, batch = learner("td3bc", td3bc_weight=0.0), random_batch("td3bc", agents=AGENTS)
    assert isinstance(made, TD3BC)
    wanted = list(made.actor.parameters())
    ours = torch.autograd.grad(made.actor_losses(batch.states, batch.actions).sum(), wanted)
    cloning = (made.policy(batch.states) - batch.actions).square().mean((1, 2)).sum()
    for one, two in zip(ours, torch.autograd.grad(cloning, wanted), strict=True):
        torch.testing.assert_close(one, two)
    # a vanishing weight goes there continuously
    small = learner("td3bc", td3bc_weight=1e-6)
    losses = small.actor_losses(batch.states, batch.actions)
    distances = (small.policy(batch.states) - batch.actions).square().mean((1, 2))
    torch.testing.assert_close(losses, distances, rtol=0, atol=1e-5)


def test_actor_losses_of_rebrac() -> None:
    made, batch = learner("rebrac", rebrac_actor_weight=0.4), random_batch("rebrac", agents=AGENTS)
    assert isinstance(made, ReBRAC)
    losses = made.actor_losses(batch.states, batch.actions)
    chosen = made.policy(batch.states).detach()
    values = twin_values(made.critic, batch.states, chosen).min(0).values.detach()
    for a in range(AGENTS):
        scale = sum(abs(float(values[a, b])) for b in range(8)) / 8
        total = 0.0
        for b in range(8):
            total += 0.4 * squared_distance(chosen[a, b], batch.actions[a, b])
            total -= float(values[a, b]) / scale
        assert losses[a].item() == pytest.approx(total / 8, rel=1e-4)


def test_the_scale_of_the_values_carries_no_gradient() -> None:
    """Values ten times as large leave the actor's gradient as it is."""
    made, batch = learner("td3bc"), random_batch("td3bc", agents=AGENTS)
    wanted = list(made.actor.parameters())
    before = torch.autograd.grad(made.actor_losses(batch.states, batch.actions).sum(), wanted)
    with torch.no_grad():
        made.critic.weights[-1].mul_(10.0)
        made.critic.biases[-1].mul_(10.0)
    after = torch.autograd.grad(made.actor_losses(batch.states, batch.actions).sum(), wanted)
    for one, two in zip(before, after, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_actor_and_targets_wait_their_turn(rule: str) -> None:
    made = make(rule, agents=AGENTS, policy_delay=3)
    assert isinstance(made, TD3)
    for step in range(1, 7):
        actor = [p.clone() for p in made.actor.parameters()]
        targets = [p.clone() for p in made.target_critic.parameters()]
        made.update(random_batch(rule, agents=AGENTS, seed=step))
        still = all(torch.equal(p, q) for p, q in zip(actor, made.actor.parameters(), strict=True))
        kept = all(
            torch.equal(p, q) for p, q in zip(targets, made.target_critic.parameters(), strict=True)
        )
        assert (still, kept) == ((True, True) if step % 3 else (False, False))


def test_only_rebrac_normalises_its_critics() -> None:
    assert [learner(rule).critic.layer_norm for rule in RULES] == [False, True]


def test_rebrac_needs_next_actions() -> None:
    batch = random_batch("rebrac", agents=AGENTS)._replace(next_actions=None)
    with pytest.raises(AlgorithmError, match="the batch has no next_actions"):
        make("rebrac", agents=AGENTS).update(batch)
