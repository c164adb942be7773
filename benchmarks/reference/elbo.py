r"""The ELBO of `algorithms.elbo`, trial by trial, all (T + 1) T pairs of a trial decoded at once.

$$\sum_{i=0}^{T} \sum_{t=1}^{T} \ell(f(z_i, x_t), y_t) + w_{kl} \sum_{i=0}^{T} KL(q_i \| q_{i-1})$$

with $q_{-1} = N(0, I)$, summed over a trial and averaged over trials. The whole batch is encoded in
one call, as published; then each trial's latents and embedded steps are expanded to pairs and go
through the decoder together, and autograd keeps what they leave behind.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from algorithms.config import ElboConfig
from algorithms.elbo_batch import ElboBatch
from benchmarks.reference.networks import PlainEncoder, embeddings_of, linear_of, mlp_of
from models.decoders import CellRewardDecoder, RewardDecoder
from models.inputs import action_features
from models.vae import Vae


class PlainTerms(NamedTuple):
    """Scalars, means over trials."""

    loss: Tensor
    reward: Tensor
    kl: Tensor


class PlainPairDecoder(nn.Module):
    """The reward of a step given a latent: one network of both, side by side."""

    def __init__(self, decoder: RewardDecoder) -> None:
        """Copies the weights, the split first layer in one piece."""
        super().__init__()
        self.embeddings = embeddings_of(decoder.embedding)
        weight = torch.cat([decoder.latent.weight, decoder.transition.weight], 1)
        first = linear_of(weight, decoder.latent.bias)
        self.network = mlp_of([first, *copy.deepcopy(decoder.upper)])

    def loss(self, latents: Tensor, steps: dict[str, Tensor], targets: Tensor) -> Tensor:
        """Summed squared error of latents (P, L) against steps (S, ...) with targets (S,)."""
        embedded = torch.cat(
            [torch.relu(layer(steps[name])) for name, layer in self.embeddings.items()], -1
        )
        pairs = torch.cat(
            [
                latents.unsqueeze(1).expand(-1, len(targets), -1),
                embedded.unsqueeze(0).expand(len(latents), -1, -1),
            ],
            -1,
        )
        predicted: Tensor = self.network(pairs).squeeze(-1)  # (P, S)
        return (predicted - targets).square().sum()


class PlainCellDecoder(nn.Module):
    """The probability of the high reward in every cell, given a latent."""

    def __init__(self, decoder: CellRewardDecoder) -> None:
        """Copies the weights."""
        super().__init__()
        self.network = mlp_of(copy.deepcopy(decoder.layers))

    def loss(self, latents: Tensor, cells: Tensor, targets: Tensor) -> Tensor:
        """Summed Bernoulli loss of latents (P, L) in the entered cells (S,), targets (S,)."""
        shape = (len(latents), len(targets))
        logits = self.network(latents.unsqueeze(1).expand(*shape, -1))  # (P, S, cells)
        entered = logits.gather(-1, cells.expand(shape).unsqueeze(-1)).squeeze(-1)
        return binary_cross_entropy_with_logits(entered, targets.expand(shape), reduction="sum")


class PlainVae(nn.Module):
    """Encoder and reward decoder."""

    def __init__(self, vae: Vae) -> None:
        """Copies the weights of ours.

        Raises:
            ValueError: the model is not one of the published ones that are timed.
        """
        super().__init__()
        self.encoder = PlainEncoder(vae.encoder)
        self.decoder: PlainCellDecoder | PlainPairDecoder
        if vae.state_decoder is not None or vae.config.reward_decoder.likelihood == "bernoulli":
            raise ValueError("only squared errors and one reward a cell have a plain decoder")
        if isinstance(vae.reward_decoder, CellRewardDecoder):
            self.decoder = PlainCellDecoder(vae.reward_decoder)
        elif isinstance(vae.reward_decoder, RewardDecoder):
            self.decoder = PlainPairDecoder(vae.reward_decoder)
        else:
            raise ValueError("the published reward decoders are networks of pairs, or a cell each")

    def reward_loss(self, latents: Tensor, batch: ElboBatch, trial: int) -> Tensor:
        """Of one trial's latents (T + 1, L), summed over all pairs."""
        if isinstance(self.decoder, PlainCellDecoder):
            assert batch.cells is not None
            return self.decoder.loss(latents, batch.cells[trial], batch.targets[trial])
        steps = batch.decoded
        inputs = {
            "action": action_features(steps.actions[trial], self.encoder.n_actions, latents.dtype),
            "observation": steps.observations[trial],
            "next_observation": steps.next_observations[trial],
        }
        return self.decoder.loss(latents, inputs, batch.targets[trial])


def elbo(vae: PlainVae, batch: ElboBatch, noise: Tensor, config: ElboConfig) -> PlainTerms:
    """The negative ELBO of B trials with noise (B, T + 1, L).

    Raises:
        ValueError: targets are averaged over tasks, which the published program does not do.
    """
    if batch.task_targets is not None:
        raise ValueError("there is no plain loss for targets averaged over tasks")
    steps = batch.transitions
    beliefs = vae.encoder.whole_trials(steps.actions, steps.rewards, steps.next_observations)
    reward, kl = noise.new_zeros(()), noise.new_zeros(())
    for trial in range(len(noise)):
        mean, log_variance = beliefs[trial].chunk(2, -1)
        latents = mean + (0.5 * log_variance).exp() * noise[trial]
        reward = reward + vae.reward_loss(latents, batch, trial)
        kl = kl + _kl_chain(mean, log_variance)
    reward, kl = reward / len(noise), kl / len(noise)
    return PlainTerms(config.reward_weight * reward + config.kl_weight * kl, reward, kl)


def update(
    vae: PlainVae,
    optimiser: torch.optim.Optimizer,
    batch: ElboBatch,
    noise: Tensor,
    config: ElboConfig,
) -> float:
    """One gradient step on a batch; returns the loss."""
    terms = elbo(vae, batch, noise, config)
    optimiser.zero_grad()
    terms.loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return terms.loss.item()


def _kl_chain(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL of each posterior from the one before, summed, of one trial's (T + 1, L)."""
    first = torch.zeros_like(mean[:1])
    previous_mean = torch.cat([first, mean[:-1]])
    previous_log_variance = torch.cat([first, log_variance[:-1]])
    ratio = (log_variance - previous_log_variance).exp()
    shift = (mean - previous_mean).square() / previous_log_variance.exp()
    return 0.5 * (previous_log_variance - log_variance - 1 + ratio + shift).sum()
