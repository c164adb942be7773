r"""Double DQN and SAC of one agent: separate networks, autograd, `torch.optim.Adam`.

The losses are those of `algorithms.learners.dqn` and `.sac`, with a fixed temperature:

.. math::
    y_{dqn} = r + \gamma c \, Q_{\bar\theta}(s', \arg\max_{a'} Q_\theta(s', a')), \qquad
    y_{sac} = r + \gamma c \, (\min_j Q_{\bar\theta_j}(s', a') - \alpha \log \pi(a'|s'))

and the actor descends :math:`\alpha \log \pi(a|s) - \min_j Q_{\theta_j}(s, a)` after the critics'
step. As in most programs its backward pass fills the critics' gradients too, unused.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn.functional import mse_loss, softplus

from algorithms.learners.base import Learner
from algorithms.learners.dqn import DQN
from algorithms.learners.policies import LOG_STD_RANGE
from algorithms.learners.sac import SAC
from benchmarks.reference.buffers import Sample
from benchmarks.reference.networks import member_of
from environments.base import Float32


class PlainAgent(Protocol):
    """What collects, learns and is evaluated."""

    def act(self, state: Float32, deterministic: bool) -> NDArray[Any]:
        """An action (act,) for a state (state_dim,)."""

    def update(self, sample: Sample) -> dict[str, float]:
        """One gradient step; its losses."""


class PlainDqn:
    """Double DQN; exploration is up to who collects."""

    def __init__(self, learner: DQN, agent: int = 0) -> None:
        """Copies the networks of one of the learner's agents.

        Raises:
            ValueError: the learner has what the published one has not.
        """
        _check(learner)
        self.config = learner.config
        self.critic = member_of(learner.critic, agent)
        self.target_critic = member_of(learner.target_critic, agent)
        self.optimiser = torch.optim.Adam(self.critic.parameters(), self.config.learning_rate)

    @torch.no_grad()
    def act(self, state: Float32, deterministic: bool) -> NDArray[np.int64]:
        """The greedy action (1,)."""
        values = self.critic(torch.from_numpy(state).unsqueeze(0))
        action: NDArray[np.int64] = values.argmax(1).numpy()
        return action

    def update(self, sample: Sample) -> dict[str, float]:
        """One step on the squared error."""
        with torch.no_grad():
            best = self.critic(sample.next_states).argmax(1, keepdim=True)
            value = self.target_critic(sample.next_states).gather(1, best).squeeze(1)
            target = sample.rewards + self.config.discount * (1 - sample.terminals) * value
        predicted = self.critic(sample.states).gather(1, sample.actions).squeeze(1)
        loss = mse_loss(predicted, target)
        _descend(self.optimiser, loss)
        _follow(self.target_critic, self.critic, self.config.polyak)
        return {"loss": loss.item()}


class PlainSac:
    """SAC with two separate critics."""

    def __init__(self, learner: SAC, agent: int = 0, seed: int = 0) -> None:
        """Copies the networks of one of the learner's agents; `seed` is of the noise.

        Raises:
            ValueError: the learner has what the published one has not.
        """
        _check(learner)
        self.config = learner.config
        self.actor = member_of(learner.actor, agent)
        members = (agent, agent + learner.sizes.agents)  # of both critics
        self.critics = nn.ModuleList(member_of(learner.critic, i) for i in members)
        self.target_critics = nn.ModuleList(member_of(learner.target_critic, i) for i in members)
        rates = self.config.actor_learning_rate, self.config.learning_rate
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), rates[0])
        self.critic_optimiser = torch.optim.Adam(self.critics.parameters(), rates[1])
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def act(self, state: Float32, deterministic: bool) -> NDArray[np.float32]:
        """The policy's action (act,), or a draw."""
        mean, log_std = self._policy(torch.from_numpy(state).unsqueeze(0))
        chosen = torch.tanh(mean) if deterministic else self._draw(mean, log_std)[0]
        action: NDArray[np.float32] = chosen[0].numpy()
        return action

    def update(self, sample: Sample) -> dict[str, float]:
        """One step of both critics, then of the actor."""
        target = self._target(sample)
        first, second = self._values(self.critics, sample.states, sample.actions)
        critic_loss = mse_loss(first, target) + mse_loss(second, target)
        _descend(self.critic_optimiser, critic_loss)
        actions, log_density = self._draw(*self._policy(sample.states))
        first, second = self._values(self.critics, sample.states, actions)
        actor_loss = (self.config.temperature * log_density - torch.min(first, second)).mean()
        _descend(self.actor_optimiser, actor_loss)
        _follow(self.target_critics, self.critics, self.config.polyak)
        return {"critic_loss": critic_loss.item(), "actor_loss": actor_loss.item()}

    def noise(self, shape: torch.Size) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.generator)

    @torch.no_grad()
    def _target(self, sample: Sample) -> Tensor:
        """y, (B,)."""
        actions, log_density = self._draw(*self._policy(sample.next_states))
        first, second = self._values(self.target_critics, sample.next_states, actions)
        value = torch.min(first, second) - self.config.temperature * log_density
        return sample.rewards + self.config.discount * (1 - sample.terminals) * value

    def _policy(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before the tanh, (B, act) each."""
        mean, log_std = self.actor(states).chunk(2, -1)
        return mean, log_std.clamp(*LOG_STD_RANGE)

    def _draw(self, mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (B, act) and their log-densities (B,)."""
        std = log_std.exp()
        unsquashed = mean + std * self.noise(mean.shape)
        squeezed = 2 * (math.log(2) - unsquashed - softplus(-2 * unsquashed))
        density: Tensor = Normal(mean, std).log_prob(unsquashed)  # type: ignore[no-untyped-call]
        return torch.tanh(unsquashed), (density - squeezed).sum(-1)

    @staticmethod
    def _values(critics: nn.ModuleList, states: Tensor, actions: Tensor) -> list[Tensor]:
        """Both critics' values, (B,) each."""
        inputs = torch.cat([states, actions], -1)
        return [critic(inputs).squeeze(-1) for critic in critics]


def plain_agent(learner: Learner, agent: int = 0, seed: int = 0) -> PlainAgent:
    """One of a learner's agents as a plain one; `seed` is of its noise."""
    if isinstance(learner, DQN):
        return PlainDqn(learner, agent)
    if type(learner) is SAC:
        return PlainSac(learner, agent, seed)
    raise ValueError(f"there is no plain {type(learner).__name__}")


def _check(learner: Learner) -> None:
    """Refuse settings that the published agents do not have."""
    config = learner.config
    normalises = bool((learner.input_scale != 1).any() or (learner.input_shift != 0).any())
    if config.muon or config.gradient_clip or config.learn_temperature or normalises:
        raise ValueError("the published agents have Adam, a fixed temperature, and raw inputs")


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


@torch.no_grad()
def _follow(target: nn.Module, live: nn.Module, rate: float) -> None:
    """Polyak averaging."""
    for averaged, newest in zip(target.parameters(), live.parameters(), strict=True):
        averaged.mul_(1 - rate).add_(newest, alpha=rate)
