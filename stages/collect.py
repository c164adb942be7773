"""Stage 1, collect: an ordinary agent a task learns it; its whole experience is the data set.

The tasks are split into groups of a configured size; a group is one batched network on one batched
simulator and lives in one process, so the bytes depend on the grouping and not on the number of
workers. A group's state (agents, log, random states) is checkpointed as a whole between rounds of
collection; the HDF5 files are written once, from the finished logs, so that no crash can leave a
torn file behind.
"""

from __future__ import annotations

import csv
import multiprocessing
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from algorithms.collecting import (
    Actor,
    ExperienceLog,
    derangement,
    group_simulator,
    run_trials,
)
from algorithms.errors import DivergenceError
from algorithms.learners.base import Learner
from algorithms.learners.registry import make_learner
from algorithms.scripted import ScriptedActor
from datasets.checkpoints import CheckpointFile
from datasets.trial_store import CollectionMeta, write_meta, write_trials
from environments.base import TaskFamily
from environments.registry import load_family
from stages.config import CollectConfig
from stages.context import Interrupted, StageContext
from stages.errors import StageError
from stages.seeds import numpy_generator, torch_generator, torch_seed


@dataclass(frozen=True)
class TaskSplit:
    """Task vectors (tasks, task_dim) f8 of the two roles."""

    train: NDArray[np.float64]
    test: NDArray[np.float64]


def draw_tasks(family: TaskFamily, config: CollectConfig) -> TaskSplit:
    """The training and the test tasks, from the tasks' own seed.

    Raises:
        StageError: a finite family has fewer tasks than are asked for.
    """
    rng = numpy_generator(config.tasks.seed, "tasks", family.spec.name)
    wanted = config.tasks
    finite = family.all_tasks()
    if finite is None:
        if wanted.test_tasks_seen:
            raise StageError(
                f"collect.tasks.test_tasks_seen: {family.spec.name} has infinitely many tasks, "
                "so its test tasks are drawn apart; set it to false"
            )
        drawn = family.sample_tasks(wanted.train + wanted.test, rng)
        return TaskSplit(drawn[: wanted.train], drawn[wanted.train :])
    needed = (
        max(wanted.train, wanted.test) if wanted.test_tasks_seen else wanted.train + wanted.test
    )
    if needed > len(finite):
        raise StageError(
            f"collect.tasks: {family.spec.name} has {len(finite)} tasks, {needed} are asked for"
        )
    shuffled = finite[rng.permutation(len(finite))]
    if wanted.test_tasks_seen:
        return TaskSplit(shuffled[: wanted.train], shuffled[: wanted.test])
    return TaskSplit(shuffled[: wanted.train], shuffled[wanted.train : needed])


def collect(
    config: CollectConfig,
    seed: int,
    inputs: Mapping[str, Path],
    output: Path,
    context: StageContext,
) -> None:
    """Collect every training task's log into `output`: tasks.json, task-NNNN.h5, metrics.csv.

    Raises:
        StageError: the task counts or the behaviour do not fit the family.
        DivergenceError: an agent's loss became NaN or infinite.
        Interrupted: the user asked to stop; checkpoints hold the work so far.
    """
    family = load_family(config.domain)
    split = draw_tasks(family, config)
    groups = [
        GroupJob(config, seed, index, split.train[first : first + config.group_size])
        for index, first in enumerate(range(0, len(split.train), config.group_size))
    ]
    total = sum(job.rounds for job in groups)
    with context.progress(total, "collect", "round") as bar:
        for done in _run_groups(groups, context):
            bar.advance(done)
    _write(config, seed, family, split, groups, output, context)


@dataclass(frozen=True)
class GroupJob:
    """One group of tasks: what a worker needs to collect it."""

    config: CollectConfig
    seed: int
    index: int
    tasks: NDArray[np.float64]

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


