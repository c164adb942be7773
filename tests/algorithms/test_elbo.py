"""The ELBO and its gradients against the equation written as loops, and against torch's own."""

from __future__ import annotations

import pytest
import torch
from reference_elbo import reference_elbo
from torch.distributions import Normal, kl_divergence

from algorithms.config import ElboConfig
from algorithms.elbo import cell_counts, draw_posteriors, elbo, kl_chain
from algorithms.elbo_batch import ElboBatch
from algorithms.pair_loss import blocks
from models.config import EncoderConfig, RewardDecoderConfig, StateDecoderConfig, VaeModelConfig
from models.inputs import Transitions
from models.vae import Vae

B, T, OBS, CELLS, L = 3, 4, 2, 5, 3


def make_vae(likelihood: str, state: bool, discrete: bool, sees_observation: bool = False) -> Vae:
    """A small model in float64; `-by-product` behind a likelihood asks for that decoder."""
    likelihood, _, product = likelihood.partition("-by-")
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
            layers=(6, 5),
            likelihood=likelihood,
            inputs=inputs,
            enabled=likelihood != "none",
            product_features=7 if product else None,
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
    own = Transitions(observations[:, :-1], actions, rewards, observations[:, 1:])
    # another trial is decoded than the one that is encoded
    other = own._replace(observations=-own.observations, next_observations=own.observations)
    return ElboBatch(
        own,
        other,
        rewards if likelihood.startswith("squared-error") else high,
        cells if likelihood == "bernoulli-per-cell" else None,
    )


CASES = [
    ("bernoulli-per-cell", False, True, False),
    ("bernoulli", False, False, False),
    ("bernoulli", True, False, False),
    ("squared-error", False, False, True),
    ("squared-error", True, True, False),
    ("none", True, False, True),
    ("bernoulli-by-product", False, False, False),
    ("squared-error-by-product", True, True, True),
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
    config = ElboConfig(kl_weight=0.3, reward_weight=0.7, state_weight=1.9, block_pairs=block_pairs)

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


@pytest.mark.parametrize(
    "likelihood", ["bernoulli-per-cell", "squared-error", "squared-error-by-product"]
)
def test_drawn_posteriors_average_to_the_full_sum(likelihood: str) -> None:
    """Every pair of strata (i, j) of T + 1 = 2 * 2.5 posteriors, weighted by how likely it is."""
    vae, batch = make_vae(likelihood, True, True), make_batch(True, likelihood)
    draw = torch.Generator().manual_seed(2)
    noise = torch.randn(B, T + 1, L, generator=draw, dtype=torch.float64)
    chances = torch.tensor([[0.4, 0.4, 0.2, 0.0, 0.0], [0.0, 0.0, 0.2, 0.4, 0.4]])
    full = elbo(vae, batch, noise, ElboConfig())
    wanted = torch.autograd.grad(full.loss, list(vae.parameters()))
    mean = sum(
        (chances[0, i] * chances[1, j]).item()
        * elbo(vae, batch, noise, ElboConfig(), torch.tensor([[i, j]]).expand(B, -1)).loss
        for i in range(T + 1)
        for j in range(T + 1)
        if chances[0, i] * chances[1, j] > 0
    )
    torch.testing.assert_close(mean, full.loss, rtol=1e-6, atol=0)
    for one, other in zip(torch.autograd.grad(mean, list(vae.parameters())), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_posteriors_are_drawn_one_a_stratum_and_equally_often() -> None:
    drawn = draw_posteriors(40_000, T, 2, torch.Generator().manual_seed(0))
    assert (drawn[:, 0] <= 2).all()
    assert (drawn[:, 1] >= 2).all()
    share = torch.bincount(drawn.flatten(), minlength=T + 1) / drawn.numel()
    torch.testing.assert_close(share, torch.full((T + 1,), 1 / (T + 1)), rtol=0, atol=0.01)
    every = draw_posteriors(3, T, T + 1, torch.Generator().manual_seed(0))
    assert torch.equal(every, torch.arange(T + 1).expand(3, -1))


def test_no_gradient_is_kept_without_grad() -> None:
    vae, batch = make_vae("squared-error", True, False), make_batch(False, "squared-error")
    noise = torch.zeros(B, T + 1, L, dtype=torch.float64)
    with torch.no_grad():
        quiet = elbo(vae, batch, noise, ElboConfig())
    terms = elbo(vae, batch, noise, ElboConfig())
    assert not quiet.loss.requires_grad
    assert not terms.reward.requires_grad
    for one, other in zip(quiet, terms, strict=True):
        torch.testing.assert_close(one, other.detach())


def test_kl_chain_matches_torch_distributions() -> None:
    draw = torch.Generator().manual_seed(0)
    beliefs = torch.randn(B, T + 1, 2 * L, generator=draw, dtype=torch.float64)
    mean, log_variance = beliefs.chunk(2, -1)
    posteriors = Normal(mean, (0.5 * log_variance).exp())
    previous_mean = torch.cat([torch.zeros(B, 1, L), mean[:, :-1]], 1)
    previous_deviation = torch.cat([torch.ones(B, 1, L), posteriors.stddev[:, :-1]], 1)
    expected = kl_divergence(posteriors, Normal(previous_mean, previous_deviation)).sum(-1)
    torch.testing.assert_close(kl_chain(beliefs), expected)


def test_kl_gradient_flows_into_both_sides() -> None:
    beliefs = torch.randn(1, 3, 2 * L, generator=torch.Generator().manual_seed(0))
    beliefs.requires_grad_()
    kl_chain(beliefs)[0, 1].backward()
    assert (beliefs.grad[0, :2] != 0).all()
    assert (beliefs.grad[0, 2] == 0).all()


def test_cell_counts_are_the_explicit_pairs() -> None:
    batch = make_batch(True, "bernoulli-per-cell")
    entered, high = (counts[:, 0] for counts in cell_counts(batch, CELLS))
    low = entered - high
    for b in range(B):
        for cell in range(CELLS):
            entered = batch.cells[b] == cell
            assert high[b, cell] == (entered & (batch.targets[b] == 1)).sum()
            assert low[b, cell] == (entered & (batch.targets[b] == 0)).sum()
    torch.testing.assert_close((high + low).sum(-1), torch.full((B,), float(T)).double())


@pytest.mark.parametrize("pairs", [1, 7, 20, 60, 61, 1000])
def test_blocks_cover_every_pair_once_within_the_bound(pairs: int) -> None:
    trials, posteriors, steps = 3, 5, 4
    seen = torch.zeros(trials, posteriors)
    for one, part in blocks(trials, posteriors, steps, pairs):
        size = seen[one, part].numel() * steps
        assert size <= max(pairs, steps)
        seen[one, part] += 1
    assert (seen == 1).all()


def test_extreme_logits_stay_finite() -> None:
    vae, batch = make_vae("bernoulli", False, False), make_batch(False, "bernoulli")
    with torch.no_grad():
        vae.reward_decoder.upper[-1].bias.fill_(1e4)
    terms = elbo(vae, batch, torch.zeros(B, T + 1, L, dtype=torch.float64), ElboConfig())
    terms.loss.backward()
    assert torch.isfinite(terms.loss)
    assert all(torch.isfinite(p.grad).all() for p in vae.parameters() if p.grad is not None)
