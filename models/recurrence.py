r"""A GRU over whole sequences with its backward pass written out: faster than torch's on a CPU.

The cell (Cho et al., 2014, in torch's convention), with gates r, u and candidate n:
$r, u = \sigma(W_{ru} x + b + V_{ru} h + c)$, $n = \tanh(W_n x + b_n + r (V_n h + c_n))$,
$h' = (1 - u) n + u h$.

What does not depend on the recursion is done for all steps at once: the inputs' products before it,
and after it the products that give the gradients of weights and inputs. The backward recursion
itself is linear in dh: one product with a precomputed coefficient a gate, and one matrix product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def run_gru(gru: nn.GRU, inputs: Tensor) -> Tensor:
    """Hidden states (B, T, G) of a one-layer GRU from zero over inputs (B, T, in).

    On other devices than CPUs this is torch's own GRU, which is one kernel there.
    """
    if inputs.device.type != "cpu":
        hidden: Tensor = gru(inputs)[0]
        return hidden
    weight_in, weight, bias_in, bias = gru.parameters()
    projected = nn.functional.linear(inputs.transpose(0, 1), weight_in, bias_in)
    states: Tensor = _Recurrence.apply(projected, weight, bias)  # type: ignore[no-untyped-call]
    return states.transpose(0, 1)


class _Recurrence(torch.autograd.Function):
    """Hidden states (T, B, G) from projected inputs (T, B, 3G), V (3G, G) and c (3G,)."""

    @staticmethod
    def forward(ctx: Any, projected: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        steps, batch, _ = projected.shape
        width = weight.shape[1]
        gates = projected[..., : 2 * width].clone()  # r and u
        candidates = projected.new_empty(steps, batch, width)
        products = projected.new_empty(steps, batch, 3 * width)  # V h + c
        states = projected.new_zeros(steps + 1, batch, width)
        transposed = weight.t()
        recursion = zip(
            states[:-1].unbind(),
            states[1:].unbind(),
            gates.unbind(),
            gates[..., :width].unbind(),
            gates[..., width:].unbind(),
            projected[..., 2 * width :].unbind(),
            candidates.unbind(),
            products.unbind(),
            products[..., : 2 * width].unbind(),
            products[..., 2 * width :].unbind(),
            strict=True,
        )
        for h, after, ru, r, u, x_n, n, product, product_ru, product_n in recursion:
            torch.addmm(bias, h, transposed, out=product)
            ru.add_(product_ru).sigmoid_()
            torch.addcmul(x_n, r, product_n, out=n).tanh_()
            torch.lerp(n, h, u, out=after)
        ctx.save_for_backward(gates, candidates, products, states, weight)
        return states[1:].clone()

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gates, n, products, states, weight = ctx.saved_tensors
        (gradient,) = outputs
        steps, batch, width = n.shape
        r, u = gates[..., :width], gates[..., width:]
        # d(gate's sum) / dh', for r, u, and for V_n h + c_n: what dh is multiplied by.
        factors = n.new_empty(steps, batch, 3, width)
        through_n = torch.mul(1 - u, 1 - n * n)
        torch.mul(through_n, products[..., 2 * width :] * r * (1 - r), out=factors[:, :, 0])
        torch.mul(states[:-1] - n, u * (1 - u), out=factors[:, :, 1])
        torch.mul(through_n, r, out=factors[:, :, 2])
        d_states = gradient.contiguous().clone()  # becomes dh' of every step
        d_products = factors  # in place, step by step
        flat = d_products.view(steps, batch, 3 * width)
        for step in range(steps - 1, -1, -1):
            d_state = d_states[step]
            d_products[step].mul_(d_state[:, None])
            if step:
                d_states[step - 1].addcmul_(d_state, u[step]).addmm_(flat[step], weight)
        d_projected = torch.cat([flat[..., : 2 * width], d_states * through_n], -1)
        d_weight = flat.flatten(0, 1).t() @ states[:-1].flatten(0, 1)
        return d_projected, d_weight, flat.sum((0, 1))
