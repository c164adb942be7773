"""Stage 1, collect: an ordinary agent a task learns it; its whole experience is the data set.

The tasks are split into groups of a configured size; a group is one batched network on one batched
simulator and lives in one process, so the bytes depend on the grouping and not on the number of
workers. A group's state (agents, log, random states) is checkpointed as a whole between rounds of
collection; the HDF5 files are written once, from the finished logs, so that no crash can leave a
torn file behind. Simulators and logs are the CPU's; agents live on the context's device, which pays
where their networks are wide and a group has many tasks.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.trial_store import CollectionMeta, write_meta, write_trials
from environments.base import TaskFamily
from environments.registry import load_family
from stages.collect_groups import GroupJob, finished_group, run_group, split_groups
from stages.config import CollectConfig, TasksConfig
from stages.context import StageContext
from stages.errors import StageError
from stages.seeds import numpy_generator
from stages.workers import run_jobs


@dataclass(frozen=True)
class TaskSplit:
    """Task vectors (tasks, task_dim) f8 of the two roles."""

    train: NDArray[np.float64]
    test: NDArray[np.float64]


def draw_tasks(family: TaskFamily, config: CollectConfig) -> TaskSplit:
    """The training and the test tasks, from the tasks' own seed.

    Raises:
        StageError: the counts do not fit the family.
    """
    rng = numpy_generator(config.tasks.seed, "tasks", family.spec.name)
    if config.tasks.split is not None:
        return _named_split(family, config.tasks)
    train, test, seen = config.tasks.train, config.tasks.test, config.tasks.test_tasks_seen
    finite = family.all_tasks()
    if text := config.tasks.misfit(family.spec.name, finite):
        raise StageError(f"collect.tasks {text}")
    if finite is None:
        drawn = family.sample_tasks(train + test, rng)
        return TaskSplit(drawn[:train], drawn[train:])
    shuffled = finite[rng.permutation(len(finite))]
    return TaskSplit(shuffled[:train], shuffled[:test] if seen else shuffled[train : train + test])


def _named_split(family: TaskFamily, config: TasksConfig) -> TaskSplit:
    assert config.split is not None
    train, test = family.split(config.split, config.seed)
    for role, wanted, found in (("train", config.train, train), ("test", config.test, test)):
        if wanted > len(found):
            raise StageError(
                f"collect.tasks.{role} is {wanted}, but split {config.split!r} of "
                f"{family.spec.name} has {len(found)} tasks to {role}"
            )
    return TaskSplit(train[: config.train], test[: config.test])


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
        AlgorithmError: the learner does not fit the family.
        DataError: a reward or an observation is NaN or infinite; names task, trial and step.
        DivergenceError: an agent's loss became NaN or infinite.
        Interrupted: the user asked to stop; checkpoints hold the work so far.
        ChildProcessError: a worker process was killed; checkpoints hold the work so far.
    """
    family = load_family(config.domain)
    split = draw_tasks(family, config)
    jobs = split_groups(config, seed, split.train)
    _check(config, jobs, family)
    with context.progress(sum(job.rounds for job in jobs), "collect", "round") as bar:
        for done in run_jobs("collect", run_group, jobs, context):
            bar.advance(done)
    _write(config, family, split, jobs, output, context)


def _check(config: CollectConfig, jobs: list[GroupJob], family: TaskFamily) -> None:
    """Refuse settings that would collect nothing, or other than they say."""
    if config.behaviour == "scripted" and not family.has_oracle:
        raise StageError(
            f"collect.behaviour is scripted, but {family.spec.name} has no scripted policy; "
            "choose learner or random"
        )
    if text := config.sharing_misfit(family.spec):
        raise StageError(f"collect.shared_experience {text}")
    if not jobs[0].trials:
        raise StageError(
            "collect: random_trials and iterations are both 0, so there is nothing to collect"
        )
    alone = [job for job in jobs if len(job.tasks) == 1]
    if config.policy_replaying and alone:
        raise StageError(
            f"collect.policy_replaying needs another task's agent, but task {alone[0].first_task} "
            f"is alone in its group; choose a collect.group_size that does not leave one of "
            f"{config.tasks.train} tasks over"
        )


def _write(
    config: CollectConfig,
    family: TaskFamily,
    split: TaskSplit,
    jobs: list[GroupJob],
    output: Path,
    context: StageContext,
) -> None:
    """The finished logs, one file a task, and the learning curves."""
    meta = _meta(config, family, split)
    write_meta(output, meta)
    curves = []
    with context.progress(len(split.train), "write trials", "task") as bar:
        for job in jobs:
            log, returns = finished_group(job, family, context.checkpoints)
            curves.append(returns)
            for row in range(len(job.tasks)):
                write_trials(output, meta, job.first_task + row, log.trials(row))
                bar.advance()
    _write_curves(output / "metrics.csv", config, np.concatenate(curves, axis=1))


def _meta(config: CollectConfig, family: TaskFamily, split: TaskSplit) -> CollectionMeta:
    """What the folder says of itself."""
    spec = family.spec
    return CollectionMeta(
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
        details=_details(config, family),
    )


def _details(config: CollectConfig, family: TaskFamily) -> dict[str, Any]:
    """What else a reader must know to use the data: versions of simulators, split and noise."""
    details: dict[str, Any] = dict(family.provenance)
    if config.tasks.split is not None:
        details |= {"split": config.tasks.split, "task_seed": config.tasks.seed}
    if details and config.behaviour == "scripted":
        details["scripted_noise"] = config.scripted_noise
    return details


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