def _run_groups(jobs: list[GroupJob], context: StageContext) -> Iterator[int]:
    """Run all groups, yielding rounds as they are done; in processes where that helps."""
    if context.workers <= 1 or len(jobs) == 1 or context.device != "cpu":
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a worker: the bytes must not depend on who computes them
        try:
            for job in jobs:
                yield from run_group(job, context)
        finally:
            torch.set_num_threads(threads)
        return
    spawn = multiprocessing.get_context("spawn")
    stop, counter = spawn.Event(), spawn.Value("q", 0)
    settings = (str(context.checkpoints), context.checkpoint_seconds)
    with ProcessPoolExecutor(
        min(context.workers, len(jobs)), spawn, _start_worker, (stop, counter, *settings)
    ) as pool:
        futures = [pool.submit(_work, job) for job in jobs]
        yield from _watch(futures, counter, stop, context)


def _watch(
    futures: list[Future[None]], counter: Any, stop: Any, context: StageContext
) -> Iterator[int]:
    """Yield the rounds that workers report until all are done, and pass on a wish to stop."""
    seen, pending = 0, set(futures)
    try:
        while pending:
            finished, pending = wait(pending, timeout=0.25)
            yield counter.value - seen
            seen = counter.value
            if context.interrupted:
                stop.set()
            for future in finished:
                future.result()
        yield counter.value - seen
    except BaseException:
        stop.set()
        for future in pending:
            future.cancel()
        raise


_worker: dict[str, Any] = {}


