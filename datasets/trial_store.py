"""A folder of trials on disk: `tasks.json` and one D4RL-layout HDF5 file a training task.

A file holds N*K*H rows, trial after trial, under D4RL's flat names (`observations`,
`next_observations`, `actions`, `rewards`, `terminals`, `timeouts`, `infos/*`), so that D4RL readers
work; its attributes say which task it is and how rows fold back into (N, K, H).
"""

from pathlib import Path
from typing import Any

import numpy as np

from datasets.collection_meta import (
    FORMAT_VERSION,
    META_NAME,
    CollectionMeta,
    Start,
    read_meta,
    write_meta,
)
from datasets.errors import DataError
from datasets.files import fail_point
from datasets.flat_hdf5 import AnyArray, FlatFile, open_flat, write_flat
from datasets.trials import Trials

__all__ = [
    "META_NAME",
    "CollectionMeta",
    "Start",
    "missing_tasks",
    "read_meta",
    "read_trials",
    "task_path",
    "write_meta",
    "write_trials",
]


def task_path(folder: Path, task_index: int) -> Path:
    """The file of one training task."""
    return folder / f"task-{task_index:04d}.h5"


def missing_tasks(folder: Path, meta: CollectionMeta) -> list[int]:
    """Training tasks whose file is not there yet, so that a rerun fills only those."""
    return [i for i in range(len(meta.tasks_train)) if not task_path(folder, i).is_file()]


def write_trials(folder: Path, meta: CollectionMeta, task_index: int, trials: Trials) -> None:
    """Write all trials of one training task, atomically; equal trials give equal bytes.

    Args:
        folder: exists; `tasks.json` is written by `write_meta`.
        meta: what the folder holds; the trials must have its shapes.
        task_index: index into `meta.tasks_train`.
        trials: (N, K, H) trials of that task, any N >= 1.

    Raises:
        DataError: wrong shapes or types, NaN or Inf, actions out of bounds; names trial and step.
        DiskFullError: no room; files written earlier are untouched.
    """
    _check(trials, meta, task_index, f"task {task_index}")
    fail_point("trials-before")
    write_flat(
        task_path(folder, task_index), to_rows(trials), _attributes(meta, task_index, trials.count)
    )
    fail_point("trials-written")


def read_trials(folder: Path, task_index: int, meta: CollectionMeta | None = None) -> Trials:
    """Read and verify all trials of one training task.

    Args:
        folder: a folder of trials.
        task_index: index into the training tasks.
        meta: `read_meta(folder)`, if it is at hand.

    Raises:
        DataError: missing, damaged, another task's file, or contents that `write_trials` refuses.
    """
    meta = read_meta(folder) if meta is None else meta
    _check_index(meta, task_index)
    path = task_path(folder, task_index)
    with open_flat(path) as file:
        count = file.attributes.get("trials")
        expected = _attributes(meta, task_index, count)
        for name, value in expected.items():
            found = file.attributes.get(name)
            if not np.array_equal(found, value):  # type: ignore[arg-type]
                raise DataError(f"{path}: {name} is {found!r}, but {value!r} is needed")
        trials = from_rows(file, meta.episodes, meta.horizon)
    if trials.count != count:
        raise DataError(f"{path} holds {trials.count} trials, but says {count}")
    _check(trials, meta, task_index, f"{path}: task {task_index}")
    return trials


def to_rows(trials: Trials) -> dict[str, AnyArray]:
    """D4RL's flat arrays of N*K*H rows, in the order trial, episode, step."""

    def rows(array: AnyArray) -> AnyArray:
        return array.reshape(-1, *array.shape[3:])

    return {
        "observations": rows(trials.observations[:, :, :-1]),
        "next_observations": rows(trials.next_observations),
        "actions": rows(trials.actions),
        "rewards": rows(trials.rewards),
        "terminals": rows(trials.terminations),
        "timeouts": rows(trials.truncations),
    } | {f"infos/{name}": rows(array) for name, array in trials.infos.items()}


def from_rows(file: FlatFile, episodes: int, horizon: int) -> Trials:
    """Fold a file's rows back into (N, K, H), every episode with its own last observation.

    Raises:
        DataError: row counts that differ or do not fold, data sets that do not belong there, or
            next observations that are not the observations of the following step.
    """
    steps = episodes * horizon
    needed = {"observations", "next_observations", "actions", "rewards", "terminals", "timeouts"}
    names = {name for name in file.names if not name.startswith("infos/")}
    if names != needed:
        raise DataError(f"{file.path} has data sets {sorted(names)}, but needs {sorted(needed)}")
    total = file.shape("rewards")[0]
    for name in sorted(file.names):
        if file.shape(name)[:1] != (total,) or total % steps or not total:
            raise DataError(
                f"{file.path}: {name} of shape {file.shape(name)}, but rewards have {total} rows "
                f"and a trial has {episodes}*{horizon}"
            )

    def folded(name: str) -> Any:
        array = file.read(name)
        return array.reshape(-1, episodes, horizon, *array.shape[1:])

    return Trials(
        join_observations(folded("observations"), folded("next_observations"), str(file.path)),
        folded("actions"),
        folded("rewards"),
        folded("terminals"),
        folded("timeouts"),
        {n.removeprefix("infos/"): folded(n) for n in sorted(file.names) if n.startswith("infos/")},
    )


def join_observations(before: AnyArray, after: AnyArray, where: str) -> AnyArray:
    """(N, K, H, obs) observations and next observations as (N, K, H+1, obs).

    Raises:
        DataError: inside an episode, a next observation is not the following step's observation.
    """
    if before.shape != after.shape:
        raise DataError(
            f"{where}: observations of shape {before.shape}, next_observations of {after.shape}"
        )
    inner, following = after[:, :, :-1], before[:, :, 1:]
    if not np.array_equal(inner, following):
        odd = np.argwhere((inner != following) & ~np.isnan(following))  # NaN: validate tells
        for trial, episode, step, *_ in odd[:1]:
            raise DataError(
                f"{where}: trial {trial}, step {episode * before.shape[2] + step}: "
                "the next observation is not the observation of the following step"
            )
    return np.concatenate([before, after[:, :, -1:]], axis=2)


def _check_index(meta: CollectionMeta, task_index: int) -> None:
    if not 0 <= task_index < len(meta.tasks_train):
        raise DataError(f"task {task_index} is not one of the {len(meta.tasks_train)} tasks")


def _attributes(meta: CollectionMeta, task_index: int, count: Any) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "family": meta.family,
        "task": meta.tasks_train[task_index],
        "task_index": task_index,
        "trials": count,
        "episodes": meta.episodes,
        "horizon": meta.horizon,
        "start": meta.start,
        "behaviour": meta.behaviour,
    }


def _check(trials: Trials, meta: CollectionMeta, task_index: int, where: str) -> None:
    """What `Trials.validate` checks, and that task and shapes are the collection's."""
    _check_index(meta, task_index)
    trials.validate(where, meta.n_actions)
    shapes = {
        "(K, H)": ((trials.episodes, trials.horizon), (meta.episodes, meta.horizon)),
        "observation": (trials.observations.shape[3:], (meta.observation_dim,)),
        "action": (trials.actions.shape[3:], (meta.action_dim,)),
    }
    for name, (found, wanted) in shapes.items():
        if found != wanted:
            raise DataError(f"{where}: {name} of shape {found}, but {wanted} is needed")
    if meta.n_actions is None and trials.actions.dtype.kind == "i":
        raise DataError(f"{where}: actions are {trials.actions.dtype}, but float32 is needed")
