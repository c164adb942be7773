r"""Tanh-Gaussian policies: a = tanh(u), u ~ N(mean, std), on [-1, 1]^d.

Source: Haarnoja et al., "Soft actor-critic", ICML 2018, appendix C, equation 21:

.. math::
    \log \pi(a|s) = \log N(u; \mu, \sigma) - \sum_i \log(1 - \tanh^2 u_i), \qquad
    \log(1 - \tanh^2 u) = 2 (\log 2 - u - \mathrm{softplus}(-2u))

whose right-hand side is exact where 1 - tanh^2 would round to zero.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

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
    return Gaussian(mean, log_std.clamp(*LOG_STD_RANGE))


def sample(policy: Gaussian, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Actions made of standard normal `noise`, with their log-densities.

    Args:
        policy: (..., action_dim) each.
        noise: broadcastable to (..., action_dim).

    Returns:
        actions in [-1, 1], (..., action_dim), and log pi, (...): both differentiable.
    """
    unsquashed = torch.addcmul(policy.mean, policy.log_std.exp(), noise)
    correction = 2.0 * (_LOG_2 - unsquashed - softplus(-2.0 * unsquashed))
    terms = -0.5 * noise.square() - policy.log_std - correction - _HALF_LOG_2_PI
    return torch.tanh(unsquashed), terms.sum(-1)
