"""The ELBO and its gradients against the equation written as loops, and against torch's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from algorithms.config import ElboConfig
from algorithms.elbo import cell_counts, elbo, kl_chain
from algorithms.elbo_batch import ElboBatch
from algorithms.pair_loss import blocks
from models.config import EncoderConfig, RewardDecoderConfig, StateDecoderConfig, VaeModelConfig
from models.inputs import Transitions
from models.vae import Vae

sys.path.insert(0, str(Path(__file__).parent))
from reference_elbo import reference_elbo

B, T, OBS, CELLS, L = 3, 4, 2, 5, 3


def make_vae(likelihood: str, state: bool, discrete: bool, sees_observation: bool = False) -> Vae:
    """A small model in float64."""
    inputs = ("action", "observation", "next_observation") if state else ("next_observation",)
    config = VaeModelConfig(
        encoder=EncoderConfig(
            latent_dim=L,
            gru_size=6,
            action_embedding=4,
            observation_embedding=5,
            reward_embedding=3,
            sees_observation=sees_observation,
        ),
        reward_decoder=RewardDecoderConfig(
            layers=(6, 5), likelihood=likelihood, inputs=inputs, enabled=likelihood != "none"
        )
        if likelihood != "none"
        else RewardDecoderConfig(enabled=False),
        state_decoder=StateDecoderConfig(enabled=state, layers=(7,)),
    )
    return Vae(
        config,
        OBS,
        1 if discrete else 2,
        4 if discrete else None,
        CELLS,
        torch.Generator().manual_seed(3),
    ).double()


def make_batch(discrete: bool, likelihood: str) -> ElboBatch:
    """Random steps."""
    draw = torch.Generator().manual_seed(1)
    observations = torch.randn(B, T + 1, OBS, generator=draw, dtype=torch.float64)
    actions = (
        torch.randint(0, 4, (B, T, 1), generator=draw)
        if discrete
        else torch.rand(B, T, 2, generator=draw, dtype=torch.float64) * 2 - 1
    )
    high = torch.randint(0, 2, (B, T), generator=draw).double()
    rewards = high * 1.1 - 0.1
    cells = torch.randint(0, CELLS, (B, T), generator=draw)
    return ElboBatch(
        Transitions(observations[:, :-1], actions, rewards, observations[:, 1:]),
        rewards if likelihood == "squared-error" else high,
        cells if likelihood == "bernoulli-per-cell" else None,
    )


CASES = [
    ("bernoulli-per-cell", False, True, False),
    ("bernoulli", False, False, False),
    ("bernoulli", True, False, False),
    ("squared-error", False, False, True),
    ("squared-error", True, True, False),
    ("none", True, False, True),
]


@pytest.mark.parametrize(("likelihood", "state", "discrete", "sees_observation"), CASES)
@pytest.mark.parametrize("block_pairs", [1, 2 * T, 10_000])
def test_elbo_and_gradients_match_the_plain_loop(
    likelihood: str, state: bool, discrete: bool, sees_observation: bool, block_pairs: int
) -> None:
    vae = make_vae(likelihood, state, discrete, sees_observation)
    batch = make_batch(discrete, likelihood)
    noise = torch.randn(
        B, T + 1, L, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    config = ElboConfig(
        kl_weight=0.3, reward_weight=0.7, state_weight=1.9, block_pairs=block_pairs
    )

    expected = reference_elbo(vae, batch, noise, config)
    wanted = torch.autograd.grad(expected[0], list(vae.parameters()), allow_unused=True)
    terms = elbo(vae, batch, noise, config)
    terms.loss.backward()

    for term, value in zip(terms, expected, strict=True):
        torch.testing.assert_close(term, value, rtol=1e-9, atol=1e-9)
    for (name, parameter), gradient in zip(vae.named_parameters(), wanted, strict=True):
        if gradient is None:
            assert parameter.grad is None, name
        else:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-9)