def _start_worker(stop: Any, counter: Any, checkpoints: str, seconds: float) -> None:
    """Set up a worker process: one thread, and the parent's wish to stop."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and tells through `stop`
    torch.set_num_threads(1)
    _worker["counter"] = counter
    _worker["context"] = StageContext(
        Path(checkpoints), quiet=True, checkpoint_seconds=seconds, stop=stop
    )


def _work(job: GroupJob) -> None:
    for done in run_group(job, _worker["context"]):
        with _worker["counter"].get_lock():
            _worker["counter"].value += done


class Group:
    """The state of one group between rounds."""

    def __init__(self, job: GroupJob, device: str) -> None:
        config, spec = job.config, load_family(job.config.domain).spec
        self.job = job
        self.family = load_family(config.domain)
        self.round = 0
        self.history: list[NDArray[np.float64]] = []
        self.starts = numpy_generator(job.seed, "collect", job.index, "starts")
        self.noise = torch_generator(job.seed, "collect", job.index, "actions")
        self.draws = torch_generator(job.seed, "collect", job.index, "batches")
        self.log = ExperienceLog.empty(
            self.family, len(job.tasks), job.trials, config.episodes or spec.episodes
        )
        self.learner: Learner | None = None
        if config.behaviour == "learner":
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
        """Write everything the next round depends on."""
        arrays = self.log.arrays() | {
            "noise": self.noise.get_state().numpy(),
            "draws": self.draws.get_state().numpy(),
            "history": np.array(self.history).reshape(len(self.history), len(self.job.tasks)),
        }
        if self.learner is not None:
            arrays |= {
                f"learner.{k}": v.cpu().numpy() for k, v in self.learner.to_checkpoint().items()
            }
        file.save(arrays, {"round": self.round, "starts": self.starts.bit_generator.state})

    def restore(self, arrays: dict[str, NDArray[Any]], meta: Mapping[str, Any]) -> None:
        """Go on from what `save` wrote."""
        self.round = int(meta["round"])
        self.starts.bit_generator.state = meta["starts"]
        self.noise.set_state(torch.from_numpy(arrays["noise"].copy()))
        self.draws.set_state(torch.from_numpy(arrays["draws"].copy()))
        self.history = list(arrays["history"])
        self.log.restore(arrays)
        if self.learner is not None:
            tensors = {
                k.removeprefix("learner."): torch.from_numpy(v.copy())
                for k, v in arrays.items()
                if k.startswith("learner.")
            }
            self.learner.from_checkpoint(tensors)

    def advance(self) -> None:
        """One round: collect trials on every task, then learn from everything so far."""
        config = self.job.config
        random_round = self.round == 0 and config.random_trials > 0
        trials = config.random_trials if random_round else config.trials_per_iteration
        simulator = group_simulator(self.family, self.job.tasks, trials, config.start)
        actor = self._actor(random_round, trials)
        returns = run_trials(
            self.log, self.family, simulator, trials, actor, self.starts, self._donors(random_round)
        )
        if not np.isfinite(returns).all():
            task = self.job.index * config.group_size + int(
                np.flatnonzero(~np.isfinite(returns))[0]
            )
            raise StageError(
                f"collect: task {task}, round {self.round}: a reward is NaN or infinite"
            )
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

    def _donors(self, random_round: bool) -> torch.Tensor | None:
        share = self.job.config.policy_replaying
        if random_round or not share or len(self.job.tasks) < 2:
            return None
        if self.starts.random() >= share:
            return None
        return derangement(len(self.job.tasks), self.starts)

    def _learn(self, learner: Learner) -> None:
        config = self.job.config
        total: torch.Tensor | None = None
        for _ in range(config.updates_per_iteration):
            metrics = learner.update(self.log.sample(config.batch_size, self.draws))
            for name, value in metrics.items():
                if name.endswith("loss"):
                    total = value if total is None else total + value
        if total is not None and not bool(torch.isfinite(total).all()):
            agent = int(torch.nonzero(~torch.isfinite(total))[0])
            task = self.job.index * config.group_size + agent
            raise DivergenceError(
                f"collect: the loss of task {task}'s agent is NaN or infinite in round "
                f"{self.round}; the checkpoint of an earlier round is kept, "
                "a smaller learning rate may help"
            )


def run_group(job: GroupJob, context: StageContext) -> Iterator[int]:
    """Collect one group, resuming from its checkpoint; yields the rounds done."""
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
        yield 1
        if context.interrupted and not last:
            raise Interrupted


def _write(
    config: CollectConfig,
    seed: int,
    family: TaskFamily,
    split: TaskSplit,
    groups: list[GroupJob],
    output: Path,
    context: StageContext,
) -> None:
    """The finished logs, one file a task, and the learning curves."""
    spec = family.spec
    meta = CollectionMeta(
        family=config.domain,
        tasks_train=split.train,
        tasks_test=split.test,
        start=config.start,
        behaviour=config.learner.rule if config.behaviour == "learner" else config.behaviour,
        episodes=config.episodes or spec.episodes,
        horizon=spec.horizon,
        observation_dim=spec.observation_dim,
        action_dim=spec.action_dim,
        n_actions=spec.n_actions,
        test_tasks_seen=config.tasks.test_tasks_seen,
    )
    write_meta(output, meta)
    curves = []
    with context.progress(len(split.train), "write trials", "task") as bar:
        for job in groups:
            group, stored = Group(job, "cpu"), job.checkpoint(context.checkpoints).load()
            if stored is None:
                raise StageError(f"collect: the checkpoint of group {job.index} is gone; run again")
            group.restore(*stored)
            curves.append(np.array(group.history))
            for row in range(len(job.tasks)):
                index = job.index * config.group_size + row
                write_trials(output, meta, index, group.log.trials(row))
                bar.advance()
    _write_curves(output / "metrics.csv", config, np.concatenate(curves, axis=1))


def _write_curves(path: Path, config: CollectConfig, returns: NDArray[np.float64]) -> None:
    """Mean summed return of a trial by round (rounds, tasks), with the spread over tasks."""
    trials = 0
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "return_mean", "return_p10", "return_median", "return_p90"])
        for index, row in enumerate(returns):
            first = index == 0 and config.random_trials > 0
            trials += config.random_trials if first else config.trials_per_iteration
            quantiles = np.quantile(row, [0.1, 0.5, 0.9])
            writer.writerow([trials, *(f"{x:.6g}" for x in (row.mean(), *quantiles))])
