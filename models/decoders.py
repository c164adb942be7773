"""Decoders of the task latent m: rewards p(r | m, ...) and next observations p(s' | m, s, a).

A decoder of pairs (latent z of a posterior, transition x of a step) has its first layer split,
W [z; x] + b = (W_z z + b) + W_x x, so that all T + 1 posteriors against all T steps cost one
product a posterior and one a step, and an addition a pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from models.config import DecoderInput, EncoderConfig, RewardDecoderConfig, StateDecoderConfig
from models.inputs import InputEmbedding
from models.layers import linear, mlp

_PRODUCT_SCALE = 4.0
"""Of a product of features, beside 1 / sqrt(their number): outputs begin about as large as m is."""


class PairDecoder(nn.Module):
    """A ReLU network of (latent, transition) pairs whose first layer is split."""

    def __init__(
        self,
        latent_dim: int,
        layers: Sequence[int],
        outputs: int,
        inputs: Mapping[DecoderInput, tuple[int, int]],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.embedding = InputEmbedding(inputs, generator)
        self.latent = linear(latent_dim, layers[0], generator)
        self.transition = linear(self.embedding.width, layers[0], generator, bias=False)
        self.upper = nn.ModuleList(
            linear(inner, outer, generator) for inner, outer in pairwise((*layers, outputs))
        )

    def project_transitions(self, inputs: Mapping[DecoderInput, Tensor]) -> Tensor:
        """W_x e(x): the transitions' share of the first layer, (..., width)."""
        projected: Tensor = self.transition(self.embedding(inputs))
        return projected

    def forward(self, latents: Tensor, inputs: Mapping[DecoderInput, Tensor]) -> Tensor:
        """Decode latents (..., L) with transitions, leading axes broadcast; (..., outputs)."""
        hidden = (self.latent(latents) + self.project_transitions(inputs)).relu()
        *middle, last = self.upper
        for layer in middle:
            hidden = layer(hidden).relu()
        decoded: Tensor = last(hidden)
        return decoded


class RewardDecoder(PairDecoder):
    """One output a transition: the logit of the high reward, or the reward itself."""

    def __init__(
        self,
        config: RewardDecoderConfig,
        encoder: EncoderConfig,
        observation_dim: int,
        action_width: int,
        generator: torch.Generator,
    ) -> None:
        sizes = _input_sizes(config.inputs, encoder, observation_dim, action_width)
        super().__init__(encoder.latent_dim, config.layers, 1, sizes, generator)


class ProductRewardDecoder(nn.Module):
    """One output a pair: f(m) . g(x) + a(m) + b(x), with a network each for f, a and for g, b.

    All posteriors against all steps are one matrix product of their features, with the layers in
    use about a thirtieth of the cost of a network of pairs, and a product of the two is what "is
    this place among those that the belief has ruled out" asks for. (Deep operator networks have
    this form: Lu et al., Nature Machine Intelligence 2021.)
    """

    def __init__(
        self,
        config: RewardDecoderConfig,
        encoder: EncoderConfig,
        observation_dim: int,
        action_width: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        assert config.product_features is not None
        outputs = config.product_features + 1
        sizes = _input_sizes(config.inputs, encoder, observation_dim, action_width)
        self.embedding = InputEmbedding(sizes, generator)
        self.latent = mlp((encoder.latent_dim, *config.layers, outputs), generator)
        self.transition = mlp((self.embedding.width, *config.layers, outputs), generator)
        self.scale = _PRODUCT_SCALE * config.product_features**-0.5

    def forward(self, latents: Tensor, inputs: Mapping[DecoderInput, Tensor]) -> Tensor:
        """Decode latents (..., L) with transitions, leading axes broadcast; (..., 1)."""
        f, g = self.latent(latents), self.transition(self.embedding(inputs))
        product = (f[..., :-1] * g[..., :-1]).sum(-1, keepdim=True)
        decoded: Tensor = self.scale * product + f[..., -1:] + g[..., -1:]
        return decoded

    def pairs(self, latents: Tensor, inputs: Mapping[DecoderInput, Tensor]) -> Tensor:
        """Decode all pairs of latents (B, P, L) and transitions (B, S, ...); (B, P, S)."""
        f, g = self.latent(latents), self.transition(self.embedding(inputs)).mT
        rest = f[..., -1:] + g[:, -1:]
        return torch.baddbmm(rest, f[..., :-1], g[:, :-1], alpha=self.scale)


class StateDecoder(PairDecoder):
    """The predicted displacement s' - s, (..., obs), from m, s and a.

    Decoding the displacement rather than s' is a deliberate deviation from the published model:
    the squared error is the same quantity, but the network need not learn the identity first.
    """

    def __init__(
        self,
        config: StateDecoderConfig,
        encoder: EncoderConfig,
        observation_dim: int,
        action_width: int,
        generator: torch.Generator,
    ) -> None:
        sizes = _input_sizes(("observation", "action"), encoder, observation_dim, action_width)
        super().__init__(encoder.latent_dim, config.layers, observation_dim, sizes, generator)


class CellRewardDecoder(nn.Module):
    """One logit of the high reward for every cell, from the latent alone."""

    def __init__(
        self, latent_dim: int, layers: Sequence[int], cells: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            linear(inner, outer, generator)
            for inner, outer in pairwise((latent_dim, *layers, cells))
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Logits (..., cells) of latents (..., L)."""
        *hidden, last = self.layers
        for layer in hidden:
            latents = layer(latents).relu()
        logits: Tensor = last(latents)
        return logits


def _input_sizes(
    names: Sequence[DecoderInput], encoder: EncoderConfig, observation_dim: int, action_width: int
) -> dict[DecoderInput, tuple[int, int]]:
    """Width and embedding width of each named input, in this order.

    A decoder has embeddings of its own, as wide as the encoder's.
    """
    sizes: dict[DecoderInput, tuple[int, int]] = {
        "action": (action_width, encoder.action_embedding),
        "observation": (observation_dim, encoder.observation_embedding),
        "next_observation": (observation_dim, encoder.observation_embedding),
    }
    return {name: sizes[name] for name in names}
