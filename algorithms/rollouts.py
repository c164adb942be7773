"""Meta-episodes of an agent that filters its belief: all tasks stepped as one batch.

A trial is K episodes on one task from the prior belief; the belief is carried across the episodes
and never reset inside a trial (BOReL, section 3; VariBAD, section 2). The policy is deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithms.errors import AlgorithmError
from algorithms.filtering import OnlineFilter
from algorithms.learners.base import Learner
from datasets.checks import check_finite
from environments.base import Simulator, Start, TaskFamily


class Agent(Protocol):
    """Whoever acts in a meta-episode."""

    def act(self, observations: Tensor, belief: Tensor) -> Tensor:
        """Actions (n, act) for observations (n, obs) and beliefs (n, 2L)."""


@dataclass(frozen=True)
class MetaAgent:
    """A policy on hyper-states (s, b), or on s alone where `beliefs` is false."""

    learner: Learner
    beliefs: bool

    def act(self, observations: Tensor, belief: Tensor) -> Tensor:
        """Deterministic actions (n, act) for observations (n, obs) and beliefs (n, 2L)."""
        states = torch.cat([observations, belief], dim=-1) if self.beliefs else observations
        actions = self.learner.act(states[None], deterministic=True)[0]
        return actions if actions.ndim == 2 else actions[:, None]


class ExploringAgent:
    """An agent whose actions are noisy in the first steps of a trial, and its own afterwards.

    A policy that was learned from logs stands where it believes the goal to be; steps around it
    tell the belief more. For continuous actions in [-1, 1], where they are cut.
    """

    def __init__(
        self, agent: Agent, noise: float, steps: int, generator: np.random.Generator
    ) -> None:
        """`noise` is the deviation, `steps` how many of a trial's are noisy; good for one trial."""
        self._agent, self._noise = agent, noise
        self._left, self._generator = steps, generator

    def act(self, observations: Tensor, belief: Tensor) -> Tensor:
        """Actions (n, act) for observations (n, obs) and beliefs (n, 2L)."""
        actions = self._agent.act(observations, belief)
        if not self._left:
            return actions
        self._left -= 1
        drawn = self._generator.normal(0.0, self._noise, actions.shape).astype(np.float32)
        return (actions + torch.from_numpy(drawn).to(actions.device)).clamp(-1.0, 1.0)


@dataclass(frozen=True)
class OracleAgent:
    """The family's oracle, which is told the tasks (n, task_dim) instead of asking the belief."""

    family: TaskFamily
    tasks: NDArray[np.float64]

    def act(self, observations: Tensor, belief: Tensor) -> Tensor:
        """The oracle's actions (n, act), on the observations' device."""
        actions = self.family.oracle_actions(observations.cpu().numpy(), self.tasks)
        return torch.from_numpy(actions).to(observations.device)


@dataclass(frozen=True)
class Rollouts:
    """What an agent lived through on n tasks.

    observations (n, K, H + 1, obs) f4; actions (n, K, H, act); rewards (n, K, H) f4;
    beliefs (n, T + 1, 2L) f4; successes (n, K, H) bool.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.generic]
    rewards: NDArray[np.float32]
    beliefs: NDArray[np.float32]
    successes: NDArray[np.bool_]

    @property
    def returns(self) -> NDArray[np.float64]:
        """Return of each episode, (n, K)."""
        summed: NDArray[np.float64] = self.rewards.astype(np.float64).sum(-1)
        return summed

    @property
    def solved(self) -> NDArray[np.bool_]:
        """Whether the goal was reached at any step of the trial, (n,)."""
        return np.asarray(self.successes.any((1, 2)))

    @property
    def episode_successes(self) -> NDArray[np.bool_]:
        """Whether the goal was reached at any step of an episode, (n, K)."""
        return np.asarray(self.successes.any(-1))


@dataclass(frozen=True)
class Context:
    """What an agent is shown of each of n tasks before it acts: C episodes of somebody else.

    observations (n, C, H + 1, obs) f4; actions (n, C, H, act); rewards (n, C, H) f4.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.generic]
    rewards: NDArray[np.float32]


