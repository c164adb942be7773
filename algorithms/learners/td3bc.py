r"""TD3+BC: deterministic policy gradient beside behaviour cloning.

Source: Fujimoto and Gu, "A minimalist approach to offline reinforcement learning", NeurIPS 2021,
equations 3 to 5.

.. math::
    L(\phi) = \tfrac1B \sum_b -\lambda Q_{\theta_1}(s_b, \pi_\phi(s_b))
        + \tfrac1d \lVert \pi_\phi(s_b) - a_b \rVert^2, \qquad
    \lambda = \alpha \Big/ \tfrac1B \sum_b |Q_{\theta_1}(s_b, \pi_\phi(s_b))|

lambda is a number, without gradient; alpha = 0 leaves behaviour cloning. Critics as in `td3`. The
squared distance is a mean over the d action components, as in the authors' program.
"""

from __future__ import annotations

import torch
from torch import Tensor

from algorithms.learners.td3 import TD3

_SMALLEST_SCALE = 1e-6  # of |Q|, where all values are zero


class TD3BC(TD3):
    """TD3+BC for continuous actions."""

    def actor_losses(self, states: Tensor, actions: Tensor) -> Tensor:
        """L(phi) of every agent, (A,)."""
        chosen = self.policy(states)
        cloning = (chosen - actions).square().mean((1, 2))
        if self.config.td3bc_weight == 0:
            return cloning
        pairs = torch.cat((states, chosen), 2)
        values: Tensor = self.critic(pairs, frozen=True, first=self.sizes.agents).squeeze(2)
        scale = values.detach().abs().mean(1).clamp(min=_SMALLEST_SCALE)
        return cloning - self.config.td3bc_weight * values.mean(1) / scale
