"""One group of tasks in collection: its agents, its log, its random states, and its rounds.

A group is one batched network on one batched simulator. Everything that its next round depends on
lies in one checkpoint, so a group that was killed goes on bit-equal.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithms.collecting import (
    Actor,
    ExperienceLog,
    derangement,
    group_simulator,
    relabelled_batch,
    run_trials,
)
from algorithms.divergence import not_finite
from algorithms.errors import DivergenceError
from algorithms.learners.base import Batch, Learner, on_device
from algorithms.learners.registry import make_learner
from algorithms.scripted import PolicyActor, ScriptedActor
from datasets.checkpoints import CheckpointFile
from datasets.files import fail_point
from environments.base import TaskFamily
from environments.registry import load_family, load_policy
from stages.config import CollectConfig
from stages.context import Interrupted, StageContext
from stages.errors import StageError
from stages.seeds import numpy_generator, torch_generator, torch_seed

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class GroupJob:
    """One group of tasks: what a worker needs to collect it."""

    config: CollectConfig
    seed: int
    index: int
    tasks: NDArray[np.float64]

    @property
    def first_task(self) -> int:
        """Number of the group's first task among all training tasks."""
        return self.index * self.config.group_size

    @property
    def rounds(self) -> int:
        """Rounds of collection, the random ones counted as one."""
        return self.config.iterations + (1 if self.config.random_trials else 0)

    @property
    def trials(self) -> int:
        """Trials a task in the end."""
        return self.config.random_trials + self.config.iterations * self.config.trials_per_iteration

    def checkpoint(self, folder: Path) -> CheckpointFile:
        """Where the group's state lies between rounds."""
        return CheckpointFile(folder / f"group-{self.index:03d}.safetensors")

    def empty_log(self, family: TaskFamily) -> ExperienceLog:
        """Room for all trials of the group."""
        episodes = self.config.episodes or family.spec.episodes
        return ExperienceLog.empty(
            family, len(self.tasks), self.trials, episodes, first_task=self.first_task
        )


def split_groups(config: CollectConfig, seed: int, tasks: NDArray[np.float64]) -> list[GroupJob]:
    """The training tasks (tasks, task_dim), `group_size` at a time."""
    firsts = range(0, len(tasks), config.group_size)
    return [
        GroupJob(config, seed, index, tasks[first : first + config.group_size])
        for index, first in enumerate(firsts)
    ]


