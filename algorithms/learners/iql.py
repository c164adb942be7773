r"""Implicit Q-learning: no action outside the log is ever valued.

Source: Kostrikov, Nair and Levine, "Offline reinforcement learning with implicit Q-learning",
ICLR 2022, equations 5 (value), 6 (critic) and 7 (policy).

.. math::
    L(\psi) &= \tfrac1B \sum_b L_2^\tau\bigl(\min_j Q_{\bar\theta_j}(s_b, a_b) - V_\psi(s_b)\bigr),
        \quad L_2^\tau(u) = |\tau - 1(u < 0)| \, u^2 \\
    L(\theta) &= \tfrac1B \sum_b \sum_j
        \bigl(r_b + \gamma c_b V_\psi(s'_b) - Q_{\theta_j}(s_b, a_b)\bigr)^2 \\
    L(\phi) &= -\tfrac1B \sum_b \min\bigl(e^{\beta A_b}, m\bigr) \log \pi_\phi(a_b|s_b), \quad
        A = \min_j Q_{\bar\theta_j}(s, a) - V_\psi(s)

with c = 1 - termination. The policy is a Gaussian around tanh of the network, with a deviation that
does not depend on the state, as in the authors' program: a density of the tanh-Gaussian would have
no finite value at the bounds, where logged actions lie. Deliberate deviations: the three losses of
an update use V from before its step, and the actor's learning rate does not decay.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from algorithms.config import LearnerConfig
from algorithms.errors import AlgorithmError
from algorithms.learners.base import Batch, Learner, Sizes, twin_values

_LOG_STD_RANGE = (-5.0, 2.0)
_HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)


def expectile_loss(differences: Tensor, expectile: float) -> Tensor:
    """|tau - 1(u < 0)| u^2, elementwise."""
    weights = torch.where(differences < 0, 1.0 - expectile, expectile)
    return weights * differences.square()


class IQL(Learner):
    """Implicit Q-learning for continuous actions."""

    def __init__(
        self, config: LearnerConfig, sizes: Sizes, *, seed: int, device: torch.device | str
    ) -> None:
        """Build actor, value, twin critics and their targets.

        Raises:
            AlgorithmError: if the actions are discrete.
        """
        super().__init__(config, sizes, seed=seed, device=device)
        if sizes.n_actions is not None:
            raise AlgorithmError(f"{config.rule}: actions are discrete, expected continuous ones")
        inputs, width = sizes.state_dim, sizes.action_dim
        self.actor = self.network(1, inputs, *config.actor_layers, width)
        self.log_std = nn.Parameter(torch.zeros(sizes.agents, 1, width, device=self.device))
        self.value = self.network(1, inputs, *config.critic_layers, 1)
        self.critic = self.network(2, inputs + width, *config.critic_layers, 1)
        self.target_critic = self.target_of(self.critic)
        rate = config.learning_rate
        self._value_optimiser = self.optimiser("value", self.value.parameters(), rate)
        self._critic_optimiser = self.optimiser("critic", self.critic.parameters(), rate)
        self._actor_optimiser = self.optimiser(
            "actor", [*self.actor.parameters(), self.log_std], config.actor_learning_rate
        )

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """One step of value, critics and actor; metrics `value_loss`, `critic_loss`, ..."""
        states = self.normalised(batch.states)
        targets = self.targets(batch)
        advantages = self.advantages(states, batch.actions)
        value_losses = expectile_loss(advantages, self.config.iql_expectile).mean(1)
        self._value_optimiser.step(value_losses)
        values = twin_values(self.critic, states, batch.actions)
        critic_losses = (values - targets).square().mean(2).sum(0)
        self._critic_optimiser.step(critic_losses)
        actor_losses = self.actor_losses(states, batch.actions, advantages.detach())
        self._actor_optimiser.step(actor_losses)
        self.track()
        return {
            "value_loss": value_losses.detach(),
            "critic_loss": critic_losses.detach(),
            "actor_loss": actor_losses.detach(),
            "q": values.detach().mean((0, 2)),
        }

    @torch.no_grad()
    def next_values(self, batch: Batch) -> Tensor:
        """V(s') of every transition, (A, B)."""
        value: Tensor = self.value(self.normalised(batch.next_states)).squeeze(2)
        return value

    def advantages(self, states: Tensor, actions: Tensor) -> Tensor:
        """A(s, a), (A, B), at normalised states; differentiable by V only."""
        with torch.no_grad():
            first, second = twin_values(self.target_critic, states, actions).unbind(0)
            values = torch.minimum(first, second)
        difference: Tensor = values - self.value(states).squeeze(2)
        return difference

    def actor_losses(self, states: Tensor, actions: Tensor, advantages: Tensor) -> Tensor:
        """L(phi), (A,), at normalised states."""
        config = self.config
        weights = torch.exp(config.iql_inverse_temperature * advantages)
        weights = weights.clamp(max=config.iql_advantage_clip)
        log_std = self.log_std.clamp(*_LOG_STD_RANGE)
        standard = (actions - torch.tanh(self.actor(states))) * torch.exp(-log_std)
        log_density = (-0.5 * standard.square() - log_std - _HALF_LOG_2_PI).sum(2)
        return -(weights * log_density).mean(1)

    @torch.no_grad()
    def act(self, states: Tensor, deterministic: bool) -> Tensor:
        """The policy's mean, or a clipped draw if exploring: (A, n, action_dim) in [-1, 1]."""
        mean = torch.tanh(self.actor(self.normalised(states)))
        if deterministic:
            return mean
        std = self.log_std.clamp(*_LOG_STD_RANGE).exp()
        return (mean + std * self.noise(*mean.shape)).clamp(-1.0, 1.0)
