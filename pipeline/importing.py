"""From a user's files to an artefact of kind `trials`, whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.errors import DataError
from datasets.files import digest_file
from datasets.logs.recognise import find_logs
from datasets.logs.table import TaskTable, read_table
from environments.errors import TaskError
from environments.registry import canonical_domain, family_source, load_family
from pipeline.building import Lease, Recipe, obtain
from pipeline.garbage import sweep
from pipeline.imports import KIND, STAGE, VERSION
from pipeline.store import Store
from stages.errors import StageError
from stages.import_trials import ImportPlan, check_tasks, import_trials, read_logs
from stages.seeds import numpy_generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datasets.logs.source import LoggedTask
    from environments.base import Spec, TaskFamily

_TASK_SEED = 73  # as of collections that do not say otherwise
_ON_CIRCLE = 2e-3  # how far off it a goal of rounded coordinates may lie


@dataclass(frozen=True)
class ImportRequest:
    """What `omrl import` was asked for."""

    paths: tuple[str, ...]
    domain: str
    format: str = "auto"
    episodes: int | None = None  # K; the family's own if None
    table: Path | None = None
    behaviour: str = "imported"
    test_tasks: int = 20
    test_tasks_seen: bool = False
    allow_other_rewards: bool = False
    without_states: bool = False


@dataclass(frozen=True)
class Preparation:
    """A plan and what to say about it."""

    plan: ImportPlan
    family: TaskFamily
    recognised: str
    notes: tuple[str, ...]


def prepare(request: ImportRequest) -> Preparation:
    """Find the logs and settle their tasks; nothing is written.

    Raises:
        DataError: nothing to import, or malformed.
        StageError: tasks that are not known, stand twice, or are not the domain's.
        TaskError: no such domain.
    """
    domain = canonical_domain(request.domain)
    family = load_family(domain)
    spec = family.spec
    logs = find_logs(request.paths, request.format)
    notes: list[str] = []
    table = read_table(request.table, spec.task_names) if request.table is not None else None
    chosen = logs.tasks
    if table is not None:
        chosen = tuple(log for log in logs.tasks if log.name not in table.test_names)
    numbers, told_by = _task_numbers(chosen, table, spec)
    train = np.array(numbers, np.float64)
    if not len(chosen):
        raise StageError(f"{request.table}: every log is of a test task; none is left to train on")
    _check_each(family, train, _told_in(chosen, table))
    check_tasks(family, train, [log.name for log in chosen])
    if told_by == "name":
        notes.append(
            "tasks are read from names, which hold rounded numbers; --tasks takes exact ones"
        )
    seen, test = _test_tasks(request, family, train, table, notes)
    plan = ImportPlan(
        domain=domain,
        format=logs.format,
        tasks=chosen,
        tasks_train=train,
        tasks_test=test,
        told_by=told_by,
        episodes=request.episodes or spec.episodes,
        behaviour=request.behaviour,
        test_tasks_seen=seen,
        allow_other_rewards=request.allow_other_rewards,
        without_states=request.without_states and bool(spec.infos),
    )
    return Preparation(plan, family, logs.sentence, tuple(notes))


def recipe_of(plan: ImportPlan, advance: Callable[[], object] = lambda: None) -> Recipe:
    """What decides the artefact: the logs' contents and how they are read."""
    logs = {}
    digest = cache(digest_file)  # one file may hold many tasks
    for log in plan.tasks:
        digests = [digest(path) for path in log.files]
        logs[log.name] = hashlib.sha256(" ".join(digests).encode()).hexdigest()
        advance()
    config: dict[str, Any] = {
        "domain": plan.domain,
        "format": plan.format,
        "episodes": plan.episodes,
        "behaviour": plan.behaviour,
        "allow_other_rewards": plan.allow_other_rewards,
        "tasks_told_by": plan.told_by,
        "tasks_train": plan.tasks_train.tolist(),
        "tasks_test": plan.tasks_test.tolist(),
        "test_tasks_seen": plan.test_tasks_seen,
        "logs": logs,
    }
    if plan.without_states:  # left out where not asked for: imports of before keep their digests
        config["without_states"] = True
    labels = {"domain": plan.domain}
    source = family_source(plan.domain)
    return Recipe(KIND, STAGE, VERSION, config, 0, labels=labels, source=source)


