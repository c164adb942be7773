r"""Soft actor-critic with twin critics, for continuous actions.

Sources: Haarnoja et al., "Soft actor-critic algorithms and applications", arXiv 1812.05905,
equations 5 (critic), 9 (actor) and 18 (temperature); twin critics after Fujimoto et al., ICML 2018.

.. math::
    y &= r + \gamma c \bigl(\min_j Q_{\bar\theta_j}(s', a') - \alpha \log \pi(a'|s')\bigr),
        \quad a' \sim \pi(\cdot|s') \\
    L(\theta) &= \tfrac1B \sum_b \sum_j \bigl(Q_{\theta_j}(s_b, a_b) - y_b\bigr)^2 \\
    L(\phi) &= \tfrac1B \sum_b \alpha \log \pi_\phi(\tilde a_b|s_b)
        - \min_j Q_{\theta_j}(s_b, \tilde a_b) \\
    L(\alpha) &= -\tfrac1B \sum_b \log \alpha \, (\log \pi(\tilde a_b|s_b) + \bar H)

with c = 1 - termination. Deliberate deviations: the temperature's loss is taken in log(alpha), as
in the authors' program; the actor's loss is built after the critics' step, and from there no
gradient of the critics is computed (BOReL builds it before the step and differentiates it after).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from algorithms.config import LearnerConfig
from algorithms.errors import AlgorithmError
from algorithms.learners.base import Batch, Learner, Sizes, twin_values
from algorithms.learners.policies import Gaussian, gaussian, sample
from algorithms.optimisers import Optimiser


class SAC(Learner):
    """Soft actor-critic; the temperature is fixed, or tuned to a target entropy."""

    def __init__(
        self, config: LearnerConfig, sizes: Sizes, *, seed: int, device: torch.device | str
    ) -> None:
        """Build actor, twin critics and their targets.

        Raises:
            AlgorithmError: if the actions are discrete.
        """
        super().__init__(config, sizes, seed=seed, device=device)
        if sizes.n_actions is not None:
            raise AlgorithmError(f"{config.rule}: actions are discrete, expected continuous ones")
        width = sizes.action_dim
        self.actor = self.network(1, sizes.state_dim, *config.actor_layers, 2 * width)
        self.critic = self.network(2, sizes.state_dim + width, *config.critic_layers, 1)
        self.target_critic = self.target_of(self.critic)
        start = torch.full((sizes.agents,), math.log(config.temperature), device=self.device)
        self.log_temperature = nn.Parameter(start, requires_grad=config.learn_temperature)
        entropy = config.target_entropy
        self.target_entropy = float(-width) if entropy is None else entropy
        actor_rate = config.actor_learning_rate
        self._actor_optimiser = self.optimiser("actor", self.actor.parameters(), actor_rate)
        self._critic_optimiser = self.optimiser(
            "critic", self.critic.parameters(), config.learning_rate
        )
        self._temperature_optimiser: Optimiser | None = None
        if config.learn_temperature:
            self._temperature_optimiser = self.optimiser(
                "temperature", [self.log_temperature], actor_rate
            )

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """One step of critics, actor and temperature; metrics `critic_loss`, `actor_loss`, ..."""
        states = self.normalised(batch.states)
        metrics = self._update_critic(states, batch)
        metrics |= self._update_actor(states)
        self.track()
        return metrics

    def policy(self, states: Tensor) -> Gaussian:
        """The policy before the tanh at normalised states (A, B, state_dim)."""
        return gaussian(self.actor(states))

    def temperature(self) -> Tensor:
        """alpha of every agent, (A, 1), without gradient."""
        return self.log_temperature.detach().exp().unsqueeze(1)

    @torch.no_grad()
    def next_values(self, batch: Batch) -> Tensor:
        """min Q(s', a') - alpha log pi(a'|s') at an action drawn, (A, B)."""
        following = self.normalised(batch.next_states)
        policy = self.policy(following)
        actions, log_density = sample(policy, self.noise(*policy.mean.shape))
        first, second = twin_values(self.target_critic, following, actions).unbind(0)
        return torch.minimum(first, second) - self.temperature() * log_density

    def critic_losses(
        self, states: Tensor, batch: Batch, targets: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L(theta), (A,), at normalised states for targets (A, B); and detached metrics."""
        values = twin_values(self.critic, states, batch.actions)
        losses = (values - targets).square().mean(2).sum(0)
        return losses, {"q": values.detach().mean((0, 2))}

    def actor_losses(self, states: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """L(phi), (A,), at normalised states, and log pi of the actions drawn, (A, B)."""
        actions, log_density = sample(self.policy(states), noise)
        first, second = twin_values(self.critic, states, actions, frozen=True).unbind(0)
        losses = (self.temperature() * log_density - torch.minimum(first, second)).mean(1)
        return losses, log_density

    def _update_critic(self, states: Tensor, batch: Batch) -> dict[str, Tensor]:
        targets = self.targets(batch)
        losses, metrics = self.critic_losses(states, batch, targets)
        self._critic_optimiser.step(losses)
        return {"critic_loss": losses.detach()} | metrics

    def _update_actor(self, states: Tensor) -> dict[str, Tensor]:
        noise = self.noise(states.shape[0], states.shape[1], self.sizes.action_dim)
        losses, log_density = self.actor_losses(states, noise)
        self._actor_optimiser.step(losses)
        entropy = -log_density.detach().mean(1)
        metrics = {"actor_loss": losses.detach(), "entropy": entropy}
        if self._temperature_optimiser is not None:
            gap = entropy - self.target_entropy
            temperature_losses = self.log_temperature * gap
            self._temperature_optimiser.step(temperature_losses)
            metrics["temperature_loss"] = temperature_losses.detach()
            metrics["temperature"] = self.log_temperature.detach().exp()
        return metrics

    @torch.no_grad()
    def act(self, states: Tensor, deterministic: bool) -> Tensor:
        """tanh of the mean, or a draw if exploring: (A, n, action_dim) in [-1, 1]."""
        normalised = self.normalised(states)
        if deterministic:
            return torch.tanh(self.actor(normalised)[..., : self.sizes.action_dim])
        policy = self.policy(normalised)
        return sample(policy, self.noise(*policy.mean.shape))[0]
