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
        beliefs: Tensor = self.encoder(
            transitions.actions,
            transitions.rewards,
            transitions.next_observations,
            transitions.observations,
        )
        return beliefs

    def decoder_inputs(self, transitions: Transitions) -> dict[DecoderInput, Tensor]:
        """What the pair decoders see of transitions."""
        return decoder_inputs(transitions, self.n_actions, transitions.observations.dtype)

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
