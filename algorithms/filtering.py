"""Running the belief filter: over stored trials, many at once, and online, step by step.

The hidden state is never reset inside a trial, neither at an episode's end nor at a goal. (The
published program resets it at goals when it relabels, but not when it trains and evaluates.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from algorithms.decoding import agreement, other_chances, own_steps
from algorithms.elbo import sample_latents
from algorithms.elbo_batch import ElboBatch, make_batch, to_transitions
from algorithms.errors import AlgorithmError
from datasets.trials import Trials
from environments.base import TaskFamily
from models.decoders import CellRewardDecoder
from models.filters import make_filter
from models.inputs import Transitions
from models.vae import Vae

Float32 = NDArray[np.float32]


@torch.no_grad()
def encode_trials(vae: Vae, trials: Trials, block_trials: int) -> Float32:
    """Beliefs b_0 .. b_T of N trials, (N, T + 1, 2L); `block_trials` of them in memory at once."""
    device, belief_filter = vae.encoder.heads.weight.device, make_filter(vae.encoder)
    beliefs = np.empty((trials.count, trials.steps + 1, vae.encoder.belief_dim), np.float32)
    for start in range(0, trials.count, block_trials):
        block = slice(start, start + block_trials)
        steps = vae.scaled(to_transitions(trials.select(block), device))
        encoded, _ = belief_filter.encode(steps)
        beliefs[block] = encoded.cpu().numpy()
    return beliefs


class Outcomes(NamedTuple):
    """Beliefs of N trials, and what else could have come of each step."""

    beliefs: Float32  # (N, T + 1, 2L) b_0 .. b_T
    other_chances: Float32  # (N, K, H) how likely the other of two rewards was before the step
    other_rewards: Float32  # (N, K, H) that reward; 0 where the chance is 0
    other_beliefs: Float32  # (N, T, 2L) the belief after it; 0 where the chance is 0


@torch.no_grad()
def encode_outcomes(
    vae: Vae,
    trials: Trials,
    own: NDArray[np.int64],
    family: TaskFamily,
    tasks: NDArray[np.float64],
    block_trials: int,
) -> Outcomes:
    r"""Beliefs as of `encode_trials`, and both outcomes of every step whose reward was in doubt.

    Before step t the posterior given rewards is uniform over the tasks G that explain them, so the
    other of the two rewards comes with the chance $|\{g \in G : r_t(g) \ne r_t\}| / |G|$, and the
    belief then is one step of the encoder from the same hidden state, with that reward.

    Args:
        own: (N,) the task of each trial, an index into tasks (tasks, task_dim).

    Raises:
        AlgorithmError: the family's reward is not one of two values.
    """
    if family.spec.binary_reward is None:
        raise AlgorithmError(
            f"both outcomes of a step need a reward of two values, but {family.spec.name} has "
            "another"
        )
    encoder = vae.encoder
    device, belief_filter = encoder.heads.weight.device, make_filter(encoder)
    both = sum(family.spec.binary_reward)  # less one of the two rewards, this is the other
    beliefs = np.empty((trials.count, trials.steps + 1, encoder.belief_dim), np.float32)
    chances = np.empty(trials.rewards.shape, np.float32)
    other_beliefs = np.zeros((trials.count, trials.steps, encoder.belief_dim), np.float32)
    for start in range(0, trials.count, block_trials):
        block = slice(start, start + block_trials)
        part = trials.select(block)
        chance = other_chances(agreement(own_steps(part), own[block], family, tasks))
        chances[block] = chance.reshape(part.rewards.shape)
        steps = to_transitions(part, device)
        encoded, hidden = belief_filter.encode(vae.scaled(steps), keep=True)
        assert hidden is not None
        beliefs[block] = encoded.cpu().numpy()
        in_doubt = chance > 0
        doubt = torch.from_numpy(in_doubt).to(device)
        others = Transitions(*(part[doubt] for part in steps))
        others = others._replace(rewards=both - others.rewards)
        after = belief_filter.step(hidden[doubt], vae.scaled(others))
        other_beliefs[block][in_doubt] = after.cpu().numpy()
    other_rewards = np.where(chances > 0, both - trials.rewards, 0.0).astype(np.float32)
    return Outcomes(beliefs, chances, other_rewards, other_beliefs)


@torch.no_grad()
def belief_rewards(
    vae: Vae,
    trials: Trials,
    beliefs: Float32,
    family: TaskFamily,
    samples: int,
    generator: torch.Generator,
    block_trials: int,
) -> Float32:
    """R+ of every step: the reward expected under the belief BEFORE the step, (N, K, H).

    Averages the reward decoder over `samples` latents drawn from b_{t-1} for step t (BOReL, eq. 3;
    the published program uses the belief after the step, which has already seen the reward).
    beliefs (N, T + 1, 2L) are those of the trials.

    Raises:
        AlgorithmError: the model has no reward decoder.
    """
    device = vae.encoder.heads.weight.device
    expected = np.empty(trials.rewards.shape, np.float32)
    for start in range(0, trials.count, block_trials):
        block = slice(start, start + block_trials)
        part = trials.select(block)
        batch = make_batch(part, family, vae.config.reward_decoder, device)
        before = torch.as_tensor(beliefs[block, :-1], device=device)
        total = torch.zeros(before.shape[:2], device=device)
        for _ in range(samples):
            shape = (*before.shape[:2], vae.encoder.latent_dim)
            noise = torch.randn(shape, generator=generator, device=device)
            total += predict_rewards(vae, sample_latents(before, noise), batch, family)
        expected[block] = (total / samples).reshape(part.rewards.shape).cpu().numpy()
    return expected


def predict_rewards(vae: Vae, latents: Tensor, batch: ElboBatch, family: TaskFamily) -> Tensor:
    """Mean reward of each step under its own latent: latents (B, T, L), result (B, T).

    Raises:
        AlgorithmError: the model has no reward decoder.
    """
    output = decode_steps(vae, latents, batch)
    if vae.config.reward_decoder.likelihood == "squared-error":
        return output
    assert family.spec.binary_reward is not None
    low, high = family.spec.binary_reward
    return low + (high - low) * output.sigmoid()


def decode_steps(vae: Vae, latents: Tensor, batch: ElboBatch) -> Tensor:
    """The reward decoder's output (logit or reward) of step t under latent t, (B, T).

    Raises:
        AlgorithmError: the model has no reward decoder.
    """
    decoder = vae.reward_decoder
    if decoder is None:
        raise AlgorithmError(
            "belief rewards need a reward decoder, but reward_decoder.enabled was false"
        )
    if isinstance(decoder, CellRewardDecoder):
        assert batch.cells is not None
        logits: Tensor = decoder(latents).gather(-1, batch.cells[..., None])
        return logits.squeeze(-1)
    decoded: Tensor = decoder(latents, vae.decoder_inputs(batch.transitions))
    return decoded.squeeze(-1)


class OnlineFilter:
    """The beliefs of n environments that are stepped together; one trial after `reset`."""

    def __init__(self, vae: Vae) -> None:
        """Filters with this model's encoder, on its device, with the weights that it has now."""
        self._encoder, self._scaled = vae.encoder, vae.scaled
        self._filter = make_filter(vae.encoder)
        self._hidden: Tensor | None = None

    @torch.no_grad()
    def reset(self, count: int) -> Tensor:
        """Begin `count` trials: their beliefs are the learned prior, (count, 2L)."""
        belief, self._hidden = self._encoder.initial(count)
        return belief

    @torch.no_grad()
    def update(
        self,
        actions: ArrayLike | Tensor,
        rewards: ArrayLike | Tensor,
        next_observations: ArrayLike | Tensor,
        observations: ArrayLike | Tensor,
    ) -> Tensor:
        """Beliefs (n, 2L) after one more step of each environment.

        actions (n, act), rewards (n,), next_observations and observations (n, obs): s' is the true
        next observation, not the one after a reset.

        Raises:
            AlgorithmError: `reset` was not called.
        """
        if self._hidden is None:
            raise AlgorithmError("call reset(count) before update: a trial begins at the prior")
        device = self._hidden.device
        step = Transitions(
            *(
                part if isinstance(part, Tensor) else torch.as_tensor(part, device=device)
                for part in (observations, actions, rewards, next_observations)
            )
        )
        return self._filter.step(self._hidden, self._scaled(step))
