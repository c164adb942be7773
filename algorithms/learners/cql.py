r"""Conservative Q-learning on top of soft actor-critic or of double DQN.

Source: Kumar, Zhou, Tucker and Levine, "Conservative Q-learning for offline reinforcement
learning", NeurIPS 2020, equation 4 (the variant CQL(H)) and appendix F. To the critic's loss comes

.. math::
    \alpha \, \tfrac1B \sum_b \Bigl( \log \sum_a e^{Q(s_b, a)} - Q(s_b, a_b) \Bigr)

for each critic. Over discrete actions the sum is exact. Over continuous ones it is the integral on
[-1, 1]^d, estimated by importance sampling with N actions from each of three proposals,

.. math::
    \log \int e^{Q(s, a)} da \approx \log \tfrac1{3N} \sum_{i=1}^{3N} e^{Q(s, a_i) - \log p_i(a_i)}

where p_i is the density that a_i was drawn from: uniform, pi(.|s), or pi(.|s').

Deliberate deviations: the Lagrangian that tunes alpha and the pre-training of the actor by cloning
are left out. BOReL's CQL divides Q, not exp(Q), by the density, so its logarithm is NaN as soon as
a value is negative.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from algorithms.learners.base import Batch, twin_values
from algorithms.learners.dqn import DQN
from algorithms.learners.policies import Gaussian, sample
from algorithms.learners.sac import SAC

_LOG_2 = math.log(2.0)


def importance_log_sum_exp(values: Tensor, log_proposals: Tensor, dim: int) -> Tensor:
    """Estimate log of the integral of exp(Q) from actions drawn from known densities.

    Args:
        values: Q at the actions, (..., n, ...).
        log_proposals: log-density each action was drawn from, broadcastable to `values`.
        dim: the axis of the n actions.

    Returns:
        `values` without axis `dim`; finite for finite arguments of any size.
    """
    return torch.logsumexp(values - log_proposals, dim) - math.log(values.shape[dim])


class CQL(SAC):
    """Conservative soft actor-critic."""

    def critic_losses(
        self, states: Tensor, batch: Batch, targets: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L(theta) with the conservative term; metric `gap`, log-sum-exp Q minus the log's Q."""
        following = self.normalised(batch.next_states)
        proposed, log_proposals = self.proposals(states, following)
        actions = torch.cat((batch.actions.unsqueeze(1), proposed), 1)  # (A, 1 + 3N, B, act)
        agents, count, rows, width = actions.shape
        repeated = states.unsqueeze(1).expand(-1, count, -1, -1)
        values = twin_values(
            self.critic,
            repeated.reshape(agents, count * rows, -1),
            actions.view(agents, count * rows, width),
        ).view(2, agents, count, rows)
        chosen = values[:, :, 0]
        spread = importance_log_sum_exp(values[:, :, 1:], log_proposals, 2)
        gaps = (spread - chosen).mean(2)
        losses = ((chosen - targets).square().mean(2) + self.config.cql_weight * gaps).sum(0)
        return losses, {"q": chosen.detach().mean((0, 2)), "gap": gaps.detach().mean(0)}

    @torch.no_grad()
    def proposals(self, states: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
        """Actions at which Q(s, .) is pushed down, and their log-densities.

        Args:
            states: (A, B, state_dim), normalised.
            following: the next states, likewise.

        Returns:
            actions (A, 3N, B, action_dim) and log-densities (A, 3N, B).
        """
        agents, rows, _ = states.shape
        count, width = self.config.cql_actions, self.sizes.action_dim
        uniform = self.uniform(agents, count * rows, width)
        actions = [uniform]
        log_densities = [uniform.new_full((agents, count * rows), -width * _LOG_2)]
        for at in (states, following):
            mean, log_std = self.policy(at)
            policy = Gaussian(mean.repeat(1, count, 1), log_std.repeat(1, count, 1))
            drawn, log_density = sample(policy, self.noise(agents, count * rows, width))
            actions.append(drawn)
            log_densities.append(log_density)
        shape = (agents, 3 * count, rows)
        return torch.cat(actions, 1).view(*shape, width), torch.cat(log_densities, 1).view(shape)


class DiscreteCQL(DQN):
    """Conservative double DQN."""

    def losses(self, batch: Batch, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L(theta) with the conservative term; metric `gap`, log-sum-exp Q minus the log's Q."""
        values = self.critic(self.normalised(batch.states))  # (A, B, n_actions)
        chosen = values.gather(2, batch.actions.unsqueeze(2)).squeeze(2)
        gaps = (torch.logsumexp(values, 2) - chosen).mean(1)
        losses = (chosen - targets).square().mean(1) + self.config.cql_weight * gaps
        return losses, {"q": chosen.detach().mean(1), "gap": gaps.detach()}
