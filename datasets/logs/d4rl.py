"""D4RL files as logs: one file a task, or one file of many tasks with a column that tells them.

A task's numbers stand in the file's attribute `task` (omrl writes it), in `metadata/task`, or in a
column, `infos/task` or `infos/goal`, that is constant along every episode.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datasets.d4rl import read_rewards, read_unchecked
from datasets.errors import DataError
from datasets.flat_hdf5 import AnyArray, FlatFile, open_flat
from datasets.logs.names import numbers_in
from datasets.logs.source import LoggedTask, Shape, ToldBy, as_actions
from datasets.trials import Trials

SUFFIXES = (".h5", ".hdf5")
_COLUMNS = ("infos/task", "infos/goal")
_NEEDED = ("observations", "actions", "rewards", "terminals")
_MOST_TASKS = 10_000


def d4rl_tasks(path: Path) -> Iterator[LoggedTask]:
    """The tasks of one file.

    Raises:
        DataError: not such a file; a column of tasks that is not one.
    """
    with open_flat(path) as file:
        for name in _NEEDED:
            if name not in file.names:
                raise DataError(f"{path} has no data set {name!r}, only {sorted(file.names)}")
        numbers, told_by = _whole(file)
        column = next((name for name in _COLUMNS if name in file.names), None)
        if numbers is None and column is not None:
            yield from _split(path, column, file.read(column), len(read_rewards(file)))
            return
    if numbers is None:
        numbers = numbers_in(path.stem)
        told_by = "name" if numbers is not None else None
    yield LoggedTask(path.stem, (path,), numbers, told_by, partial(_read, path, None))


def _whole(file: FlatFile) -> tuple[tuple[float, ...] | None, ToldBy | None]:
    """The numbers that hold for a whole file."""
    found = file.attributes.get("task")
    if found is None and "metadata/task" in file.names:
        found = file.read("metadata/task")
    if found is None:
        return None, None
    array = np.asarray(found)
    if array.dtype.kind not in "iuf" or array.ndim > 1:
        raise DataError(f"{file.path}: task is {found!r}, but numbers are needed")
    return tuple(float(x) for x in array.reshape(-1)), "metadata"


def _split(path: Path, column: str, values: AnyArray, rows: int) -> Iterator[LoggedTask]:
    """One log for each distinct row of a column, in the order in which they first occur."""
    if len(values) != rows or values.ndim > 2:
        raise DataError(f"{path}: {column} of shape {values.shape}, but ({rows}, task) is needed")
    wide = values.reshape(rows, -1).astype(np.float64)
    distinct, first, inverse = np.unique(wide, axis=0, return_index=True, return_inverse=True)
    if len(distinct) > _MOST_TASKS:
        raise DataError(
            f"{path}: {column} takes {len(distinct)} values, too many to be tasks; "
            "leave that column out"
        )
    for place, index in enumerate(np.argsort(first)):
        numbers = tuple(float(x) for x in distinct[index])
        mask = inverse.reshape(-1) == index
        name = f"{path.stem}[{place}]"
        yield LoggedTask(name, (path,), numbers, "metadata", partial(_read, path, mask))


def _read(path: Path, rows: npt.NDArray[np.bool_] | None, shape: Shape) -> Trials:
    trials = read_unchecked(path, shape.episodes, rows, shape.horizon)
    arrays = dict(trials.arrays)
    arrays["actions"] = as_actions(trials.actions, shape, str(path))
    for name in _COLUMNS:
        arrays.pop(name, None)
    return Trials.from_arrays(arrays)
