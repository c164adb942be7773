r"""ReBRAC: TD3 with cloning penalties of their own for actor and critic.

Source: Tarasov, Kurenkov, Nikulin and Kolesnikov, "Revisiting the minimalist approach to offline
reinforcement learning", NeurIPS 2023, equations 3 and 4.

.. math::
    y &= r + \gamma c \bigl(\min_j Q_{\bar\theta_j}(s', a')
        - \beta_2 \lVert a' - \hat a'\rVert^2\bigr) \\
    L(\phi) &= \tfrac1B \sum_b \beta_1 \lVert \pi_\phi(s_b) - a_b \rVert^2
        - \lambda \min_j Q_{\theta_j}(s_b, \pi_\phi(s_b)), \qquad
    \lambda = 1 \Big/ \tfrac1B \sum_b |\min_j Q_{\theta_j}(s_b, \pi_\phi(s_b))|

where a-hat' is the log's next action and a' the smoothed target action (see `td3`). The critics
normalise their hidden layers (after the rectifier, without scale and shift, which the next layer
absorbs). Depth, width, batch and discount are configuration; the paper's larger ones are not the
defaults.
"""

from __future__ import annotations

import torch
from torch import Tensor

from algorithms.errors import AlgorithmError
from algorithms.learners.base import Batch, twin_values
from algorithms.learners.td3 import TD3

_SMALLEST_SCALE = 1e-6  # of |Q|, where all values are zero


class ReBRAC(TD3):
    """ReBRAC for continuous actions; batches must carry `next_actions`."""

    critic_layer_norm = True

    def target_penalty(self, batch: Batch, next_actions: Tensor) -> Tensor | float:
        """beta_2 times the squared distance to the log's next action, (A, B).

        Raises:
            AlgorithmError: if the batch has no next actions.
        """
        if batch.next_actions is None:
            raise AlgorithmError("rebrac: the batch has no next_actions, which its critic needs")
        distance = (next_actions - batch.next_actions).square().sum(2)
        return self.config.rebrac_critic_weight * distance

    def actor_losses(self, states: Tensor, actions: Tensor) -> Tensor:
        """L(phi) of every agent, (A,)."""
        chosen = self.policy(states)
        cloning = (chosen - actions).square().sum(2).mean(1)
        first, second = twin_values(self.critic, states, chosen, frozen=True).unbind(0)
        values = torch.minimum(first, second)
        scale = values.detach().abs().mean(1).clamp(min=_SMALLEST_SCALE)
        return self.config.rebrac_actor_weight * cloning - values.mean(1) / scale
