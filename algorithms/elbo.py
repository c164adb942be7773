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

Per-cell decoders depend on the latent alone: the (T + 1) T pairs collapse exactly into how often
the trial entered each cell with the high and with the low reward.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from algorithms.config import ElboConfig
from algorithms.elbo_batch import ElboBatch
from algorithms.pair_loss import pair_loss
from models.decoders import CellRewardDecoder, RewardDecoder
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
    latents = sample_latents(beliefs, noise)
    trials, posteriors, width = latents.shape
    each = 1.0 / trials
    if decoding is not None:
        latents = latents.gather(1, decoding[..., None].expand(-1, -1, width))
        each *= posteriors / decoding.shape[1]
    reward = _reward_loss(vae, latents, batch, config.block_pairs) * each
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
    """How often each trial entered each cell with the high and the low reward: (B, cells) each."""
    assert batch.cells is not None
    visits = batch.targets.new_zeros(2, len(batch.targets), cells)
    visits[0].scatter_add_(1, batch.cells, batch.targets)
    visits[1].scatter_add_(1, batch.cells, 1 - batch.targets)
    return visits[0], visits[1]


def _reward_loss(vae: Vae, latents: Tensor, batch: ElboBatch, block_pairs: int) -> Tensor:
    decoder = vae.reward_decoder
    if decoder is None:
        return latents.new_zeros(())
    if isinstance(decoder, CellRewardDecoder):
        return _cell_loss(decoder(latents), batch)
    assert isinstance(decoder, RewardDecoder)
    bernoulli = vae.config.reward_decoder.likelihood == "bernoulli"
    return pair_loss(
        decoder.latent(latents),
        decoder.project_transitions(vae.decoder_inputs(batch.decoded)),
        batch.targets[..., None],
        decoder.upper,
        "bernoulli" if bernoulli else "squared-error",
        block_pairs,
    )


def _cell_loss(logits: Tensor, batch: ElboBatch) -> Tensor:
    """Bernoulli loss of logits (B, T + 1, cells), each decoded against all steps of its trial."""
    high, low = cell_counts(batch, logits.shape[-1])
    softplus = nn.functional.softplus
    # -log p(high) = softplus(-logit) and -log p(low) = softplus(logit) = softplus(-logit) + logit.
    return (softplus(-logits) * (high + low)[:, None] + logits * low[:, None]).sum()


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
