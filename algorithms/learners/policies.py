r"""Tanh-Gaussian policies: a = tanh(u), u = mu + sigma z, z ~ N(0, I), on [-1, 1]^d.

Source: Haarnoja et al., "Soft actor-critic", ICML 2018, appendix C, equation 21:

.. math::
    \log \pi(a|s) = \log N(u; \mu, \sigma) - \sum_i \log(1 - \tanh^2 u_i), \qquad
    \log(1 - \tanh^2 u) = 2 (\log 2 - u - \mathrm{softplus}(-2u))

whose right-hand side is exact where 1 - tanh^2 would round to zero. The gradient is written out:
:math:`d\log\pi/du = 2a`, since z is given, and :math:`da/du = 1 - a^2`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import hardtanh, softplus

LOG_STD_RANGE = (-20.0, 2.0)  # of the source's implementation
_LOG_2 = math.log(2.0)
_HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)


class Gaussian(NamedTuple):
    """The Gaussian before the tanh: mean and log standard deviation, (..., action_dim) each."""

    mean: Tensor
    log_std: Tensor


def gaussian(outputs: Tensor) -> Gaussian:
    """Read a network's outputs (..., 2 action_dim) as a Gaussian with a bounded deviation."""
    mean, log_std = outputs.chunk(2, -1)
    return Gaussian(mean, hardtanh(log_std, *LOG_STD_RANGE))  # clamp, with a quicker gradient


def sample(policy: Gaussian, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Actions made of standard normal `noise`, with their log-densities.

    Args:
        policy: (..., action_dim) each, broadcastable to `noise` where no gradient is wanted.
        noise: (..., action_dim).

    Returns:
        actions in [-1, 1], (..., action_dim), and log pi, (...): both differentiable, once.
    """
    drawn: tuple[Tensor, Tensor] = _Sample.apply(*policy, noise)  # type: ignore[no-untyped-call]
    return drawn


class _Sample(torch.autograd.Function):
    """Reparametrised draw and log-density."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, mean: Tensor, log_std: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(..., action_dim) each to actions (..., action_dim) and log pi (...)."""
        spread = log_std.exp() * noise
        unsquashed = mean + spread
        actions = torch.tanh(unsquashed)
        terms = softplus(-2.0 * unsquashed).add_(unsquashed).mul_(2.0)
        terms.sub_(log_std).addcmul_(noise, noise, value=-0.5)
        log_density = terms.sum(-1)
        log_density.sub_(noise.shape[-1] * (2.0 * _LOG_2 + _HALF_LOG_2_PI))
        ctx.save_for_backward(actions, spread)
        return actions, log_density

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, by_actions: Tensor, by_log_density: Tensor
    ) -> tuple[Tensor, Tensor, None]:
        """Gradients of mean and log standard deviation."""
        actions, spread = ctx.saved_tensors
        by_density = by_log_density.unsqueeze(-1)
        by_mean = torch.addcmul(by_actions, by_actions * actions, actions, value=-1.0)
        by_mean.addcmul_(by_density, actions, value=2.0)
        return by_mean, by_mean * spread - by_density, None
