"""The belief encoder together with the decoders that train it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.belief import BeliefEncoder
from models.config import DecoderInput, VaeModelConfig
from models.decoders import (
    CellRewardDecoder,
    ProductRewardDecoder,
    RewardDecoder,
    StateDecoder,
)
from models.inputs import Transitions, decoder_inputs


class Vae(nn.Module):
    """Encoder, reward decoder and state decoder; a decoder that is switched off is None.

    `generator` draws the initial weights; a fixed one if None, for weights that are loaded anyway.
    Raises ValueError if there is a reward decoder a cell but the family has no cells.
    """

    input_shift: Tensor
    input_scale: Tensor
    reward_scale: Tensor

    def __init__(
        self,
        config: VaeModelConfig,
        observation_dim: int,
        action_dim: int,
        n_actions: int | None = None,
        cells: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        generator = generator or torch.Generator().manual_seed(0)
        self.config = config
        self.n_actions = n_actions
        if config.normalise:
            self.register_buffer("input_shift", torch.zeros(observation_dim))
            self.register_buffer("input_scale", torch.ones(observation_dim))
            self.register_buffer("reward_scale", torch.ones(()))
        sizes = (observation_dim, n_actions or action_dim, generator)
        self.encoder = BeliefEncoder(
            config.encoder, observation_dim, action_dim, n_actions, generator
        )
        self.reward_decoder = self._reward_decoder(cells, *sizes)
        self.state_decoder = (
            StateDecoder(config.state_decoder, config.encoder, *sizes)
            if config.state_decoder.enabled
            else None
        )

    def encode(self, transitions: Transitions) -> Tensor:
        """Beliefs (B, T + 1, 2L) of whole trials."""
        transitions = self.scaled(transitions)
        beliefs: Tensor = self.encoder(
            transitions.actions,
            transitions.rewards,
            transitions.next_observations,
            transitions.observations,
        )
        return beliefs

    def decoder_inputs(self, transitions: Transitions) -> dict[DecoderInput, Tensor]:
        """What the pair decoders see of transitions."""
        transitions = self.scaled(transitions)
        return decoder_inputs(transitions, self.n_actions, transitions.observations.dtype)

    def scaled(self, transitions: Transitions) -> Transitions:
        """Transitions as the networks are given them; as they are unless `config.normalise`."""
        if not self.config.normalise:
            return transitions
        return transitions._replace(
            observations=(transitions.observations - self.input_shift) * self.input_scale,
            next_observations=(transitions.next_observations - self.input_shift) * self.input_scale,
            rewards=transitions.rewards * self.reward_scale,
        )

    def set_normalisation(self, shift: Tensor, scale: Tensor, reward_scale: Tensor) -> None:
        """Scale by these from now on: observations less `shift`, (obs,) each, and rewards, ()."""
        self.input_shift.copy_(shift)
        self.input_scale.copy_(scale)
        self.reward_scale.copy_(reward_scale)

    def _reward_decoder(
        self,
        cells: int | None,
        observation_dim: int,
        action_width: int,
        generator: torch.Generator,
    ) -> RewardDecoder | ProductRewardDecoder | CellRewardDecoder | None:
        config, encoder = self.config.reward_decoder, self.config.encoder
        if not config.enabled:
            return None
        if config.likelihood == "bernoulli-per-cell":
            if cells is None:
                raise ValueError(
                    "reward_decoder.likelihood is bernoulli-per-cell, but the task family has no "
                    "cells: use bernoulli or squared-error"
                )
            return CellRewardDecoder(encoder.latent_dim, config.layers, cells, generator)
        kind = RewardDecoder if config.product_features is None else ProductRewardDecoder
        return kind(config, encoder, observation_dim, action_width, generator)
