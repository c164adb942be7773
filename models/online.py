"""A belief encoder folded for stepping on a CPU: one compiled call a step, whatever its layers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.belief import BeliefEncoder
from models.inputs import Transitions
from models.kernels.belief import online_step

Float32 = NDArray[np.float32]


class FoldedEncoder:
    """Steps like `BeliefEncoder.step`, with the weights that the encoder had when it was folded.

    The embeddings of all inputs are one network of block-diagonal layers. An input with fewer
    layers than another passes the rest as it is, which its rectified features survive unchanged.
    """

    def __init__(self, encoder: BeliefEncoder) -> None:
        """Copy the weights; for float32 on a CPU."""
        self._encoder = encoder
        embeddings = [_linear_layers(module) for module in encoder.embedding.layers.values()]
        depth = max(map(len, embeddings))
        blocks = [[_block(layers, layer) for layers in embeddings] for layer in range(depth)]
        matrices = [_diagonal([matrix for matrix, _ in layer]) for layer in blocks]
        biases = [np.concatenate([bias for _, bias in layer]) for layer in blocks]
        gru = [parameter.detach().numpy() for parameter in encoder.gru.parameters()]
        heads = [parameter.detach().numpy() for parameter in encoder.heads.parameters()]
        self._weights: list[NDArray[Any]] = [
            np.array([len(matrices[0]), *(matrix.shape[1] for matrix in matrices)]),
            np.concatenate([matrix.ravel() for matrix in matrices]),
            np.concatenate(biases),
            np.ascontiguousarray(gru[0].T),
            gru[2].copy(),
            np.ascontiguousarray(gru[1].T),
            gru[3].copy(),
            np.ascontiguousarray(heads[0].T),
            heads[1].copy(),
        ]

    def step(self, hidden: Tensor, step: Transitions) -> Tensor:
        """Beliefs (n, 2L) after one more step of n trials; hidden (n, G) is replaced in place."""
        inputs = self._encoder.inputs(
            step.actions, step.rewards, step.next_observations, step.observations
        )
        features = torch.cat([inputs[name] for name in self._encoder.embedding.layers], 1)
        return torch.from_numpy(online_step(self._weights, features.numpy(), hidden.numpy()))


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
