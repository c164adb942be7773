"""Import: logs of other programs become trials, checked against the task family on the way.

Not a stage of a run: its input is a user's own files. What it writes is what `collect` writes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.logs.borel import has_carried_starts
from datasets.logs.source import LoggedTask, Shape
from datasets.trial_store import CollectionMeta, Start, write_meta, write_trials
from datasets.trials import Trials
from environments.base import TaskFamily
from stages.errors import StageError
from stages.logged_trials import fit_log, lacks_states, sim_of, transitions, where_of
from stages.recomputed_rewards import tolerated

ROUNDED_TOLERANCE = 5e-3  # where tasks were read from names of three decimals
ROUNDED_SHARE = 0.02  # of steps that may differ by more there: those at a goal's edge


@dataclass(frozen=True)
class TaskFacts:
    """What was found out about one task's log."""

    name: str
    trials: int
    transitions: int
    episode_return: float  # mean over its episodes
    differing: float | None  # share of steps whose reward the family does not reproduce
    gap: float | None  # largest difference of rewards; None: without states nobody can tell
    carried_starts: bool
    origin: bool  # every episode starts where the family's origin starts do

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return dict(vars(self))


@dataclass(frozen=True)
class ImportPlan:
    """Which logs are to be imported, as which tasks of which family."""

    domain: str
    format: str
    tasks: tuple[LoggedTask, ...]
    tasks_train: NDArray[np.float64]  # (tasks, task_dim)
    tasks_test: NDArray[np.float64]  # (test tasks, task_dim)
    told_by: str  # how tasks are known: "table", "metadata" or "name"
    episodes: int
    behaviour: str
    test_tasks_seen: bool = False
    allow_other_rewards: bool = False
    without_states: bool = False  # whether logs may lack the family's infos

    @property
    def rounded(self) -> bool:
        """Whether the tasks are rounded, since they were read from names."""
        return self.told_by == "name"


def read_logs(plan: ImportPlan, family: TaskFamily) -> Iterator[tuple[Trials, TaskFacts]]:
    """Every task's trials, checked, one at a time.

    Raises:
        DataError: a malformed log; names file, key and what would be right.
        StageError: rewards or ends that are not the family's.
    """
    spec = family.spec
    shape = Shape(
        plan.episodes, spec.horizon, spec.observation_dim, spec.action_dim, spec.n_actions
    )
    for log, task in zip(plan.tasks, plan.tasks_train, strict=True):
        trials = fit_log(log, log.read(shape), family, task, plan.without_states)
        facts = _facts(log, trials, family, task)
        _check_rewards(plan, facts, where_of(log))
        yield trials, facts


def import_trials(
    plan: ImportPlan,
    family: TaskFamily,
    output: Path,
    done: Iterator[object] | None = None,
) -> None:
    """Write the folder of trials: tasks.json, task-NNNN.h5, metrics.csv.

    Args:
        plan: what to import.
        family: of `plan.domain`.
        output: an empty folder.
        done: its next value is asked for after each task, to show progress.

    Raises:
        DataError: as `read_logs`.
        StageError: as `read_logs`.
        DiskFullError: no room.
    """
    draft = _meta(plan, family, "wide", {})
    facts, returns = [], []
    for index, (trials, fact) in enumerate(read_logs(plan, family)):
        write_trials(output, draft, index, trials)
        facts.append(fact)
        returns.append(trials.rewards.sum(axis=(1, 2), dtype=np.float64))
        if done is not None:
            next(done, None)
    start: Start = "origin" if all(fact.origin for fact in facts) else "wide"
    meta = _meta(plan, family, start, details(plan, family, facts))
    if start != draft.start:  # every file says it too
        for index, (trials, _) in enumerate(read_logs(plan, family)):
            write_trials(output, meta, index, trials)
    write_meta(output, meta)
    _write_curves(output / "metrics.csv", returns)


