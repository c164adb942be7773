"""A belief encoder without gradient: one compiled loop on a CPU, the encoder itself elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.belief import BeliefEncoder
from models.inputs import Transitions
from models.kernels.belief import belief_steps, to_panels
from models.kernels.parts import Float32, takes


class Filter(ABC):
    """What runs an encoder's recursion, one step or whole trials."""

    @abstractmethod
    def step(self, hidden: Tensor, step: Transitions) -> Tensor:
        """Beliefs (n, 2L) after one more step of n trials; hidden (n, G) is replaced in place."""

    @abstractmethod
    def encode(self, steps: Transitions, keep: bool = False) -> tuple[Tensor, Tensor | None]:
        """Beliefs b_0 .. b_T of whole trials, (B, T + 1, 2L), and what came before each step.

        The latter are hidden states (B, T, G), the zero one first; None unless they are to be kept.
        """


def make_filter(encoder: BeliefEncoder) -> Filter:
    """The quickest one for the encoder's device; its weights must not change from now on."""
    return FoldedFilter(encoder) if takes(encoder.heads.weight) else PlainFilter(encoder)


class PlainFilter(Filter):
    """The encoder as it is, on any device."""

    def __init__(self, encoder: BeliefEncoder) -> None:
        self._encoder = encoder

    @torch.no_grad()
    def step(self, hidden: Tensor, step: Transitions) -> Tensor:
        """As `Filter`'s."""
        belief, after = self._encoder.step(hidden, *_arguments(step))
        hidden.copy_(after)
        return belief

    @torch.no_grad()
    def encode(self, steps: Transitions, keep: bool = False) -> tuple[Tensor, Tensor | None]:
        """As `Filter`'s."""
        hidden = self._encoder.hidden_states(*_arguments(steps))
        return self._encoder.heads(hidden), hidden[:, :-1] if keep else None


class FoldedFilter(Filter):
    """One compiled call, whatever the layers, with the weights that the encoder had at first.

    The embeddings of all inputs are one network of block-diagonal layers. An input with fewer
    layers than another passes the rest as it is, which its rectified features survive unchanged.
    """

    def __init__(self, encoder: BeliefEncoder) -> None:
        """Copy the weights; for float32 on a CPU."""
        self._encoder = encoder
        number = encoder.n_actions
        self._actions = None if number is None else np.eye(number, dtype=np.float32)
        embeddings = [_linear_layers(module) for module in encoder.embedding.layers.values()]
        ends = np.cumsum([0, *(layers[0].in_features for layers in embeddings)]).tolist()
        self._places = list(zip(encoder.embedding.layers, ends[:-1], ends[1:], strict=True))
        depth = max(map(len, embeddings))
        blocks = [[_block(layers, layer) for layers in embeddings] for layer in range(depth)]
        matrices = [_diagonal([matrix for matrix, _ in layer]) for layer in blocks]
        biases = [np.concatenate([bias for _, bias in layer]) for layer in blocks]
        gru = [parameter.detach().numpy() for parameter in encoder.gru.parameters()]
        heads = [parameter.detach().numpy() for parameter in encoder.heads.parameters()]
        self._weights: list[NDArray[Any]] = [
            np.array([len(matrices[0]), *(matrix.shape[1] for matrix in matrices)]),
            np.concatenate([to_panels(matrix).ravel() for matrix in matrices]),
            np.concatenate(biases),
            to_panels(gru[0].T),
            gru[2].copy(),
            to_panels(gru[1].T),
            gru[3].copy(),
            to_panels(heads[0].T),
            heads[1].copy(),
        ]

    @torch.no_grad()
    def step(self, hidden: Tensor, step: Transitions) -> Tensor:
        """As `Filter`'s."""
        features = self._features(step)[:, None]
        beliefs, _ = belief_steps(self._weights, features, hidden.numpy(), False)
        return torch.from_numpy(beliefs[:, 1])

    @torch.no_grad()
    def encode(self, steps: Transitions, keep: bool = False) -> tuple[Tensor, Tensor | None]:
        """As `Filter`'s."""
        features = self._features(steps)
        prior, hidden = self._encoder.initial(len(features))
        beliefs, states = belief_steps(self._weights, features, hidden.numpy(), keep)
        beliefs[:, 0] = prior
        return torch.from_numpy(beliefs), torch.from_numpy(states) if keep else None

    def _features(self, steps: Transitions) -> Float32:
        """The encoder's `inputs` side by side, (..., F), with fewer calls."""
        features = np.empty((*steps.rewards.shape, self._places[-1][2]), np.float32)
        for name, first, last in self._places:
            if name == "reward":
                features[..., first] = steps.rewards.numpy()
            elif name == "action" and self._actions is not None:
                features[..., first:last] = self._actions[steps.actions.numpy()[..., 0]]
            else:
                part: Tensor = getattr(steps, f"{name}s")
                features[..., first:last] = part.numpy()
        return features


def _arguments(steps: Transitions) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What an encoder is called with."""
    return steps.actions, steps.rewards, steps.next_observations, steps.observations


def _linear_layers(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def _block(layers: list[nn.Linear], layer: int) -> tuple[Float32, Float32]:
    """Matrix (in, out) and bias of an input's layer; identity and zero beyond its last one."""
    if layer < len(layers):
        linear = layers[layer]
        return linear.weight.detach().numpy().T, linear.bias.detach().numpy()
    width = layers[-1].out_features
    return np.eye(width, dtype=np.float32), np.zeros(width, np.float32)


def _diagonal(blocks: list[Float32]) -> Float32:
    """The blocks (in, out) along the diagonal of a matrix of zeros."""
    rows, columns = (np.cumsum([0, *(block.shape[axis] for block in blocks)]) for axis in (0, 1))
    matrix = np.zeros((rows[-1], columns[-1]), np.float32)
    spans = zip(pairwise(rows), pairwise(columns), blocks, strict=True)
    for (top, bottom), (left, right), block in spans:
        matrix[top:bottom, left:right] = block
    return matrix
