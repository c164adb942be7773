"""Collection on one task: one agent, one environment, one step at a time.

Per round of the published schedule: some trials, stored transition by transition, then gradient
steps on uniform draws from everything so far. As in ours, an episode's transitions never cross its
reset, random actions are uniform in [-1, 1], and reaching the goal is no termination.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reference.agents import PlainAgent
from benchmarks.reference.buffers import ReplayBuffer
from benchmarks.reference.simulators import TaskSimulator
from environments.base import Spec
from stages.config import CollectConfig


class Collection:
    """One task's agent, environment and buffer."""

    def __init__(
        self,
        agent: PlainAgent,
        simulator: TaskSimulator,
        spec: Spec,
        config: CollectConfig,
        rng: np.random.Generator,
    ) -> None:
        """Allocate room for all trials of the configuration."""
        self.agent, self.simulator, self.spec, self.config = agent, simulator, spec, config
        self.rng = rng
        self.episodes = config.episodes or spec.episodes
        trials = config.random_trials + config.iterations * config.trials_per_iteration
        self.buffer = ReplayBuffer(
            trials * self.episodes * spec.horizon,
            spec.observation_dim,
            spec.action_dim,
            spec.n_actions is not None,
        )

    def run(self) -> list[float]:
        """The whole schedule; returns the mean return of a trial, round by round."""
        returns = [
            float(np.mean([self.collect_trial(1.0) for _ in range(self.config.random_trials)]))
        ]
        for iteration in range(self.config.iterations):
            share = self.random_share(iteration)
            trials = range(self.config.trials_per_iteration)
            returns.append(float(np.mean([self.collect_trial(share) for _ in trials])))
            for _ in range(self.config.updates_per_iteration):
                self.learn()
        return returns

    def random_share(self, iteration: int) -> float:
        """Epsilon of an epsilon-greedy agent; 0 where the policy explores."""
        if self.config.learner.rule != "dqn":
            return 0.0
        left = max(0.0, 1.0 - iteration / self.config.epsilon_decay)
        return self.config.epsilon_end + (1.0 - self.config.epsilon_end) * left

    def collect_trial(self, random_share: float) -> float:
        """One trial into the buffer, a share of its actions random; returns its summed reward."""
        total = 0.0
        for _ in range(self.episodes):
            observation = self.simulator.reset(self.rng)
            for _ in range(self.spec.horizon):
                if random_share > 0 and self.rng.random() < random_share:
                    action = self.random_action()
                else:
                    action = self.agent.act(observation, deterministic=False)
                following, reward = self.simulator.step(action)
                self.buffer.add(observation, action, reward, following, terminal=False)
                observation = following
                total += reward
        return total

    def random_action(self) -> NDArray[Any]:
        """A uniform action (act,)."""
        if self.spec.n_actions is not None:
            return self.rng.integers(0, self.spec.n_actions, 1)
        return self.rng.uniform(-1.0, 1.0, self.spec.action_dim).astype(np.float32)

    def learn(self) -> dict[str, float]:
        """One gradient step; its losses."""
        return self.agent.update(self.buffer.sample(self.rng, self.config.batch_size))
