"""Single-task agents of many tasks, trained side by side; all they live through is the data set.

After BOReL (Dorfman, Shenfeld, Tamar, NeurIPS 2021, section 5 and appendix): every task gets an
ordinary agent, and its whole training log is kept. Here the agents of a group of tasks are one
batched network on one batched simulator, each on its own transitions only, so the law of a task's
data is the same as if it were alone.

Deliberate deviations from the published program:
- an episode's transitions never cross its reset: s' is the true next observation (its next
  episode started from the old terminal observation);
- reaching the goal is no termination, and time limits bootstrap;
- random actions are uniform in [-1, 1] (the published ones were scaled twice, hence ten times too
  small on the point robots);
- policy replaying (for families whose tasks differ in dynamics) happens while the agents learn:
  in a share of the trials the first half of the episodes is acted by another task's current
  agent, in this task's own simulator; or, beyond the published method, the agent changes every
  few steps, so that where a trial goes tells less of its task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithms.learners.base import Batch, Learner
from datasets.errors import DataError
from datasets.trials import Trials
from environments.base import Simulator, Start, TaskFamily


@dataclass
class ExperienceLog:
    """Every trial of every task of a group, allocated once and filled trial by trial.

    observations (tasks, trials, K, H + 1, obs) f4; actions (tasks, trials, K, H, act);
    rewards, terminations (tasks, trials, K, H); infos by name (tasks, trials, K, H, width) f8.
    `filled` trials hold data. `first_task` is the number of the first task among all that are
    collected, for messages.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    terminations: Tensor
    infos: dict[str, Tensor] = field(default_factory=dict)
    filled: int = 0
    first_task: int = 0

    @classmethod
    def empty(
        cls, family: TaskFamily, tasks: int, trials: int, episodes: int, first_task: int = 0
    ) -> ExperienceLog:
        """Room for `trials` trials of `episodes` episodes a task."""
        spec = family.spec
        lead = (tasks, trials, episodes, spec.horizon)
        kind = torch.float32 if spec.n_actions is None else torch.int64
        return cls(
            torch.zeros(tasks, trials, episodes, spec.horizon + 1, spec.observation_dim),
            torch.zeros(*lead, spec.action_dim, dtype=kind),
            torch.zeros(lead),
            torch.zeros(lead, dtype=torch.bool),
            {
                name: torch.zeros(*lead, width, dtype=torch.float64)
                for name, width in spec.infos.items()
            },
            first_task=first_task,
        )

    def check(self, array: NDArray[np.generic], noun: str, when: str) -> None:
        """Refuse NaN and Inf in what the simulator gave for the next trials, task by task.

        array (tasks * trials, ...); `noun` and `when` name it in the message.

        Raises:
            DataError: e.g. "task 3, trial 17, step 42: reward is NaN or infinite".
        """
        if np.isfinite(array).all():
            return
        row = int(np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(1))[0])
        task, trial = divmod(row, len(array) // len(self.rewards))
        raise DataError(
            f"task {self.first_task + task}, trial {self.filled + trial}, {when}: "
            f"{noun} is NaN or infinite"
        )

    def trials(self, task: int) -> Trials:
        """The filled trials of one task, as they go to disk."""
        done = slice(0, self.filled)
        terminations = self.terminations[task, done].numpy()
        truncations = np.zeros_like(terminations)
        truncations[..., -1] = True  # the time limit ends every episode
        return Trials(
            observations=self.observations[task, done].numpy(),
            actions=self.actions[task, done].numpy(),
            rewards=self.rewards[task, done].numpy(),
            terminations=terminations,
            truncations=truncations,
            infos={name: array[task, done].numpy() for name, array in self.infos.items()},
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a checkpoint needs: the filled part of every field."""
        done = slice(0, self.filled)
        return {
            f"log.{name}": array[:, done].contiguous().numpy()
            for name, array in self._fields().items()
        }

    def restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Take up the filled part from a checkpoint."""
        self.filled = arrays["log.rewards"].shape[1]
        for name, array in self._fields().items():
            array[:, : self.filled] = torch.from_numpy(arrays[f"log.{name}"].copy())

    def _fields(self) -> dict[str, Tensor]:
        """Every array by the name that a checkpoint has for it."""
        names = ("observations", "actions", "rewards", "terminations")
        fields: dict[str, Tensor] = {name: getattr(self, name) for name in names}
        return fields | {f"infos/{name}": array for name, array in self.infos.items()}

    def sample(self, batch: int, generator: torch.Generator, shared: int = 0) -> Batch:
        """`batch` transitions a task, uniform over its filled steps: fields (tasks, batch, ...).

        The first `shared` are of any task, as they were logged. There are no next actions: a rule
        that reads them refuses the batch.
        """
        tasks, _, episodes, steps = self.rewards.shape
        shape = (tasks, batch)
        drawn = torch.randint(self.filled * episodes * steps, shape, generator=generator)
        owner = torch.arange(tasks)[:, None].expand(shape)
        if shared:
            others = torch.randint(tasks, (tasks, shared), generator=generator)
            owner = torch.cat([others, owner[:, shared:]], 1)
        drawn += owner * self.rewards[0].numel()
        episode = torch.div(drawn, steps, rounding_mode="floor")
        here = (drawn + episode).view(-1)  # an episode has one more observation than steps
        flat = drawn.view(-1)
        states = self.observations.view(-1, self.observations.shape[-1])
        actions = self.actions.view(-1, self.actions.shape[-1]).index_select(0, flat)
        actions = actions.view(*shape, -1) if actions.is_floating_point() else actions.view(shape)
        terminated = self.terminations.view(-1).index_select(0, flat).view(shape)
        return Batch(
            states=states.index_select(0, here).view(*shape, -1),
            actions=actions,
            rewards=self.rewards.view(-1).index_select(0, flat).view(shape),
            next_states=states.index_select(0, here + 1).view(*shape, -1),
            continues=1.0 - terminated.float(),
        )


def relabelled_batch(batch: Batch, family: TaskFamily, tasks: NDArray[np.float64]) -> Batch:
    """The batch (tasks, n, ...) with what agents of these tasks (tasks, task) learn from.

    That is `family.learning_reward` (the reward, mostly) and terminations, whichever task a
    transition is of.
    """
    actions = batch.actions if batch.actions.is_floating_point() else batch.actions[..., None]
    step = (batch.states.numpy(), actions.numpy(), batch.next_states.numpy(), tasks[:, None])
    rewards = family.learning_reward(*step)
    ends = torch.from_numpy(np.ascontiguousarray(family.termination(*step)))
    return batch._replace(rewards=torch.from_numpy(rewards), continues=1.0 - ends.float())


class Actor:
    """How a group of tasks behaves for one batch of trials; rows run task by task."""

    def __init__(
        self,
        learner: Learner | None,
        family: TaskFamily,
        generator: torch.Generator,
        random_share: float,
        hold: int = 1,
    ) -> None:
        self._learner = learner
        self._spec = family.spec
        self._generator = generator
        self._random_share = random_share
        self._hold, self._acted = hold, 0
        self._held: Tensor | None = None

    def begin_episode(self) -> None:
        """Told before every episode; most behaviours do not care."""

    def random(self, rows: int) -> Tensor:
        """Uniform actions (rows, act)."""
        if self._spec.n_actions is None:
            uniform = torch.rand(rows, self._spec.action_dim, generator=self._generator)
            return uniform * 2.0 - 1.0
        return torch.randint(self._spec.n_actions, (rows, 1), generator=self._generator)

    def act(self, observations: Tensor, donors: Tensor | None) -> Tensor:
        """Exploring actions (rows, act) for observations (tasks, trials, obs).

        `donors` (tasks,) names the agent that acts in each task; None is the task's own.
        """
        tasks, trials, _ = observations.shape
        rows = tasks * trials
        if self._learner is None or self._random_share >= 1.0:
            if self._held is None or self._acted % self._hold == 0:
                self._held = self.random(rows)
            self._acted += 1
            return self._held
        if donors is None:
            actions = self._act(observations)
        else:  # hand each agent the states of the task it visits, and hand its actions back
            visits = torch.argsort(donors)
            acted = self._act(observations[visits])
            actions = acted[donors]
        actions = actions.reshape(rows, -1)
        if self._random_share > 0.0:
            explore = torch.rand(rows, 1, generator=self._generator) < self._random_share
            actions = torch.where(explore, self.random(rows), actions)
        return actions

    def _act(self, observations: Tensor) -> Tensor:
        """Exploring actions of the agents, which may live on another device than simulators."""
        assert self._learner is not None
        there = observations.to(self._learner.device)
        return self._learner.act(there, deterministic=False).to(observations.device)


def run_trials(
    log: ExperienceLog,
    simulator: Simulator,
    trials: int,
    actor: Actor,
    starts: np.random.Generator,
    donors: Sequence[Tensor | None] = (None,),
) -> NDArray[np.float64]:
    """Run `trials` trials on every task of the log at once and append them.

    `simulator` holds tasks x trials environments, task by task. `donors` says who acts in each of
    so many equal parts of a trial: other tasks' agents (tasks,), or each task's own where None.
    Returns (tasks,) mean summed reward of a trial.

    Raises:
        DataError: an observation or a reward is NaN or infinite; names task, trial and step.
    """
    tasks, _, episodes, steps = log.rewards.shape
    block = slice(log.filled, log.filled + trials)
    lead = (tasks, trials)
    for episode in range(episodes):
        actor.begin_episode()
        reset = simulator.reset(starts)
        log.check(reset, "observation", f"reset of episode {episode}")
        observation = torch.from_numpy(reset).view(*lead, -1)
        log.observations[:, block, episode, 0] = observation
        for step in range(steps):
            guests = donors[(episode * steps + step) * len(donors) // (episodes * steps)]
            actions = actor.act(observation, guests)
            result = simulator.step(actions.numpy())
            for array, noun in (
                (result.observations, "next observation"),
                (result.rewards, "reward"),
            ):
                log.check(array, noun, f"step {episode * steps + step}")
            observation = torch.from_numpy(result.observations).view(*lead, -1)
            terminations = torch.from_numpy(result.terminations).view(lead)
            log.observations[:, block, episode, step + 1] = observation
            log.actions[:, block, episode, step] = actions.view(*lead, -1)
            log.rewards[:, block, episode, step] = torch.from_numpy(result.rewards).view(lead)
            log.terminations[:, block, episode, step] = terminations
            for name, info in result.infos.items():
                log.infos[name][:, block, episode, step] = torch.from_numpy(info).view(*lead, -1)
    log.filled += trials
    returns: NDArray[np.float64] = log.rewards[:, block].double().sum((2, 3)).mean(1).numpy()
    return returns


def group_simulator(
    family: TaskFamily, tasks: NDArray[np.float64], trials: int, start: Start
) -> Simulator:
    """A simulator of `trials` environments a task, task by task."""
    return family.simulator(np.repeat(tasks, trials, axis=0), start)


def derangement(count: int, rng: np.random.Generator) -> Tensor:
    """A donor for every task that is never itself: a random cycle through all tasks."""
    order = rng.permutation(count)
    donors = np.empty(count, np.int64)
    donors[order] = np.roll(order, 1)
    return torch.from_numpy(donors)