def carry_out(
    store: Store,
    preparation: Preparation,
    recipe: Recipe,
    advance: Callable[[], object] = lambda: None,
) -> Lease:
    """The trials in the store, found there or made; close the lease when they are on record.

    Raises:
        DataError, StageError: a log is malformed, or changed meanwhile; nothing is left of it.
        DiskFullError: no room; the store is as before.
    """
    plan = preparation.plan

    def make(output: Path) -> None:
        import_trials(plan, preparation.family, output, _calls(advance))
        if recipe_of(plan).fingerprint != recipe.fingerprint:
            raise DataError("the logs changed while they were read; import them again")

    sweep(store)
    return obtain(store, recipe, make)


def try_out(preparation: Preparation, advance: Callable[[], object]) -> list[dict[str, Any]]:
    """What an import would find in each log; nothing is written."""
    found = []
    for _, facts in read_logs(preparation.plan, preparation.family):
        found.append(facts.to_json())
        advance()
    return found


def _calls(function: Callable[[], object]) -> Iterator[object]:
    while True:
        yield function()


def _task_numbers(
    logs: Sequence[LoggedTask], table: TaskTable | None, spec: Spec
) -> tuple[list[tuple[float, ...]], str]:
    """The task vector of each log, and how they are known: the table, else metadata, else names.

    Raises:
        StageError: a log of unknown task, or of one that is not the family's.
    """
    if table is not None:
        for log in logs:
            if log.name not in table.train:
                raise StageError(f"{table.path} has no row for {log.name!r} ({log.files[0]})")
        for name in table.train:
            if name not in {log.name for log in logs}:
                raise StageError(f"{table.path}: there is no log {name!r} among those found")
        return [table.train[log.name] for log in logs], "table"
    numbers = []
    for log in logs:
        if log.numbers is None:
            raise StageError(
                f"{log.name}: neither its metadata nor its name tells its task; give a table of "
                f"tasks: --tasks tasks.csv with the columns name, {', '.join(spec.task_names)}"
            )
        numbers.append(_as_task(log, log.numbers, spec))
    sources = {log.told_by for log in logs}
    return numbers, "name" if "name" in sources else "metadata"


def _as_task(log: LoggedTask, numbers: tuple[float, ...], spec: Spec) -> tuple[float, ...]:
    """A task vector; goals on the unit circle become the angle that is the family's parameter."""
    if len(numbers) == spec.task_dim:
        return numbers
    if spec.task_names == ("goal_angle",) and len(numbers) == 2:
        x, y = numbers
        if abs(np.hypot(x, y) - 1) <= _ON_CIRCLE:
            angle = float(np.arctan2(y, x))
            return (angle + 0.0 if angle >= 0 else angle,)
    raise StageError(
        f"{log.name}: task {list(numbers)} has {len(numbers)} numbers, but {spec.name} needs "
        f"{spec.task_dim}: {', '.join(spec.task_names)}"
    )


def _told_in(logs: Sequence[LoggedTask], table: TaskTable | None) -> list[str]:
    """Where each log's task is told: a line of the table, or the log itself."""
    if table is not None:
        return [table.place(log.name) for log in logs]
    return [f"{log.name} ({log.files[0]})" for log in logs]


def _check_each(family: TaskFamily, tasks: NDArray[np.float64], told_in: Sequence[str]) -> None:
    """Refuse a task that is not the family's.

    Raises:
        StageError: names where it is told.
    """
    for task, place in zip(tasks, told_in, strict=True):
        try:
            family.validate_tasks(task[None])
        except TaskError as error:
            raise StageError(
                f"{place}: {str(error).replace('task 0 is', 'its task is')}"
            ) from error


def _test_tasks(
    request: ImportRequest,
    family: TaskFamily,
    train: NDArray[np.float64],
    table: TaskTable | None,
    notes: list[str],
) -> tuple[bool, NDArray[np.float64]]:
    """Whether test tasks are those trained on, and the test tasks."""
    if request.test_tasks_seen:
        return True, train
    if table is not None and table.test:
        test = np.array(table.test, np.float64)
        _check_each(family, test, table.test_places)
        return False, test
    rng = numpy_generator(_TASK_SEED, "tasks", family.spec.name)
    finite = family.all_tasks()
    if finite is None:  # logs of our own may be of tasks drawn from this very seed
        drawn = family.sample_tasks(len(train) + request.test_tasks, rng)
    else:
        drawn = finite[rng.permutation(len(finite))]
    known = {tuple(task) for task in train.tolist()}
    left = [task for task in drawn.tolist() if tuple(task) not in known][: request.test_tasks]
    if not left:
        notes.append("the logs cover every task of the domain: tests are on tasks trained on")
        return True, train
    notes.append(f"{len(left)} test tasks are drawn from the domain; --tasks may name others")
    return False, np.array(left, np.float64)
