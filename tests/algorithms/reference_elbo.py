"""The ELBO as its equation reads: loops over trials, posteriors and steps, nothing shared."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence

from algorithms.config import ElboConfig
from algorithms.elbo_batch import ElboBatch
from models.inputs import Transitions
from models.vae import Vae


def reference_elbo(
    vae: Vae, batch: ElboBatch, noise: Tensor, config: ElboConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(loss, reward, state, kl), differentiable, means over trials."""
    trials = len(batch.targets)
    reward = state = kl = torch.zeros((), dtype=noise.dtype)
    for b in range(trials):
        one = Transitions(*(part[b : b + 1] for part in batch.transitions))
        beliefs = _step_by_step(vae, one)
        previous = Normal(torch.zeros(noise.shape[-1]), torch.ones(noise.shape[-1]))
        for i, belief in enumerate(beliefs):
            mean, log_variance = belief.chunk(2, -1)
            posterior = Normal(mean, (0.5 * log_variance).exp())
            kl = kl + kl_divergence(posterior, previous).sum()
            previous = posterior
            latent = mean + posterior.stddev * noise[b, i]
            for t in range(batch.targets.shape[1]):
                step = Transitions(*(part[b, t] for part in batch.decoded))
                if vae.reward_decoder is not None:
                    cell = None if batch.cells is None else int(batch.cells[b, t])
                    reward = reward + _reward_term(vae, latent, step, batch.targets[b, t], cell)
                if vae.state_decoder is not None:
                    state = state + _state_term(vae, latent, step)
    reward, state, kl = reward / trials, state / trials, kl / trials
    loss = config.reward_weight * reward + config.state_weight * state + config.kl_weight * kl
    return loss, reward, state, kl


def _step_by_step(vae: Vae, one: Transitions) -> list[Tensor]:
    belief, hidden = vae.encoder.initial(1)
    beliefs = [belief[0]]
    for t in range(one.rewards.shape[1]):
        belief, hidden = vae.encoder.step(
            hidden,
            one.actions[:, t],
            one.rewards[:, t],
            one.next_observations[:, t],
            one.observations[:, t],
        )
        beliefs.append(belief[0])
    return beliefs


def _reward_term(
    vae: Vae, latent: Tensor, step: Transitions, target: Tensor, cell: int | None
) -> Tensor:
    decoder = vae.reward_decoder
    if cell is not None:
        return -Bernoulli(logits=decoder(latent)[cell]).log_prob(target)
    output = decoder(latent, vae.decoder_inputs(step))[0]
    if vae.config.reward_decoder.likelihood == "bernoulli":
        return -Bernoulli(logits=output).log_prob(target)
    return (output - target) ** 2


def _state_term(vae: Vae, latent: Tensor, step: Transitions) -> Tensor:
    predicted = step.observations + vae.state_decoder(latent, vae.decoder_inputs(step))
    return ((predicted - step.next_observations) ** 2).sum()
