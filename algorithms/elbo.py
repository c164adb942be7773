r"""The evidence lower bound that trains the belief (VariBAD, eq. 4 to 7; BOReL, section 3.2).

For a trial of T steps with posteriors $q_0, \dots, q_T$ (q_0 the learned prior) the loss is

$$\sum_{i=0}^{T} \Big( - \sum_{t=1}^{T} \log p(r_t \mid m_i, \cdot) - w_s \sum_{t=1}^{T} \log
p(s'_t \mid m_i, s_t, a_t) \Big) + w_{kl} \sum_{i=0}^{T} KL(q_i \| q_{i-1}), \quad m_i \sim q_i,$$

with $q_{-1} = N(0, I)$: one sample a posterior, and each posterior decodes the whole trial, past
and future. Gradients flow into both sides of each KL.

Reductions, and deviations from the published program: everything is a SUM over posteriors and
decoded steps (and state dimensions), then a mean over trials. The published code takes a mean over
decoded steps for scalar rewards and a sum for per-cell ones, so its KL weight means different
things; ours means one. A squared error stands for a Gaussian's negative log-likelihood with
variance 1/2, without its constant.

The sum over i costs (T + 1) T decoded pairs, and neighbouring posteriors say nearly the same, so an
update may decode a stratified draw of P of them, each counted (T + 1) / P times: unbiased, and the
loss falls faster in time.

What is decoded need not be the trial's own steps under its own task: see `algorithms.decoding`.
Averaging the targets over tasks instead of the losses is exact for Bernoulli likelihoods, and for
squared errors up to a constant that has no gradient.

Per-cell decoders depend on the latent alone: all pairs collapse exactly into how often the decoded
steps entered each cell, and how often with the high reward.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from algorithms.config import ElboConfig
from algorithms.elbo_batch import ElboBatch
from algorithms.pair_loss import pair_loss
from models.decoders import CellRewardDecoder, ProductRewardDecoder, RewardDecoder
from models.vae import Vae


class ElboTerms(NamedTuple):
    """Scalars, means over the batch's trials of sums over posteriors, steps and dimensions."""

    loss: Tensor  # the weighted sum of the others; call .backward() on it
    reward: Tensor  # detached: -log p of rewards (nats), or squared error
    state: Tensor  # detached: squared error of next observations
    kl: Tensor  # detached: the KL chain, nats


def elbo(
    vae: Vae,
    batch: ElboBatch,
    noise: Tensor,
    config: ElboConfig,
    decoding: Tensor | None = None,
) -> ElboTerms:
    """The negative ELBO of a batch; under `torch.no_grad()` no gradient is computed or kept.

    noise (B, T + 1, L) is standard normal: posterior i's sample is mean + exp(logvar / 2) noise.
    decoding (B, P) in [0, T] names the posteriors that decode (`draw_posteriors`); all if None.
    """
    beliefs = vae.encode(batch.transitions)
    latents, weights = sample_latents(beliefs, noise), batch.task_weights
    trials, posteriors, _ = latents.shape
    each = 1.0 / trials
    if decoding is not None:
        latents = _take(latents, decoding)
        weights = None if weights is None else _take(weights, decoding)
        each *= posteriors / decoding.shape[1]
    reward = _reward_loss(vae, latents, batch, weights, config.block_pairs) * each
    state = _state_loss(vae, latents, batch, config.block_pairs) * each
    kl = kl_chain(beliefs).sum() / trials
    loss = config.reward_weight * reward + config.state_weight * state + config.kl_weight * kl
    return ElboTerms(loss, reward.detach(), state.detach(), kl.detach())