class Group:
    """The state of one group between rounds."""

    def __init__(self, job: GroupJob, device: str = "cpu") -> None:
        """Start at round 0, with agents on `device`.

        Raises:
            AlgorithmError: the learner's rule does not fit the family's actions.
        """
        config = job.config
        self.job = job
        self.family = load_family(config.domain)
        self.round = 0
        self.saved_round: int | None = None
        self.history: list[NDArray[np.float64]] = []
        self.starts = numpy_generator(job.seed, "collect", job.index, "starts")
        self.noise = torch_generator(job.seed, "collect", job.index, "actions")
        self.draws = torch_generator(job.seed, "collect", job.index, "batches")
        self.log = job.empty_log(self.family)
        self.learner: Learner | None = None
        if config.behaviour == "learner":
            spec = self.family.spec
            self.learner = make_learner(
                config.learner,
                state_dim=spec.observation_dim,
                action_dim=spec.action_dim,
                n_actions=spec.n_actions,
                agents=len(job.tasks),
                seed=torch_seed(job.seed, "collect", job.index, "learner"),
                device=device,
            )

    def save(self, file: CheckpointFile) -> None:
        """Write everything the next round depends on.

        Raises:
            DivergenceError: a weight is not finite; the checkpoint before is kept.
        """
        arrays = self.log.arrays() | {
            "noise": self.noise.get_state().numpy(),
            "draws": self.draws.get_state().numpy(),
            "history": np.array(self.history).reshape(len(self.history), len(self.job.tasks)),
        }
        if self.learner is not None:
            tensors = self.learner.to_checkpoint()
            bad = not_finite(tensors)
            if bad is not None:
                last = self.job.first_task + len(self.job.tasks) - 1
                raise self._diverged(
                    f"{bad} of the agents of tasks {self.job.first_task} to {last}"
                )
            arrays |= {f"learner.{name}": tensor.cpu().numpy() for name, tensor in tensors.items()}
        file.save(arrays, {"round": self.round, "starts": self.starts.bit_generator.state})
        self.saved_round = self.round

    def restore(self, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        """Go on from what `save` wrote."""
        self.round = self.saved_round = int(meta["round"])
        self.starts.bit_generator.state = meta["starts"]
        self.noise.set_state(torch.from_numpy(arrays["noise"]))
        self.draws.set_state(torch.from_numpy(arrays["draws"]))
        self.history = list(arrays["history"])
        self.log.restore(arrays)
        if self.learner is not None:
            tensors = {
                name.removeprefix("learner."): torch.from_numpy(array)
                for name, array in arrays.items()
                if name.startswith("learner.")
            }
            self.learner.from_checkpoint(tensors)

    def advance(self) -> None:
        """One round: collect trials on every task, then learn from everything so far.

        Raises:
            DataError: a reward or an observation is not finite; names task, trial and step.
            DivergenceError: a loss is not finite.
        """
        config = self.job.config
        random_round = self.round == 0 and config.random_trials > 0
        trials = config.random_trials if random_round else config.trials_per_iteration
        simulator = group_simulator(self.family, self.job.tasks, trials, config.start)
        actor = self._actor(random_round, trials)
        donors = self._donors(random_round)
        returns = run_trials(self.log, simulator, trials, actor, self.starts, donors)
        self.history.append(returns)
        if self.learner is not None and not random_round:
            self._learn(self.learner)
        self.round += 1

    def _actor(self, random_round: bool, trials: int) -> Actor:
        config = self.job.config
        if config.behaviour == "scripted" and not random_round:
            return ScriptedActor(
                self.family, self.job.tasks, trials, self.starts, self.noise, config.scripted_noise
            )
        if config.behaviour == "policy" and not random_round:
            policy = load_policy(config.policy)
            return PolicyActor(policy, self.family, self.job.tasks, trials, self.starts, self.noise)
        share = 1.0 if random_round or config.behaviour == "random" else self._epsilon()
        return Actor(self.learner, self.family, self.noise, share, config.random_hold)

    def _epsilon(self) -> float:
        """Share of random actions of an epsilon-greedy agent; none where the policy explores."""
        config = self.job.config
        if config.learner.rule != "dqn":
            return 0.0
        rounds = self.round - (1 if config.random_trials else 0)
        left = max(0.0, 1.0 - rounds / config.epsilon_decay)
        return config.epsilon_end + (1.0 - config.epsilon_end) * left

    def _donors(self, random_round: bool) -> list[Tensor | None]:
        """Policy replaying: who acts in each part of this round's trials; None is a task's own."""
        config = self.job.config
        if random_round or not config.policy_replaying:
            return [None]
        if self.starts.random() >= config.policy_replaying:
            return [None]
        count, spec = len(self.job.tasks), self.family.spec
        episodes = config.episodes or spec.episodes
        if config.replaying_steps is None:
            donors = derangement(count, self.starts)
            leading = max(1, episodes // 2)
            return [donors] * leading + [None] * (episodes - leading)
        parts = episodes * spec.horizon // config.replaying_steps
        own = self.starts.random(parts) < 0.5
        return [None if mine else derangement(count, self.starts) for mine in own]

    def _learn(self, learner: Learner) -> None:
        for _ in range(self.job.config.updates_per_iteration):
            metrics = learner.update(self._batch())
            losses = torch.stack([v for name, v in metrics.items() if name.endswith("loss")])
            finite = torch.isfinite(losses).all(0)  # (agents,)
            if not bool(finite.all()):
                task = self.job.first_task + int(torch.nonzero(~finite)[0])
                raise self._diverged(f"the loss of task {task}'s agent")

    def _batch(self) -> Batch:
        """Transitions to learn from, with the rewards that agents of the family learn from."""
        config = self.job.config
        shared = round(config.batch_size * config.shared_experience)
        batch = self.log.sample(config.batch_size, self.draws, shared)
        if shared or self.family.has_learning_reward:
            batch = relabelled_batch(batch, self.family, self.job.tasks)
        assert self.learner is not None
        return on_device(batch, self.learner.device)

    def _diverged(self, what: str) -> DivergenceError:
        kept = "no checkpoint was saved before"
        if self.saved_round is not None:
            kept = f"the checkpoint of round {self.saved_round} is kept"
        return DivergenceError(
            f"collect: {what} became NaN or infinite in round {self.round}; {kept}. "
            "A smaller collect.learner.learning_rate may help"
        )


def run_group(job: GroupJob, context: StageContext) -> Iterator[int]:
    """Collect one group, resuming from its checkpoint; yields the rounds done.

    Raises:
        Interrupted: the user asked to stop; the group's state is saved.
    """
    group, file = Group(job, context.device), job.checkpoint(context.checkpoints)
    stored = file.load()
    if stored is not None:
        group.restore(*stored)
        yield group.round
    saved = time.monotonic()
    while group.round < job.rounds:
        group.advance()
        last = group.round == job.rounds
        if last or context.interrupted or time.monotonic() - saved > context.checkpoint_seconds:
            group.save(file)
            saved = time.monotonic()
        fail_point("collect-round")
        yield 1
        if context.interrupted and not last:
            raise Interrupted("collect: stopped after a whole round")


def finished_group(
    job: GroupJob, family: TaskFamily, folder: Path
) -> tuple[ExperienceLog, NDArray[np.float64]]:
    """The log of a group that is done, and its returns (rounds, tasks).

    Raises:
        StageError: the checkpoint is gone, damaged or of an earlier round.
    """
    stored = job.checkpoint(folder).load()
    if stored is None or stored[1]["round"] != job.rounds:
        raise StageError(
            f"collect: the checkpoint of group {job.index} in {folder} was removed or damaged "
            "meanwhile; run again to go on from what is left"
        )
    log = job.empty_log(family)
    log.restore(stored[0])
    return log, stored[0]["history"]
