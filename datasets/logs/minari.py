"""Minari data sets on this machine, read without Minari: one HDF5 group an episode.

An episode's task stands in the attribute `task` of its group, which is Minari's episode metadata,
or in `infos/task`. Data sets without either are of one task each. Only flat observations and
actions are read, and only Minari's HDF5 storage.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from datasets.early_ends import FILLED, check_lengths, held_rows, not_lived
from datasets.errors import DataError
from datasets.flat_hdf5 import AnyArray, FlatFile, open_flat
from datasets.logs.names import numbers_in
from datasets.logs.source import LoggedTask, Shape, ToldBy, as_actions, check_folds, natural
from datasets.trials import Trials

MAIN_FILE = "main_data.hdf5"
_ARRAYS = ("observations", "actions", "rewards", "terminations", "truncations")
_ID = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*-v[0-9]+", re.ASCII)
_VERSION = re.compile(r"-v[0-9]+$")


def minari_folder(text: str) -> Path | None:
    """The folder of a data set's id in Minari's own place, or None if `text` is none or not there.

    That is `MINARI_DATASETS_PATH`, or `.minari/datasets` in the user's home.
    """
    if not _ID.fullmatch(text):
        return None
    root = os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets"
    folder = Path(root, text)
    return folder if folder.is_dir() else None


def main_file(folder: Path) -> Path | None:
    """The file that a data set's folder keeps its episodes in, or None if it is no data set."""
    for path in (folder / "data" / MAIN_FILE, folder / MAIN_FILE):
        if path.is_file():
            return path
    return None


def data_sets(folder: Path) -> list[Path]:
    """The folder if it is a data set, else the data sets below it, at most three folders deep."""
    if main_file(folder) is not None:
        return [folder]
    below = [p for depth in ("*", "*/*", "*/*/*") for p in folder.glob(depth) if p.is_dir()]
    found = [p for p in below if p.name != "data" and main_file(p) is not None]
    return sorted(found, key=lambda p: natural(p.as_posix()))


def minari_tasks(folder: Path) -> Iterator[LoggedTask]:
    """The tasks of one data set.

    Raises:
        DataError: no such data set, or one that is not of plain arrays.
    """
    path = main_file(folder)
    if path is None:
        raise DataError(
            f"{folder} has no data/{MAIN_FILE}; a Minari data set in HDF5 storage is needed"
        )
    with open_flat(path) as file:
        groups = _episodes(file)
        told = [_task(file, group) for group in groups]
    if all(task is None for task in told):
        stem = _VERSION.sub("", folder.name)
        numbers = numbers_in(stem)
        how: ToldBy | None = "name" if numbers is not None else None
        yield LoggedTask(folder.name, (path,), numbers, how, partial(_read, path, groups))
        return
    by_task: dict[tuple[float, ...], list[str]] = {}
    for group, task in zip(groups, told, strict=True):
        if task is None:
            raise DataError(f"{path}: {group} has no task, but {groups[told.index(None) - 1]} has")
        by_task.setdefault(task, []).append(group)
    for place, (numbers, chosen) in enumerate(by_task.items()):
        name = folder.name if len(by_task) == 1 else f"{folder.name}[{place}]"
        yield LoggedTask(name, (path,), numbers, "metadata", partial(_read, path, chosen))


def _episodes(file: FlatFile) -> list[str]:
    """The groups of all episodes, in order."""
    groups = {name.partition("/")[0] for name in file.names}
    found = sorted((g for g in groups if re.fullmatch("episode_[0-9]+", g)), key=natural)
    if not found:
        raise DataError(f"{file.path} has no group episode_0, only {sorted(groups)[:5]}")
    return found


def _task(file: FlatFile, group: str) -> tuple[float, ...] | None:
    """The numbers of an episode's task, where it has any."""
    value = file.attributes_of(group).get("task")
    if value is None and f"{group}/infos/task" in file.names:
        rows = file.read(f"{group}/infos/task")
        if rows.ndim and len(rows):
            if (rows != rows[:1]).any():
                raise DataError(f"{file.path}: {group}/infos/task changes along the episode")
            value = rows[0]
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or array.ndim > 1:
        raise DataError(f"{file.path}: task of {group} is {value!r}, but numbers are needed")
    return tuple(float(x) for x in array.reshape(-1))


