"""Filters step and encode as the encoder does."""

from __future__ import annotations

import pytest
import torch

from models.belief import BeliefEncoder
from models.config import EncoderConfig
from models.filters import FoldedFilter, PlainFilter, make_filter
from models.inputs import Transitions


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"embedding_layers": 2},
        {"embedding_layers": 3, "sees_observation": True, "action_embedding": 0},
        {"gru_size": 5, "latent_dim": 3, "observation_embedding": 7, "reward_embedding": 3},
    ],
)
@pytest.mark.parametrize("trials", [1, 4, 21])
def test_steps_are_the_encoders(settings: dict[str, int], discrete: bool, trials: int) -> None:
    draw = torch.Generator().manual_seed(1)
    config = EncoderConfig(**settings)
    encoder = BeliefEncoder(config, 3, 1 if discrete else 2, 4 if discrete else None, draw)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))  # biases too
    folded = FoldedFilter(encoder)
    _, hidden = encoder.initial(trials)
    own = hidden.clone()
    for _ in range(6):
        actions = torch.randn(trials, 2, generator=draw)
        if discrete:
            actions = torch.randint(0, 4, (trials, 1), generator=draw)
        step = Transitions(
            torch.randn(trials, 3, generator=draw),
            actions,
            torch.randn(trials, generator=draw),
            torch.randn(trials, 3, generator=draw),
        )
        with torch.no_grad():
            wanted, hidden = encoder.step(
                hidden, step.actions, step.rewards, step.next_observations, step.observations
            )
        found = folded.step(own, step)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-6)
        torch.testing.assert_close(own, hidden, rtol=1e-5, atol=2e-6)


def test_later_weights_of_the_encoder_do_not_matter() -> None:
    encoder = BeliefEncoder(EncoderConfig(), 3, 2, None, torch.Generator().manual_seed(0))
    folded = FoldedFilter(encoder)
    step = Transitions(torch.ones(2, 3), torch.ones(2, 2), torch.ones(2), torch.ones(2, 3))
    before = folded.step(torch.zeros(2, encoder.gru.hidden_size), step)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
    assert torch.equal(folded.step(torch.zeros(2, encoder.gru.hidden_size), step), before)


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("trials", [1, 6, 11])
def test_whole_trials_are_the_encoders(discrete: bool, trials: int) -> None:
    draw = torch.Generator().manual_seed(1)
    config = EncoderConfig(embedding_layers=2, sees_observation=True)
    encoder = BeliefEncoder(config, 3, 1 if discrete else 2, 4 if discrete else None, draw)
    actions = torch.randn(trials, 9, 2, generator=draw)
    if discrete:
        actions = torch.randint(0, 4, (trials, 9, 1), generator=draw)
    steps = Transitions(
        torch.randn(trials, 9, 3, generator=draw),
        actions,
        torch.randn(trials, 9, generator=draw),
        torch.randn(trials, 9, 3, generator=draw),
    )
    wanted, wanted_hidden = PlainFilter(encoder).encode(steps, keep=True)
    beliefs, hidden = FoldedFilter(encoder).encode(steps, keep=True)
    assert beliefs.shape == (trials, 10, 2 * config.latent_dim)
    torch.testing.assert_close(beliefs, wanted, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(hidden, wanted_hidden, rtol=1e-5, atol=2e-6)
    for belief_filter in (PlainFilter(encoder), FoldedFilter(encoder)):
        again, nothing = belief_filter.encode(steps)
        assert nothing is None
        torch.testing.assert_close(again, beliefs, rtol=1e-5, atol=2e-6)


def test_compiled_on_a_cpu_in_single_precision() -> None:
    encoder = BeliefEncoder(EncoderConfig(), 3, 2, None, torch.Generator().manual_seed(0))
    assert isinstance(make_filter(encoder), FoldedFilter)
    assert isinstance(make_filter(encoder.double()), PlainFilter)