def draw_posteriors(trials: int, steps: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` of the steps + 1 posteriors of each trial, (trials, count) int64 in [0, steps].

    One from each of `count` equal strata of [0, steps + 1), so that every posterior is expected
    count / (steps + 1) times.
    """
    within = torch.rand(trials, count, generator=generator, device=generator.device)
    strata = torch.arange(count, device=generator.device)
    return ((strata + within) * ((steps + 1) / count)).long().clamp_(max=steps)


def sample_latents(beliefs: Tensor, noise: Tensor) -> Tensor:
    """Latents (..., L) of beliefs (..., 2L) and standard normal noise (..., L)."""
    mean, log_variance = beliefs.chunk(2, -1)
    return mean + (0.5 * log_variance).exp() * noise


def kl_chain(beliefs: Tensor) -> Tensor:
    r"""KL(q_i || q_{i-1}) of beliefs (B, T + 1, 2L), with q_{-1} = N(0, I); (B, T + 1), nats.

    $\frac12 \sum_l \big( \log \frac{v'}{v} - 1 + \frac{v}{v'} + \frac{(\mu - \mu')^2}{v'} \big)$,
    where v is the variance and the prime marks the previous posterior.
    """
    previous = torch.cat([torch.zeros_like(beliefs[:, :1]), beliefs[:, :-1]], 1)
    mean, log_variance = beliefs.chunk(2, -1)
    previous_mean, previous_log_variance = previous.chunk(2, -1)
    ratio = log_variance - previous_log_variance
    shift = (mean - previous_mean).square() * (-previous_log_variance).exp()
    return 0.5 * (ratio.exp() - ratio - 1 + shift).sum(-1)


def cell_counts(batch: ElboBatch, cells: int) -> tuple[Tensor, Tensor]:
    """How often the decoded steps entered each cell, and how often with the high reward.

    (B, 1, cells) both; with tasks to be averaged the second is (B, N, cells), under every task.
    """
    assert batch.cells is not None
    targets = batch.targets[..., None] if batch.task_targets is None else batch.task_targets
    high = targets.new_zeros(len(targets), targets.shape[2], cells)
    high.scatter_add_(2, batch.cells[:, None].expand(-1, targets.shape[2], -1), targets.mT)
    entered = high.new_zeros(len(high), 1, cells)
    entered.scatter_add_(2, batch.cells[:, None], torch.ones_like(targets[:, None, :, 0]))
    return entered, high


def _take(values: Tensor, decoding: Tensor) -> Tensor:
    """The posteriors (B, P) that decode, of values (B, T + 1, W): (B, P, W)."""
    return values.gather(1, decoding[..., None].expand(-1, -1, values.shape[2]))


def _reward_loss(
    vae: Vae, latents: Tensor, batch: ElboBatch, weights: Tensor | None, block_pairs: int
) -> Tensor:
    """Loss of latents (B, P, L), under the tasks' average where there are weights (B, P, N)."""
    decoder = vae.reward_decoder
    if decoder is None:
        return latents.new_zeros(())
    if isinstance(decoder, CellRewardDecoder):
        return _cell_loss(decoder(latents), batch, weights)
    bernoulli = vae.config.reward_decoder.likelihood == "bernoulli"
    targets = batch.targets
    if weights is not None:
        assert batch.task_targets is not None
        targets = weights @ batch.task_targets.mT  # (B, P, S)
    if isinstance(decoder, ProductRewardDecoder):
        decoded = decoder.pairs(latents, vae.decoder_inputs(batch.decoded))
        wanted = targets if targets.ndim == 3 else targets[:, None]
        if bernoulli:
            return (nn.functional.softplus(decoded) - decoded * wanted).sum()
        return (decoded - wanted).square().sum()
    assert isinstance(decoder, RewardDecoder)
    return pair_loss(
        decoder.latent(latents),
        decoder.project_transitions(vae.decoder_inputs(batch.decoded)),
        targets[..., None],
        decoder.upper,
        "bernoulli" if bernoulli else "squared-error",
        block_pairs,
    )


def _cell_loss(logits: Tensor, batch: ElboBatch, weights: Tensor | None) -> Tensor:
    """Bernoulli loss of logits (B, P, cells), each decoded against all decoded steps."""
    entered, high = cell_counts(batch, logits.shape[-1])
    if weights is not None:
        high = weights @ high  # (B, P, cells)
    # -log p(high) = softplus(-logit) = softplus(logit) - logit, and -log p(low) = softplus(logit).
    return (nn.functional.softplus(logits) * entered - logits * high).sum()


def _state_loss(vae: Vae, latents: Tensor, batch: ElboBatch, block_pairs: int) -> Tensor:
    decoder = vae.state_decoder
    if decoder is None:
        return latents.new_zeros(())
    transitions = batch.decoded
    return pair_loss(
        decoder.latent(latents),
        decoder.project_transitions(vae.decoder_inputs(transitions)),
        transitions.next_observations - transitions.observations,
        decoder.upper,
        "squared-error",
        block_pairs,
    )