def _read(path: Path, groups: Sequence[str], shape: Shape) -> Trials:
    check_folds(len(groups), shape.episodes, str(path))
    with open_flat(path, groups) as file:  # only these: a file may hold every task's
        below = _below(file)
        first = _episode(file, groups[0], below)
        gathered: dict[str, list[AnyArray]] = {name: [] for name in first}
        for group in groups:
            episode = _episode(file, group, below)
            for name in gathered:
                if name not in episode:
                    raise DataError(f"{path}: {group} has no {name}, but {groups[0]} has")
                if episode[name].shape[1:] != first[name].shape[1:]:
                    raise DataError(
                        f"{path}: {group}/{name} of shape {episode[name].shape}, but "
                        f"{first[name].shape} in {groups[0]}"
                    )
                gathered[name].append(episode[name])
    _fill_up(gathered, groups, shape.horizon, path)
    stacked = {name: np.stack(parts) for name, parts in gathered.items()}
    folded = {
        name: array.reshape(-1, shape.episodes, *array.shape[1:]) for name, array in stacked.items()
    }
    folded["actions"] = as_actions(folded["actions"], shape, str(path))
    return Trials.from_arrays(folded)


def _fill_up(
    gathered: dict[str, list[AnyArray]], groups: Sequence[str], horizon: int, path: Path
) -> None:
    """Hold the last row of episodes that a termination ended to H, in place; and mark where."""
    lengths = np.array([len(rewards) for rewards in gathered["rewards"]])
    terminal = np.array([ends[-1] for ends in gathered["terminations"]])
    check_lengths(lengths, terminal, horizon, str(path), groups)
    if (lengths == horizon).all():
        return
    for place, length in enumerate(lengths):
        for name, arrays in gathered.items():
            steps = 1 if name == "observations" else 0
            arrays[place] = arrays[place][held_rows(length + steps, horizon + steps)]
        if length < horizon:  # at H all episodes end
            gathered["truncations"][place] = np.arange(horizon) == horizon - 1
    gathered[FILLED] = list(not_lived(lengths, horizon))


def _below(file: FlatFile) -> dict[str, list[str]]:
    """The data sets of every episode, by its group."""
    found: dict[str, list[str]] = {}
    for name in file.names:
        group, _, rest = name.partition("/")
        found.setdefault(group, []).append(rest)
    return found


def _episode(file: FlatFile, group: str, below: Mapping[str, Sequence[str]]) -> dict[str, AnyArray]:
    """One episode's arrays under the names of `Trials`."""
    names = below.get(group, ())
    arrays: dict[str, AnyArray] = {}
    for name in _ARRAYS:
        if name not in names:
            nested = any(other.startswith(f"{name}/") for other in names)
            why = "is a group, but flat arrays are needed" if nested else "is missing"
            raise DataError(f"{file.path}: {group}/{name} {why}")
        arrays[name] = file.read(f"{group}/{name}")
    steps = len(arrays["rewards"].reshape(-1))
    for name, array in arrays.items():
        wanted = steps + (name == "observations")
        if not array.ndim or len(array) != wanted or not steps:
            raise DataError(
                f"{file.path}: {group}/{name} of shape {array.shape}, but {wanted} rows are needed"
            )
    flat = {name: array.reshape(len(array), -1) for name, array in arrays.items()}
    found: dict[str, AnyArray] = {
        "observations": flat["observations"].astype(np.float32),
        "actions": flat["actions"],
        "rewards": flat["rewards"][:, 0].astype(np.float32),
        "terminations": flat["terminations"][:, 0].astype(bool),
        "truncations": flat["truncations"][:, 0].astype(bool),
    }
    for name in sorted(n for n in names if n.startswith("infos/") and n != "infos/task"):
        info = file.read(f"{group}/{name}")
        if info.ndim and len(info) in (steps, steps + 1):  # with the reset's, as Minari collects
            found[name] = info[-steps:]
    found.pop(FILLED, None)
    return found
