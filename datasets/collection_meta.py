"""What a folder of trials holds: `tasks.json`, the facts that all its task files share."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from datasets.errors import DataError
from datasets.files import read_json, write_json

Start = Literal["origin", "wide"]
FORMAT_VERSION = 1
META_NAME = "tasks.json"


@dataclass(frozen=True, eq=False)
class CollectionMeta:
    """Which tasks were collected, how, and in which shapes.

    Attributes:
        family: name of the task family.
        tasks_train: (n, task_dim) f8, the tasks of the files, in order.
        tasks_test: (m, task_dim) f8, held out, unless `test_tasks_seen`.
        start: where episodes of the data start.
        behaviour: how actions were chosen, e.g. "sac".
        episodes: K of a trial.
        horizon: H of an episode.
        observation_dim: length of an observation.
        action_dim: length of an action (1 if discrete).
        n_actions: number of discrete actions, None if continuous.
        test_tasks_seen: the protocol evaluates on training tasks on purpose.
        details: whatever else should travel with the data, JSON values only.

    Raises:
        DataError: tasks that are not finite or overlap, counts that are not positive.
    """

    family: str
    tasks_train: npt.NDArray[np.float64]
    tasks_test: npt.NDArray[np.float64]
    start: Start
    behaviour: str
    episodes: int
    horizon: int
    observation_dim: int
    action_dim: int
    n_actions: int | None = None
    test_tasks_seen: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Tasks become read-only f8 arrays; then everything is checked."""
        for name in ("tasks_train", "tasks_test"):
            object.__setattr__(self, name, _as_tasks(getattr(self, name), name))
        for name in ("episodes", "horizon", "observation_dim", "action_dim"):
            _check_count(name, getattr(self, name))
        if self.n_actions is not None:
            _check_count("n_actions", self.n_actions)
        if self.start not in get_args(Start):
            raise DataError(f"start is {self.start!r}; one of {get_args(Start)} is needed")
        if not isinstance(self.details, Mapping):
            raise DataError(f"details is {self.details!r}; named values are needed")
        if not len(self.tasks_train):
            raise DataError("tasks_train is empty; at least one task is needed")
        if len(self.tasks_test) and self.tasks_test.shape[1] != self.tasks_train.shape[1]:
            raise DataError(
                f"tasks_test of shape {self.tasks_test.shape} do not belong to "
                f"tasks_train of shape {self.tasks_train.shape}"
            )
        if not self.test_tasks_seen:
            check_disjoint(self.tasks_train, self.tasks_test)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; floats exact."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values |= {
            "format_version": FORMAT_VERSION,
            "tasks_train": self.tasks_train.tolist(),
            "tasks_test": self.tasks_test.tolist(),
            "details": dict(self.details),
        }
        return values

    @classmethod
    def from_json(cls, values: Any, where: str = META_NAME) -> "CollectionMeta":
        """The inverse of `to_json`.

        Raises:
            DataError: unknown or missing entries, another format version, or bad values.
        """
        if not isinstance(values, dict) or values.get("format_version") != FORMAT_VERSION:
            found = values.get("format_version") if isinstance(values, dict) else values
            raise DataError(f"{where} has format_version {found!r}; {FORMAT_VERSION} is needed")
        names = {f.name for f in fields(cls)}
        given = values.keys() - {"format_version"}
        if given != names:
            raise DataError(
                f"{where} lacks {sorted(names - given)} and has unknown {sorted(given - names)}"
            )
        try:
            return cls(**{name: values[name] for name in names})
        except (DataError, TypeError, ValueError) as error:
            raise DataError(f"{where}: {error}") from error


def write_meta(folder: Path, meta: CollectionMeta) -> None:
    """Write `tasks.json` into a folder of trials, atomically."""
    write_json(folder / META_NAME, meta.to_json())


def read_meta(folder: Path) -> CollectionMeta:
    """Read `tasks.json`.

    Raises:
        DataError: missing, damaged, of another version, or with overlapping task lists.
    """
    path = folder / META_NAME
    return CollectionMeta.from_json(read_json(path), str(path))


def check_disjoint(train: npt.NDArray[np.float64], test: npt.NDArray[np.float64]) -> None:
    """Refuse a test task that is also a training task.

    Raises:
        DataError: names both indices.
    """
    seen = {tuple(task): index for index, task in enumerate(train.tolist())}
    for index, task in enumerate(test.tolist()):
        if tuple(task) in seen:
            raise DataError(
                f"test task {index} is training task {seen[tuple(task)]} ({task}); "
                "hold it out, or set test_tasks_seen to evaluate on training tasks"
            )


def _as_tasks(tasks: Any, name: str) -> npt.NDArray[np.float64]:
    array = np.array(tasks, np.float64)
    if array.size == 0:
        array = array.reshape(0, array.shape[1] if array.ndim == 2 else 0)
    if array.ndim != 2:
        raise DataError(f"{name} of shape {array.shape}, but (tasks, task_dim) is needed")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise DataError(f"{name}: task {int(finite.argmin())} is not finite")
    array.flags.writeable = False
    return array


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DataError(f"{name} is {value!r}; a whole number of at least 1 is needed")
