r"""Twin delayed deterministic policy gradient: what TD3+BC and ReBRAC share.

Source: Fujimoto, van Hoof and Meger, "Addressing function approximation error in actor-critic
methods", ICML 2018, algorithm 1.

.. math::
    y &= r + \gamma c \bigl(\min_j Q_{\bar\theta_j}(s', a') - p\bigr), \quad
        a' = \mathrm{clip}(\pi_{\bar\phi}(s') + \epsilon, -1, 1), \quad
        \epsilon = \mathrm{clip}(\sigma z, -k, k), \; z \sim N(0, I) \\
    L(\theta) &= \tfrac1B \sum_b \sum_j \bigl(Q_{\theta_j}(s_b, a_b) - y_b\bigr)^2

with c = 1 - termination and a penalty p that is zero but for ReBRAC. Actor and targets move at
every `policy_delay`-th update. Between them the metrics repeat the actor's last loss.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from algorithms.config import LearnerConfig
from algorithms.errors import AlgorithmError
from algorithms.learners.base import Batch, Learner, Sizes, twin_values


class TD3(Learner):
    """A deterministic actor with twin critics, for continuous actions."""

    critic_layer_norm = False

    def __init__(
        self, config: LearnerConfig, sizes: Sizes, *, seed: int, device: torch.device | str
    ) -> None:
        """Build actor, twin critics and the targets of both.

        Raises:
            AlgorithmError: if the actions are discrete.
        """
        super().__init__(config, sizes, seed=seed, device=device)
        if sizes.n_actions is not None:
            raise AlgorithmError(f"{config.rule}: actions are discrete, expected continuous ones")
        inputs, width = sizes.state_dim, sizes.action_dim
        self.actor = self.network(1, inputs, *config.actor_layers, width)
        self.critic = self.network(
            2, inputs + width, *config.critic_layers, 1, layer_norm=self.critic_layer_norm
        )
        self.target_actor = self.target_of(self.actor)
        self.target_critic = self.target_of(self.critic)
        self._actor_optimiser = self.optimiser(
            "actor", self.actor.parameters(), config.actor_learning_rate
        )
        self._critic_optimiser = self.optimiser(
            "critic", self.critic.parameters(), config.learning_rate
        )
        self.held["actor_loss"] = torch.zeros(sizes.agents, device=self.device)

    @abstractmethod
    def actor_losses(self, states: Tensor, actions: Tensor) -> Tensor:
        """L(phi) of every agent, (A,), at normalised states and the log's actions."""

    def target_penalty(self, batch: Batch, next_actions: Tensor) -> Tensor | float:
        """p of every transition, (A, B), given the smoothed target actions (A, B, act)."""
        return 0.0

    @property
    def phase(self) -> int:
        """1 where it is the actor's turn, else 0."""
        return int(self.updates % self.config.policy_delay == 0)

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the critics, and in its turn of the actor; `critic_loss`, `actor_loss`."""
        states = self.normalised(batch.states)
        targets = self.targets(batch)
        values = twin_values(self.critic, states, batch.actions)
        losses = (values - targets).square().mean(2).sum(0)
        self._critic_optimiser.step(losses)
        if self.phase:
            actor_losses = self.actor_losses(states, batch.actions)
            self._actor_optimiser.step(actor_losses)
            self.track()
            self.held["actor_loss"].copy_(actor_losses.detach())
        return {
            "critic_loss": losses.detach(),
            "actor_loss": self.held["actor_loss"].clone(),
            "q": values.detach().mean((0, 2)),
        }

    @torch.no_grad()
    def next_values(self, batch: Batch) -> Tensor:
        """min Q(s', a') - p at the smoothed target action, (A, B)."""
        config = self.config
        following = self.normalised(batch.next_states)
        actions = torch.tanh(self.target_actor(following))
        noise = self.noise(*actions.shape).mul_(config.policy_noise)
        actions = (actions + noise.clamp_(-config.noise_clip, config.noise_clip)).clamp_(-1.0, 1.0)
        first, second = twin_values(self.target_critic, following, actions).unbind(0)
        return torch.minimum(first, second) - self.target_penalty(batch, actions)

    def policy(self, states: Tensor) -> Tensor:
        """pi(s), (A, B, action_dim) in [-1, 1], at normalised states."""
        return torch.tanh(self.actor(states))

    @torch.no_grad()
    def act(self, states: Tensor, deterministic: bool) -> Tensor:
        """pi(s), or a clipped draw around it if exploring: (A, n, action_dim) in [-1, 1]."""
        actions = self.policy(self.normalised(states))
        if deterministic:
            return actions
        return (actions + self.config.policy_noise * self.noise(*actions.shape)).clamp(-1.0, 1.0)