def gather_context(
    family: TaskFamily,
    tasks: NDArray[np.float64],
    simulator: Simulator,
    episodes: int,
    noise: float,
    rng: np.random.Generator,
) -> Context:
    """`episodes` episodes of the family's noisy script, which knows the tasks (n, task_dim)."""
    observations, actions, rewards = [], [], []
    for _ in range(episodes):
        seen = [simulator.reset(rng)]
        done, paid = [], []
        for _ in range(family.spec.horizon):
            done.append(family.scripted_actions(seen[-1], tasks, rng, noise))
            step = simulator.step(done[-1])
            seen.append(step.observations)
            paid.append(step.rewards)
        observations.append(np.stack(seen, 1))
        actions.append(np.stack(done, 1))
        rewards.append(np.stack(paid, 1))
    return Context(np.stack(observations, 1), np.stack(actions, 1), np.stack(rewards, 1))


@torch.no_grad()
def roll_out(
    family: TaskFamily,
    tasks: NDArray[np.float64],
    agent: Agent,
    belief_filter: OnlineFilter,
    episodes: int,
    start: Start,
    rng: np.random.Generator,
    device: str = "cpu",
    simulator: Simulator | None = None,
    context: Context | None = None,
) -> Rollouts:
    """Run one trial of `episodes` episodes on every task (n, task_dim), from the prior.

    `simulator` is one of these tasks and that start, if there is one already; with a `context` the
    belief begins as it leaves it, as a continued trial.

    Raises:
        AlgorithmError: the family starts episodes elsewhere than `start` says.
        DataError: an observation or a reward is NaN or infinite.
    """
    count, steps = len(tasks), family.spec.horizon
    simulator = family.simulator(tasks, start) if simulator is None else simulator
    belief = belief_filter.reset(count)
    if context is not None:
        belief = _read_context(belief_filter, context, device)
    observations = np.empty((count, episodes, steps + 1, family.spec.observation_dim), np.float32)
    actions, beliefs = [], [belief]
    rewards = np.empty((count, episodes, steps), np.float32)
    successes = np.empty((count, episodes, steps), np.bool_)
    for episode in range(episodes):
        observations[:, episode, 0] = simulator.reset(rng)
        for step in range(steps):
            here = torch.from_numpy(observations[:, episode, step]).to(device)
            action = agent.act(here, belief)
            actions.append(action.cpu().numpy())
            result = simulator.step(actions[-1])
            observations[:, episode, step + 1] = result.observations
            rewards[:, episode, step] = result.rewards
            successes[:, episode, step] = result.successes
            belief = belief_filter.update(
                action,
                torch.from_numpy(result.rewards).to(device),
                torch.from_numpy(result.observations).to(device),
                here,
            )
            beliefs.append(belief)
    check_finite(observations, "evaluation", "observation", steps)
    check_finite(rewards, "evaluation", "reward", steps)
    _check_starts(simulator, observations[:, :, 0], start)
    stacked = np.stack(actions, axis=1).reshape(count, episodes, steps, -1)
    return Rollouts(
        observations, stacked, rewards, torch.stack(beliefs, 1).cpu().numpy(), successes
    )


def _read_context(belief_filter: OnlineFilter, context: Context, device: str) -> Tensor:
    """The belief (n, 2L) after every step of the context, in order."""

    def at(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    for episode, step in np.ndindex(*context.rewards.shape[1:]):
        belief = belief_filter.update(
            at(context.actions[:, episode, step]),
            at(context.rewards[:, episode, step]),
            at(context.observations[:, episode, step + 1]),
            at(context.observations[:, episode, step]),
        )
    return belief


def _check_starts(simulator: Simulator, starts: NDArray[np.float32], start: Start) -> None:
    """Refuse rollouts that began elsewhere than configured: starts (n, K, obs).

    At the origin every episode begins alike, whatever the random numbers; so does one reset more.
    """
    if simulator.start != start:
        raise AlgorithmError(
            f"evaluation from start {start!r} was asked for, but the simulator says it starts "
            f"from {simulator.start!r}"
        )
    if start != "origin":
        return
    again = simulator.reset(np.random.default_rng(len(starts)))
    differing = np.argwhere((starts != again[:, None]).any(-1))
    for row, episode in differing[:1]:
        raise AlgorithmError(
            f"evaluation from the origin was asked for, but episode {episode} of rollout {row} "
            f"started at {starts[row, episode]} and another one at {again[row]}"
        )
