"""Multilayer perceptrons of several members, evaluated as one batched network.

A member is a network of its own: the agents of many tasks, trained side by side, and the twin
critics of each of them are members of one `EnsembleMLP`, so that a layer of all of them is one
matrix product. Members never mix: output i depends on parameters and input i alone.

On a CPU wide layers are compiled loops over blocks of the batch (`models.kernels.perceptron`), and
so is a single member that acts. Narrow ones, small batches, other devices and precision are
whole-array calls with the backward pass written out: activations lie feature-major, (members,
features, batch), since products are slow where their narrow side, such as a critic's single output,
is the contiguous one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import layer_norm

from models.kernels.parts import Float32, takes
from models.kernels.perceptron import differentiate, evaluate

_NARROWEST, _FEWEST_ROWS = 128, 64  # hidden layers and batches from which on compiled loops pay


class EnsembleMLP(nn.Module):
    """`members` networks with rectified hidden layers and a linear output.

    Weights and biases are drawn from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), those of the last layer
    scaled by `last_scale`. Differentiable once.

    With `layer_norm` every rectified layer is normalised over its features. The normalisation has
    no scale and shift of its own: the linear layer that follows would absorb them.
    """

    def __init__(
        self,
        members: int,
        sizes: Sequence[int],
        generator: torch.Generator,
        *,
        last_scale: float = 1.0,
        layer_norm: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        """Build the networks.

        Args:
            members: how many networks, at least 1.
            sizes: widths (inputs, hidden ..., outputs), at least two of them.
            generator: a CPU generator; the weights do not depend on `device`.
            last_scale: factor on the initial weights of the output layer.
            layer_norm: normalise the hidden layers.
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
        self.layer_norm = layer_norm
        self.weights = nn.ParameterList()  # (members, inputs, outputs) a layer
        self.biases = nn.ParameterList()  # (members, 1, outputs) a layer
        for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
            bound = 1.0 / math.sqrt(inputs)
            if layer == len(sizes) - 2:
                bound *= last_scale
            for group, rows in ((self.weights, inputs), (self.biases, 1)):
                drawn = torch.empty(members, rows, outputs)
                drawn.uniform_(-bound, bound, generator=generator)
                group.append(nn.Parameter(drawn.to(device)))
        self.compiles = min(sizes[1:-1], default=0) >= _NARROWEST
        self._all: list[nn.Parameter] = [*self.weights, *self.biases]  # quicker to iterate
        self._views: tuple[int, tuple[list[Float32], list[Float32]]] | None = None

    def arrays(self) -> tuple[list[Float32], list[Float32]]:
        """Weights (members, in, out) and biases (members, 1, out) of a CPU's layers, live views."""
        where = self._all[0].data_ptr()  # another one in a copy of this network
        if self._views is None or self._views[0] != where:
            views = [parameter.detach().numpy() for parameter in self._all]
            layers = len(self.weights)
            self._views = where, (views[:layers], views[layers:])
        return self._views[1]

    def forward(self, inputs: Tensor, *, frozen: bool = False, first: int | None = None) -> Tensor:
        """Evaluate all members, or the first ones.

        Args:
            inputs: (groups, batch, sizes[0]) with groups dividing members; member i reads
                inputs[i % groups], so twin critics share the inputs of their agent.
            frozen: differentiate by the inputs only, which halves the backward pass of a critic
                whose actor is trained.
            first: how many members to evaluate; None for all.

        Returns:
            (members, batch, sizes[-1]); a strided view, of contiguous (members, batch) at width 1.
        """
        parameters: Sequence[Tensor] = self._all
        if frozen:
            parameters = [parameter.detach() for parameter in parameters]
        if first is not None:
            parameters = [parameter[:first] for parameter in parameters]
        members, groups = parameters[0].shape[0], inputs.shape[0]
        learns, many = torch.is_grad_enabled(), inputs.shape[1] >= _FEWEST_ROWS
        acts = members == 1 and not learns and not many  # of whole-array calls the overhead counts
        if (acts or (self.compiles and many)) and takes(inputs):
            if not learns:
                weights, biases = self.arrays()
                if first is not None:
                    weights, biases = ([a[:first] for a in group] for group in (weights, biases))
                there = inputs.detach().contiguous().numpy()
                results, _ = evaluate(there, weights, biases, False, self.layer_norm)
                return torch.from_numpy(results[-1])
            compiled: Tensor = _CompiledPerceptron.apply(  # type: ignore[no-untyped-call]
                self.layer_norm, inputs, *parameters
            )
            return compiled
        if groups != members:
            copies = inputs.expand(members // groups, *inputs.shape)
            inputs = copies.reshape(members, *inputs.shape[1:])
        if self.layer_norm:
            return _evaluate_normalised(inputs, parameters)
        if not learns:  # targets and acting: no bookkeeping
            return _evaluate(inputs, parameters)[-1].transpose(1, 2)
        outputs: Tensor = _Perceptron.apply(inputs, *parameters)  # type: ignore[no-untyped-call]
        return outputs


def _evaluate_normalised(inputs: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """(members, batch, inputs) to (members, batch, outputs), hidden layers normalised."""
    layers = len(parameters) // 2
    hidden = inputs
    for layer, (weight, bias) in enumerate(
        zip(parameters[:layers], parameters[layers:], strict=True)
    ):
        if layer > 0:
            hidden = layer_norm(torch.relu_(hidden), hidden.shape[-1:])
        hidden = torch.baddbmm(bias, hidden, weight)
    return hidden


def _evaluate(inputs: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Each layer's outputs, (members, features, batch), rectified but for the last one's."""
    layers = len(parameters) // 2
    hidden = inputs.transpose(1, 2)
    outputs: list[Tensor] = []
    for weight, bias in zip(parameters[:layers], parameters[layers:], strict=True):
        if outputs:
            hidden = outputs[-1].relu_()
        outputs.append(_affine(bias.transpose(1, 2), weight.transpose(1, 2), hidden))
    return outputs


def _affine(bias: Tensor, weight: Tensor, inputs: Tensor) -> Tensor:
    """W x + b of every member; a plain product has less overhead than a batch of a single one."""
    if weight.shape[0] > 1:
        return torch.baddbmm(bias, weight, inputs)
    return torch.addmm(bias[0], weight[0], inputs[0])[None]


class _CompiledPerceptron(torch.autograd.Function):
    """All layers as compiled loops."""

    @staticmethod
    def forward(ctx: Any, normalise: bool, inputs: Tensor, *parameters: Tensor) -> Tensor:
        """(groups, batch, inputs) to (members, batch, outputs), weights then biases given."""
        layers = len(parameters) // 2
        arrays = [parameter.detach().numpy() for parameter in parameters]
        there = inputs.detach().contiguous().numpy()
        results, ctx.norms = evaluate(there, arrays[:layers], arrays[layers:], True, normalise)
        outputs = [torch.from_numpy(result) for result in results]
        ctx.save_for_backward(inputs, *parameters[:layers], *outputs)
        return outputs[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of inputs, weights and biases, those not needed left out."""
        inputs, *rest = (tensor.detach().contiguous().numpy() for tensor in ctx.saved_tensors)
        layers = len(rest) // 2
        wants_inputs, wants_parameters = ctx.needs_input_grad[1:3]
        by_inputs, *by_parameters = differentiate(
            inputs,
            rest[:layers],
            rest[layers:],
            ctx.norms,
            gradient.contiguous().numpy(),
            wants_inputs,
            wants_parameters,
        )
        by_input = None
        if by_inputs is not None:
            copies = by_inputs.reshape(-1, *inputs.shape)  # of the inputs that members share
            by_input = torch.from_numpy(copies[0] if len(copies) == 1 else copies.sum(0))
        flat = [torch.from_numpy(array) for group in by_parameters for array in group]
        unwanted: list[Tensor | None] = [None] * (2 * layers)
        return None, by_input, *(flat or unwanted)


class _Perceptron(torch.autograd.Function):
    """All layers with their hand-written gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, inputs: Tensor, *parameters: Tensor) -> Tensor:
        """(members, batch, inputs) to (members, batch, outputs), weights then biases given."""
        *activations, outputs = _evaluate(inputs, parameters)
        ctx.save_for_backward(inputs, *parameters[: len(parameters) // 2], *activations)
        return outputs.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of inputs, weights and biases, those not needed left out."""
        layers = len(ctx.saved_tensors) // 2
        inputs, weights = ctx.saved_tensors[0], ctx.saved_tensors[1 : 1 + layers]
        below = [inputs.transpose(1, 2), *ctx.saved_tensors[1 + layers :]]
        by_weight: list[Tensor | None] = [None] * layers
        by_bias: list[Tensor | None] = [None] * layers
        upper = gradient.transpose(1, 2).contiguous()  # (members, outputs, batch)
        for layer in reversed(range(layers)):
            if ctx.needs_input_grad[1 + layer]:
                by_weight[layer] = _weight_gradient(below[layer], upper)
                by_bias[layer] = upper.sum(2).unsqueeze(1)
            if layer > 0:
                upper = _input_gradient(weights[layer], upper)
                torch.ops.aten.threshold_backward.grad_input(
                    upper, below[layer], 0, grad_input=upper
                )
        by_input = None
        if ctx.needs_input_grad[0]:
            by_input = _input_gradient(weights[0], upper).transpose(1, 2)
        return by_input, *by_weight, *by_bias


def _weight_gradient(below: Tensor, upper: Tensor) -> Tensor:
    """(members, inputs, outputs) from (members, inputs, batch) and (members, outputs, batch)."""
    if upper.shape[1] == 1:
        return torch.bmm(upper, below.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(below, upper.transpose(1, 2))


def _input_gradient(weight: Tensor, upper: Tensor) -> Tensor:
    """(members, inputs, batch) from (members, inputs, outputs) and (members, outputs, batch)."""
    if upper.shape[1] == 1:
        return weight * upper
    return torch.bmm(weight, upper)
