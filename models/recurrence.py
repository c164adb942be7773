r"""A GRU over whole sequences with its backward pass written out: faster than torch's on a CPU.

The cell (Cho et al., 2014, in torch's convention), with gates r, u and candidate n:
$r, u = \sigma(W_{ru} x + b + V_{ru} h + c)$, $n = \tanh(W_n x + b_n + r (V_n h + c_n))$,
$h' = (1 - u) n + u h$.

Both passes are compiled loops (`models.kernels.belief`), products with inputs and gradients of
weights included.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.kernels.belief import gru_backward, gru_forward
from models.kernels.parts import takes


def run_gru(gru: nn.GRU, inputs: Tensor) -> Tensor:
    """Hidden states (B, T + 1, G) of a one-layer GRU over inputs (B, T, in), zero first.

    On other devices than CPUs this is torch's own GRU, which is one kernel there.
    """
    if not takes(inputs):
        hidden: Tensor = gru(inputs)[0]
        return torch.cat([torch.zeros_like(hidden[:, :1]), hidden], 1)
    differentiable = torch.is_grad_enabled()
    states: Tensor = _Recurrence.apply(  # type: ignore[no-untyped-call]
        inputs, *gru.parameters(), differentiable
    )
    return states


class _Recurrence(torch.autograd.Function):
    """Hidden states (B, T + 1, G) from inputs (B, T, E), W (3G, E), V (3G, G), b and c (3G,)."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        """Keeps what the gradient needs where one may be asked for, as the last argument says."""
        *tensors, differentiable = arguments
        arrays = [tensor.detach().contiguous().numpy() for tensor in tensors]
        states, *kept = gru_forward(*arrays, keep=differentiable)
        result = torch.from_numpy(states)
        if differentiable:
            ctx.save_for_backward(tensors[0], result, *map(torch.from_numpy, kept), *tensors[1:3])
        return result

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of inputs, weights and biases."""
        tensors = (outputs[0], *ctx.saved_tensors)
        gradients = gru_backward(*(tensor.detach().contiguous().numpy() for tensor in tensors))
        return (*map(torch.from_numpy, gradients), None)
