"""The contract that every update rule must pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from learner_cases import (
    ACTION_DIM,
    N_ACTIONS,
    RULES,
    is_discrete,
    make,
    only,
    random_batch,
    share_noise,
)
from torch import Tensor
from torch.nn.functional import one_hot

from algorithms.config import LearnerConfig
from algorithms.errors import AlgorithmError
from algorithms.learners import Batch, Learner, make_learner
from algorithms.learners.base import OtherOutcomes
from datasets.checkpoints import load_tensors, save_tensors

# What a rule needs to leave the (uniformly random) log behind on the identity environment.
IDENTITY_SETTINGS: dict[str, dict[str, Any]] = {
    "iql": {"iql_inverse_temperature": 30.0},
    "td3bc": {"td3bc_weight": 20.0},
    "cql": {"cql_weight": 0.05},
    "cql-discrete": {"cql_weight": 0.1},
}


def identity_batch(rule: str, generator: torch.Generator, agents: int, rows: int) -> Batch:
    """A random log of the environment whose best action is the state, at reward 1."""
    shape = (agents, rows)
    if is_discrete(rule):
        best = torch.randint(N_ACTIONS, shape, generator=generator)
        following = torch.randint(N_ACTIONS, shape, generator=generator)
        actions = torch.randint(N_ACTIONS, shape, generator=generator)
        states = one_hot(best, N_ACTIONS).float()
        return Batch(
            states,
            actions,
            (actions == best).float(),
            one_hot(following, N_ACTIONS).float(),
            torch.ones(shape),
        )
    wide = (*shape, ACTION_DIM)
    states, following = (torch.rand(wide, generator=generator) * 1.6 - 0.8 for _ in range(2))
    actions, next_actions = (torch.rand(wide, generator=generator) * 2 - 1 for _ in range(2))
    rewards = 1 - (actions - states).abs().mean(2)
    return Batch(states, actions, rewards, following, torch.ones(shape), next_actions)


@pytest.mark.parametrize("rule", RULES)
def test_learns_the_identity_environment(rule: str) -> None:
    width = N_ACTIONS if is_discrete(rule) else ACTION_DIM
    settings: dict[str, Any] = {
        "critic_layers": (32, 32),
        "actor_layers": (32, 32),
        "learning_rate": 3e-3,
        "actor_learning_rate": 3e-3,
        "discount": 0.5,
        "polyak": 0.02,
    }
    learner = make(rule, state_dim=width, agents=2, **(settings | IDENTITY_SETTINGS.get(rule, {})))
    generator = torch.Generator().manual_seed(5)
    for _ in range(400):
        learner.update(identity_batch(rule, generator, 2, 128))
    states = identity_batch(rule, generator, 2, 500).states
    actions = learner.act(states, deterministic=True)
    if is_discrete(rule):
        rewards = (actions == states.argmax(2)).float()
    else:
        rewards = 1 - (actions - states).abs().mean(2)
    assert rewards.mean(1).tolist() == pytest.approx([1.0, 1.0], abs=0.1)


def run(learner: Learner, rule: str, steps: range, agents: int = 2) -> list[dict[str, Tensor]]:
    return [learner.update(random_batch(rule, agents=agents, seed=100 + i)) for i in steps]


def assert_same_bits(first: Learner, second: Learner) -> None:
    one, two = first.to_checkpoint(), second.to_checkpoint()
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


@pytest.mark.parametrize("rule", RULES)
def test_a_restored_learner_goes_on_bit_equal(rule: str, tmp_path: Path) -> None:
    whole = make(rule, agents=2)
    whole.set_normalisation(torch.ones(4), torch.full((4,), 2.0))
    expected = run(whole, rule, range(7))

    half = make(rule, agents=2)
    half.set_normalisation(torch.ones(4), torch.full((4,), 2.0))
    run(half, rule, range(3))
    arrays = {name: value.numpy() for name, value in half.to_checkpoint().items()}
    save_tensors(tmp_path / "learner.safetensors", arrays, {})
    loaded, _ = load_tensors(tmp_path / "learner.safetensors")
    restored = make(rule, agents=2, seed=99)
    restored.from_checkpoint({n: torch.from_numpy(v) for n, v in loaded.items()})
    metrics = run(restored, rule, range(3, 7))

    assert_same_bits(whole, restored)
    for ours, theirs in zip(metrics, expected[3:], strict=True):
        for name, value in theirs.items():
            assert torch.equal(ours[name], value), name
    states = random_batch(rule, agents=2).states
    assert torch.equal(whole.act(states, False), restored.act(states, False))


@pytest.mark.parametrize("rule", RULES)
def test_the_same_seed_gives_the_same_bytes(rule: str) -> None:
    learners = [make(rule, agents=2, seed=seed) for seed in (3, 3, 4)]
    for learner in learners:
        run(learner, rule, range(4))
    assert_same_bits(learners[0], learners[1])
    ours, others = learners[0].weights(), learners[2].weights()
    assert not torch.equal(ours["critic.weights.0"], others["critic.weights.0"])


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("rule", RULES)
def test_agents_are_independent(rule: str, clip: float, monkeypatch: pytest.MonkeyPatch) -> None:
    agents = 3
    together = make(rule, agents=agents, gradient_clip=clip)
    mean, std = torch.arange(12.0).view(agents, 4) / 9, torch.arange(1.0, 13.0).view(agents, 4) / 5
    together.set_normalisation(mean, std)
    alone = []
    for agent in range(agents):
        learner = make(rule, gradient_clip=clip, seed=50 + agent)
        start = {name: value[agent::agents] for name, value in together.weights().items()}
        learner.load_weights(start)
        share_noise(monkeypatch, learner, agents, agent)
        alone.append(learner)
    share_noise(monkeypatch, together, agents)
    for step in range(6):
        batch = random_batch(rule, agents=agents, seed=step)
        joint = together.update(batch)
        for agent, learner in enumerate(alone):
            single = learner.update(only(batch, agent))
            for name, value in single.items():
                torch.testing.assert_close(joint[name][agent], value[0], rtol=1e-5, atol=1e-6)
    for agent, learner in enumerate(alone):
        for name, value in learner.weights().items():
            torch.testing.assert_close(
                together.weights()[name][agent::agents], value, rtol=1e-5, atol=2e-6
            )


@pytest.mark.parametrize("field", ["states", "rewards", "next_states"])
@pytest.mark.parametrize("rule", RULES)
def test_a_nan_in_the_batch_surfaces_in_its_agents_loss(rule: str, field: str) -> None:
    learner = make(rule, agents=2)
    batch = random_batch(rule, agents=2)
    getattr(batch, field)[1, 3] = torch.nan
    batch.continues.fill_(1.0)
    metrics = learner.update(batch)
    losses = torch.stack([value for name, value in metrics.items() if name.endswith("loss")])
    assert bool(losses[:, 0].isfinite().all())
    assert bool(losses[:, 1].isnan().any())


@pytest.mark.parametrize("rule", RULES)
def test_metrics_are_detached_numbers_of_every_agent(rule: str) -> None:
    learner = make(rule, agents=3)
    first, second = run(learner, rule, range(2), agents=3)
    assert first.keys() == second.keys()
    assert any(name.endswith("loss") for name in first)
    for value in (*first.values(), *second.values()):
        assert value.shape == (3,)
        assert not value.requires_grad
        assert bool(value.isfinite().all())
    assert learner.updates == 2
    kept = {name: value.clone() for name, value in first.items()}
    run(learner, rule, range(2, 6), agents=3)
    assert all(torch.equal(kept[name], value) for name, value in first.items())


@pytest.mark.parametrize("rule", RULES)
def test_actions_have_the_right_kind_and_range(rule: str) -> None:
    learner = make(rule, agents=2)
    states = 10 * random_batch(rule, agents=2, rows=50).states
    for deterministic in (True, False):
        actions = learner.act(states, deterministic)
        assert not actions.requires_grad
        if is_discrete(rule):
            assert actions.dtype == torch.int64
            assert actions.shape == (2, 50)
            assert set(actions.unique().tolist()) <= set(range(N_ACTIONS))
        else:
            assert actions.dtype == torch.float32
            assert actions.shape == (2, 50, ACTION_DIM)
            assert float(actions.abs().max()) <= 1.0
    assert torch.equal(learner.act(states, True), learner.act(states, True))
    if not is_discrete(rule):
        assert not torch.equal(learner.act(states, False), learner.act(states, False))


@pytest.mark.parametrize("rule", RULES)
def test_weights_alone_reproduce_the_policy(rule: str) -> None:
    learner = make(rule)
    learner.set_normalisation(torch.full((4,), 0.3), torch.full((4,), 0.5))
    run(learner, rule, range(4), agents=1)
    weights = {name: value.clone() for name, value in learner.weights().items()}
    assert not any(name.startswith(("target", "optimiser")) for name in weights)
    other = make(rule, seed=8)
    other.load_weights(weights)
    states = random_batch(rule).states
    assert torch.equal(learner.act(states, True), other.act(states, True))


@pytest.mark.parametrize("rule", RULES)
def test_normalisation_is_that_of_the_states(rule: str) -> None:
    mean, std = torch.tensor([1.0, -2.0, 0.0, 3.0]), torch.tensor([2.0, 0.5, 1.0, 0.0])
    plain, normalising = make(rule), make(rule)
    normalising.set_normalisation(mean, std)
    batch = random_batch(rule)
    scale = torch.tensor([2.0, 0.5, 1.0, 1.0])  # a constant input counts as deviation 1
    scaled = batch._replace(
        states=(batch.states - mean) / scale, next_states=(batch.next_states - mean) / scale
    )
    ours, theirs = normalising.update(batch), plain.update(scaled)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value)
    torch.testing.assert_close(normalising.act(batch.states, True), plain.act(scaled.states, True))


def test_normalisation_refuses_what_does_not_fit() -> None:
    learner = make("dqn")
    with pytest.raises(AlgorithmError, match=r"mean has shape \(3,\), expected \(4,\)"):
        learner.set_normalisation(torch.zeros(3), torch.ones(4))
    with pytest.raises(AlgorithmError, match="std holds a NaN"):
        learner.set_normalisation(torch.zeros(4), torch.full((4,), torch.nan))


def test_states_that_do_not_fit_are_refused() -> None:
    learner = make("dqn")
    state = learner.to_checkpoint()
    with pytest.raises(AlgorithmError, match="generator's state or the update count is missing"):
        learner.from_checkpoint({n: v for n, v in state.items() if n != "generator"})
    with pytest.raises(AlgorithmError, match=r"'network.critic.biases.0' is missing"):
        learner.from_checkpoint({n: v for n, v in state.items() if "biases.0" not in n})
    with pytest.raises(AlgorithmError, match=r"shape \(1, 4, 16\), expected \(1, 5, 16\)"):
        make("dqn", state_dim=5).load_weights(
            learner.weights()
            | {"input_shift": torch.zeros(1, 1, 5), "input_scale": torch.ones(1, 1, 5)}
        )


@pytest.mark.parametrize(
    ("rule", "discrete", "message"),
    [
        ("sac", True, r"'sac', but actions are discrete: use one of \['cql', 'dqn'\]"),
        ("dqn", False, r"'dqn', but actions are continuous: use one of \['cql', 'iql'"),
    ],
)
def test_rules_and_actions_must_fit(rule: str, discrete: bool, message: str) -> None:
    config = LearnerConfig(rule=rule)  # type: ignore[arg-type]
    with pytest.raises(AlgorithmError, match=message):
        make_learner(config, 3, 1, 4 if discrete else None, seed=0)


@pytest.mark.parametrize("rule", RULES)
def test_targets_average_over_other_outcomes(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """(1 - p) y + p y' where a batch knows of another outcome, y elsewhere."""
    learner = make(rule, agents=2, discount=0.7)
    batch = random_batch(rule, agents=2)
    # Any function of the next state stands for its value: rules that draw actions would differ.
    monkeypatch.setattr(learner, "next_values", lambda b: b.next_states.sum(2))
    draw = torch.Generator().manual_seed(3)
    places = torch.tensor([1, 4, 5])
    chances = torch.rand((2, 3), generator=draw)
    rewards = torch.randn((2, 3), generator=draw)
    following = torch.randn((2, 3, batch.states.shape[2]), generator=draw)
    others = OtherOutcomes(places, chances, rewards, following)
    plain = learner.targets(batch)
    found = learner.targets(batch._replace(others=others))
    for agent in range(2):
        for row in range(batch.rewards.shape[1]):
            logged = batch.rewards[agent, row] + 0.7 * batch.continues[agent, row] * (
                batch.next_states[agent, row].sum()
            )
            torch.testing.assert_close(plain[agent, row], logged)
            expected = logged
            if row in places:
                i = places.tolist().index(row)
                other = rewards[agent, i] + 0.7 * batch.continues[agent, row] * (
                    following[agent, i].sum()
                )
                expected = (1 - chances[agent, i]) * logged + chances[agent, i] * other
            torch.testing.assert_close(found[agent, row], expected)


@pytest.mark.parametrize("rule", RULES)
def test_an_update_reads_other_outcomes(rule: str) -> None:
    learners = [make(rule, agents=1) for _ in range(2)]
    batch = random_batch(rule, agents=1)
    others = OtherOutcomes(
        torch.arange(2), torch.full((1, 2), 0.5), torch.full((1, 2), 9.0), batch.states[:, :2]
    )
    losses = [
        learner.update(b)
        for learner, b in zip(learners, (batch, batch._replace(others=others)), strict=True)
    ]
    name = "loss" if "loss" in losses[0] else "critic_loss"
    assert losses[0][name] != losses[1][name]
