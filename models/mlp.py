"""Multilayer perceptrons of several members, evaluated as one batched network.

A member is a network of its own: the agents of many tasks, trained side by side, and the twin
critics of each of them are members of one `EnsembleMLP`, so that a layer of all of them is one
matrix product. Members never mix: output i depends on parameters and input i alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

# From this many rows up, separate products of few members beat one batched product on a CPU,
# whose batched product copies the transposed activations in the backward pass.
_LOOP_MEMBERS = 2
_LOOP_ROWS = 2048


class EnsembleMLP(nn.Module):
    """`members` networks with rectified hidden layers and a linear output.

    Weights and biases are drawn from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), those of the last layer
    scaled by `last_scale`.
    """

    def __init__(
        self,
        members: int,
        sizes: Sequence[int],
        generator: torch.Generator,
        *,
        last_scale: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:
        """Build the networks.

        Args:
            members: how many networks, at least 1.
            sizes: widths (inputs, hidden ..., outputs), at least two of them.
            generator: a CPU generator; the weights do not depend on `device`.
            last_scale: factor on the initial weights of the output layer.
            device: where the parameters live.

        Raises:
            ValueError: if `members` or a width is not positive, or fewer than two widths.
        """
        super().__init__()
        if members < 1 or len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(
                f"EnsembleMLP: members {members} and sizes {tuple(sizes)}; expected at least one "
                "member and at least two positive sizes"
            )
        self.members = members
        self.sizes = tuple(sizes)
        self.weights = nn.ParameterList()  # (members, inputs, outputs) a layer
        self.biases = nn.ParameterList()  # (members, 1, outputs) a layer
        for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
            bound = 1.0 / math.sqrt(inputs)
            if layer == len(sizes) - 2:
                bound *= last_scale
            weight = torch.empty(members, inputs, outputs).uniform_(
                -bound, bound, generator=generator
            )
            bias = torch.empty(members, 1, outputs).uniform_(-bound, bound, generator=generator)
            self.weights.append(nn.Parameter(weight.to(device)))
            self.biases.append(nn.Parameter(bias.to(device)))
        self._weights = list(self.weights)  # a ParameterList is slow to iterate
        self._biases = list(self.biases)

    def forward(self, inputs: Tensor) -> Tensor:
        """Evaluate all members.

        Args:
            inputs: (groups, batch, sizes[0]) with groups dividing members; member i reads
                inputs[i % groups], so twin critics share the inputs of their agent.

        Returns:
            (members, batch, sizes[-1]).
        """
        if self.members == 1:
            return self._single(inputs.squeeze(0)).unsqueeze(0)
        if self.members <= _LOOP_MEMBERS and inputs.shape[1] >= _LOOP_ROWS and inputs.is_cpu:
            return self._looped(inputs)
        if inputs.shape[0] != self.members:
            inputs = inputs.repeat(self.members // inputs.shape[0], 1, 1)
        return self._batched(inputs)

    def _batched(self, hidden: Tensor) -> Tensor:
        """All members in one product a layer: (members, batch, inputs)."""
        last = len(self._weights) - 1
        for layer, (weight, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if layer < last:
                hidden = torch.relu_(hidden)
        return hidden

    def _single(self, hidden: Tensor) -> Tensor:
        """The only member: (batch, inputs) to (batch, outputs)."""
        weights = [weight.squeeze(0) for weight in self._weights]
        biases = [bias.squeeze(0) for bias in self._biases]
        return _perceptron(hidden, weights, biases)

    def _looped(self, inputs: Tensor) -> Tensor:
        """One member after another."""
        weights = [weight.unbind(0) for weight in self._weights]
        biases = [bias.unbind(0) for bias in self._biases]
        groups = inputs.shape[0]
        return torch.stack(
            [
                _perceptron(
                    inputs[i % groups],
                    [weight[i] for weight in weights],
                    [bias[i] for bias in biases],
                )
                for i in range(self.members)
            ]
        )


def _perceptron(hidden: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """One network: hidden (batch, inputs), weights (inputs, outputs), biases (1, outputs)."""
    last = len(weights) - 1
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = torch.addmm(bias, hidden, weight)
        if layer < last:
            hidden = torch.relu_(hidden)
    return hidden
