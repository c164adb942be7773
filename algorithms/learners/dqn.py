r"""Double DQN: Q-learning with a target network, for discrete actions.

Source: van Hasselt, Guez and Silver, "Deep reinforcement learning with double Q-learning",
AAAI 2016, equation 4; the loss is that of Mnih et al., Nature 2015, on mini-batches.

.. math::
    y = r + \gamma c \, Q_{\bar\theta}\bigl(s', \arg\max_{a'} Q_\theta(s', a')\bigr), \qquad
    L(\theta) = \tfrac1B \sum_b \bigl(Q_\theta(s_b, a_b) - y_b\bigr)^2

with c = 1 - termination. Deliberate deviations: the squared error is not clipped (no Huber loss),
and the target network follows by Polyak averaging at every update instead of being copied at
intervals. BOReL's gridworld uses the maximum over the target network instead of the double
estimate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from algorithms.config import LearnerConfig
from algorithms.errors import AlgorithmError
from algorithms.learners.base import Batch, Learner, Sizes
from models.kernels.double_q import best_values, squared_errors
from models.kernels.parts import takes


class DQN(Learner):
    """Double DQN."""

    def __init__(
        self, config: LearnerConfig, sizes: Sizes, *, seed: int, device: torch.device | str
    ) -> None:
        """Build Q and its target.

        Raises:
            AlgorithmError: if the actions are continuous.
        """
        super().__init__(config, sizes, seed=seed, device=device)
        if sizes.n_actions is None:
            raise AlgorithmError(f"{config.rule}: actions are continuous, expected discrete ones")
        self.n_actions = sizes.n_actions
        self.critic = self.network(1, sizes.state_dim, *config.critic_layers, self.n_actions)
        self.target_critic = self.target_of(self.critic)
        self._optimiser = self.optimiser("critic", self.critic.parameters(), config.learning_rate)

    @property
    def compiles(self) -> bool:
        """Whether its networks are compiled loops on a CPU."""
        return takes(self.critic.weights[0]) or super().compiles

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """One step on the losses; metrics `loss` and `q`."""
        losses, metrics = self.descend(batch, self.targets(batch))
        self.track()
        return {"loss": losses.detach()} | metrics

    def descend(self, batch: Batch, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """One step on the losses for targets (A, B); what `losses` returns."""
        if type(self).losses is not DQN.losses or not takes(targets):
            losses, metrics = self.losses(batch, targets)
            self._optimiser.step(losses)
            return losses, metrics
        errors, q, *gradients = squared_errors(
            self.normalised(batch.states).contiguous().numpy(),
            batch.actions.contiguous().numpy(),
            targets.contiguous().numpy(),
            *self.critic.arrays(),
        )
        each = [torch.from_numpy(gradient) for group in gradients for gradient in group]
        self._optimiser.apply(dict(zip(self.critic.parameters(), each, strict=True)))
        return torch.from_numpy(errors), {"q": torch.from_numpy(q)}

    def losses(self, batch: Batch, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L(theta) of every agent, (A,), for targets (A, B); and detached metrics."""
        values = self.critic(self.normalised(batch.states))  # (A, B, n_actions)
        chosen = values.gather(2, batch.actions.unsqueeze(2)).squeeze(2)
        losses = (chosen - targets).square().mean(1)
        return losses, {"q": chosen.detach().mean(1)}

    @torch.no_grad()
    def next_values(self, batch: Batch) -> Tensor:
        """The double estimate of max Q(s', a'), (A, B)."""
        following = self.normalised(batch.next_states)
        if takes(following):
            nets = (*self.critic.arrays(), *self.target_critic.arrays())
            return torch.from_numpy(best_values(following.contiguous().numpy(), *nets))
        best = self.critic(following).max(2, keepdim=True).indices  # faster than argmax
        value: Tensor = self.target_critic(following).gather(2, best).squeeze(2)
        return value

    @torch.no_grad()
    def act(self, states: Tensor, deterministic: bool) -> Tensor:
        """The greedy action, (A, n) int64; exploration is up to who collects."""
        greedy: Tensor = self.critic(self.normalised(states)).max(2).indices
        return greedy