def details(plan: ImportPlan, family: TaskFamily, facts: list[TaskFacts]) -> dict[str, Any]:
    """What `tasks.json` says about where the trials come from, and what they were checked with."""
    return {
        **family.provenance,
        "import": {
            "format": plan.format,
            "tasks_told_by": plan.told_by,
            "tasks_rounded": plan.rounded,
            "logs": [fact.to_json() for fact in facts],
        },
    }


def _facts(
    log: LoggedTask, trials: Trials, family: TaskFamily, task: NDArray[np.float64]
) -> TaskFacts:
    carried = not log.knows_ends and has_carried_starts(trials)
    differing, gap = None, None
    if not lacks_states(trials, family):
        again = family.reward(*transitions(trials), task, sim_of(trials, task))
        gaps = np.abs(again.astype(np.float64) - trials.rewards)
        if carried:  # the recorded observation is not where the step began
            gaps[:, 1:, 0] = 0
        differing, gap = float((gaps > tolerated(trials.rewards)).mean()), float(gaps.max())
    origin = family.simulator(task[None], "origin").reset(np.random.default_rng(0))[0]
    return TaskFacts(
        name=log.name,
        trials=trials.count,
        transitions=trials.rewards.size,
        episode_return=float(trials.rewards.sum(axis=2, dtype=np.float64).mean()),
        differing=differing,
        gap=gap,
        carried_starts=bool(carried),
        origin=bool((trials.observations[:, :, 0] == origin).all()),
    )


def _check_rewards(plan: ImportPlan, facts: TaskFacts, where: str) -> None:
    """Refuse rewards of another task or another reward function.

    Raises:
        StageError: they are, and were not asked for.
    """
    if plan.allow_other_rewards or not facts.differing or facts.gap is None:
        return
    if plan.rounded and (facts.gap <= ROUNDED_TOLERANCE or facts.differing <= ROUNDED_SHARE):
        return
    hint = "tasks are read from names, which are rounded: a table (--tasks) may know them better; "
    raise StageError(
        f"{where}: {plan.domain} gives other rewards than the log's in {facts.differing:.1%} "
        f"of its steps, by up to {facts.gap:.3g}, so relabelled rewards would not fit the others; "
        f"{hint if plan.rounded else ''}check the tasks and the domain, or say "
        "--allow-other-rewards"
    )


def _meta(
    plan: ImportPlan, family: TaskFamily, start: Start, more: dict[str, Any]
) -> CollectionMeta:
    spec = family.spec
    return CollectionMeta(
        family=plan.domain,
        tasks_train=plan.tasks_train,
        tasks_test=plan.tasks_test,
        start=start,
        behaviour=plan.behaviour,
        episodes=plan.episodes,
        horizon=spec.horizon,
        observation_dim=spec.observation_dim,
        action_dim=spec.action_dim,
        n_actions=spec.n_actions,
        test_tasks_seen=plan.test_tasks_seen,
        details=more,
    )


def _write_curves(path: Path, returns: list[NDArray[np.float64]]) -> None:
    """Return of a trial over the log's course, with the spread over tasks, as `collect` has it."""
    shortest = min(map(len, returns))
    table = np.stack([each[:shortest] for each in returns], axis=1)  # (trials, tasks)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "return_mean", "return_p10", "return_median", "return_p90"])
        for index, row in enumerate(table):
            quantiles = np.quantile(row, [0.1, 0.5, 0.9])
            writer.writerow([index + 1, *(f"{x:.6g}" for x in (row.mean(), *quantiles))])


def check_tasks(family: TaskFamily, tasks: NDArray[np.float64], names: list[str]) -> None:
    """Refuse two logs of one task.

    Raises:
        StageError: names both logs.
    """
    family.validate_tasks(tasks)
    seen: dict[tuple[float, ...], str] = {}
    for name, task in zip(names, tasks.tolist(), strict=True):
        other = seen.setdefault(tuple(task), name)
        if other != name:
            raise StageError(
                f"{other} and {name} are of one task, {task}: put their logs together, or tell "
                "their tasks apart in a table (--tasks)"
            )
