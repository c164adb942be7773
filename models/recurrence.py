r"""A GRU over whole sequences with its backward pass written out: faster than torch's on a CPU.

The cell (Cho et al., 2014, in torch's convention), with gates r, u and candidate n:
$r, u = \sigma(W_{ru} x + b + V_{ru} h + c)$, $n = \tanh(W_n x + b_n + r (V_n h + c_n))$,
$h' = (1 - u) n + u h$.

What does not depend on the recursion is done for all steps at once: the inputs' products before it,
and after it the products that give the gradients of weights and inputs. The recursions themselves
are compiled loops (`models.kernels.belief`).
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
    weight_in, weight, bias_in, bias = gru.parameters()
    projected = nn.functional.linear(inputs, weight_in, bias_in)
    differentiable = torch.is_grad_enabled()
    states: Tensor = _Recurrence.apply(  # type: ignore[no-untyped-call]
        projected, weight, bias, differentiable
    )
    return states


class _Recurrence(torch.autograd.Function):
    """Hidden states (B, T + 1, G) from projected inputs (B, T, 3G), V (3G, G) and c (3G,)."""

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, weight: Tensor, bias: Tensor, differentiable: bool
    ) -> Tensor:
        """Keeps what the gradient needs where one may be asked for."""
        states, *kept = gru_forward(
            projected.detach().contiguous().numpy(),
            weight.detach().t().contiguous().numpy(),
            bias.detach().numpy(),
            differentiable,
        )
        result = torch.from_numpy(states)
        if differentiable:
            ctx.save_for_backward(result, *map(torch.from_numpy, kept), weight)
        return result

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of inputs, weights and biases."""
        states, gates, candidates, products, weight = ctx.saved_tensors
        by_projected, by_products = gru_backward(
            outputs[0].contiguous().numpy(),
            states.numpy(),
            gates.numpy(),
            candidates.numpy(),
            products.numpy(),
            weight.detach().numpy(),
        )
        width = weight.shape[1]
        by_inputs = torch.from_numpy(by_projected)
        by_sums = (
            by_inputs[..., : 2 * width].flatten(0, 1),
            torch.from_numpy(by_products).flatten(0, 1),
        )
        before = states[:, :-1].flatten(0, 1)
        by_weight = torch.cat([by_sum.t() @ before for by_sum in by_sums])
        by_bias = torch.cat([by_sum.sum(0) for by_sum in by_sums])
        return by_inputs, by_weight, by_bias, None
