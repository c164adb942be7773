"""Floating point operations that a stage cannot do without: the products of its networks.

A product of (m, k) and (k, n) takes 2 m k n. Training a layer takes three of them (outputs, weight
gradients, input gradients), a first layer two. Everything elementwise is left out, so a floor is a
little below what any program reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from algorithms.config import LearnerConfig
from benchmarks.cases import Case
from models.belief import BeliefEncoder
from models.decoders import CellRewardDecoder, RewardDecoder
from models.vae import Vae


def network(widths: Sequence[int]) -> int:
    """One row through a network."""
    return 2 * sum(inputs * outputs for inputs, outputs in pairwise(widths))


def agent_update(
    config: LearnerConfig, state_dim: int, action_dim: int, actions: int | None
) -> int:
    """One transition in an update of double DQN (with `actions`) or SAC."""
    if actions is not None:
        widths = (state_dim, *config.critic_layers, actions)
        return 2 * network(widths) + _trained(widths)
    actor = (state_dim, *config.actor_layers, 2 * action_dim)
    critic = (state_dim + action_dim, *config.critic_layers, 1)
    bootstrapping = network(actor) + 2 * network(critic)
    through_critics = 2 * 2 * network(critic)  # values and their gradients by the actions
    return bootstrapping + 2 * _trained(critic) + _trained(actor) + through_critics


def encoder_step(encoder: BeliefEncoder) -> int:
    """One step of one trial through the belief encoder."""
    size = encoder.gru.hidden_size
    gates = 2 * 3 * size * (encoder.gru.input_size + size)
    embeddings = sum(2 * p.numel() for p in encoder.embedding.parameters() if p.dim() == 2)
    return gates + embeddings + 2 * encoder.heads.weight.numel()


def elbo_update(vae: Vae, trials: int, steps: int) -> int:
    """A whole batch; a decoder's first layer once a posterior and once a step, not once a pair."""
    encoding = 3 * trials * steps * encoder_step(vae.encoder)
    posteriors = trials * (steps + 1)
    decoder = vae.reward_decoder
    if isinstance(decoder, CellRewardDecoder):  # the latent alone is decoded, steps are counted
        layers = sum(2 * p.numel() for p in decoder.parameters() if p.dim() == 2)
        return encoding + 3 * posteriors * layers
    assert isinstance(decoder, RewardDecoder)
    first = posteriors * decoder.latent.weight.numel()
    first += trials * steps * decoder.transition.weight.numel()
    upper = sum(2 * p.numel() for p in decoder.upper.parameters() if p.dim() == 2)
    return encoding + 3 * (2 * first + posteriors * steps * upper)


def acting(config: LearnerConfig, state_dim: int, action_dim: int, actions: int | None) -> int:
    """One state through the policy."""
    if actions is not None:
        return network((state_dim, *config.critic_layers, actions))
    return network((state_dim, *config.actor_layers, 2 * action_dim))


def evaluation_step(case: Case, encoder: BeliefEncoder) -> int:
    """One step on one task: encoder and policy."""
    spec, config = case.family.spec, case.config.offline.learner
    policy = acting(config, case.state_dim, spec.action_dim, spec.n_actions)
    return encoder_step(encoder) + policy


def _trained(widths: Sequence[int]) -> int:
    """One row through a network and back, without the gradient by its inputs."""
    return 3 * network(widths) - network(widths[:2])
