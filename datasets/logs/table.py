"""A table of tasks, `tasks.csv`: which log is of which task, and which tasks are held out.

    name,goal_x,goal_y,role
    seed_0_goal_1.0_0.0,1,0,train
    ,0.5,0.5,test

A column `name`, one for each of the family's task parameters, and maybe `role`. A task for tests
needs no log, and if it has one that is not imported.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets.errors import DataError

_ROLES = ("train", "test")
_MOST_BYTES = 1 << 24


@dataclass(frozen=True)
class TaskTable:
    """Numbers by log name, of the tasks to train on; and of those to test on."""

    path: Path
    train: dict[str, tuple[float, ...]]
    test: tuple[tuple[float, ...], ...]
    test_names: frozenset[str]
    lines: tuple[int, ...] = field(default=(), compare=False)  # of the tasks to train on
    test_lines: tuple[int, ...] = field(default=(), compare=False)

    def place(self, name: str) -> str:
        """File and line of a log's task."""
        return f"{self.path}, line {self.lines[list(self.train).index(name)]}"

    @property
    def test_places(self) -> list[str]:
        """File and line of each task to test on."""
        return [f"{self.path}, line {line}" for line in self.test_lines]


def read_table(path: Path, task_names: Sequence[str]) -> TaskTable:
    """Read a table.

    Raises:
        DataError: missing or not such a table; names file, line and what would be right.
    """
    wanted = ["name", *task_names]
    train: dict[str, tuple[float, ...]] = {}
    test: list[tuple[float, ...]] = []
    test_names: set[str] = set()
    lines: dict[str, list[int]] = {role: [] for role in _ROLES}
    for number, row in _rows(path, wanted):
        where = f"{path}, line {number}"
        role = (row.get("role") or "train").strip()
        if role not in _ROLES:
            raise DataError(f"{where}: role is {role!r}; train or test is needed")
        numbers = tuple(_number(row[name], name, where) for name in task_names)
        name = (row["name"] or "").strip()
        if role == "test":
            test.append(numbers)
            test_names |= {name} if name else set()
        elif not name:
            raise DataError(f"{where}: a task for training needs the name of its log")
        elif name in train:
            raise DataError(f"{where}: {name!r} stands twice")
        else:
            train[name] = numbers
        lines[role].append(number)
    return TaskTable(
        path,
        train,
        tuple(test),
        frozenset(test_names),
        tuple(lines["train"]),
        tuple(lines["test"]),
    )


def write_table(path: Path, task_names: Sequence[str], table: TaskTable) -> None:
    """Write a table that `read_table` reads, numbers exact."""
    lines = [[name, *map(repr, numbers), "train"] for name, numbers in table.train.items()]
    lines += [["", *map(repr, numbers), "test"] for numbers in table.test]
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([["name", *task_names, "role"], *lines])


def _rows(path: Path, wanted: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    if not path.is_file():
        raise DataError(f"{path} is missing")
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(f"{path} is larger than a table of tasks can be")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            header = [name.strip() for name in reader.fieldnames or []]
            if sorted(n for n in header if n != "role") != sorted(wanted):
                raise DataError(
                    f"{path} has the columns {', '.join(header)}; {', '.join(wanted)} and maybe "
                    "role are needed"
                )
            reader.fieldnames = header
            rows = [(reader.line_num, row) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a table in CSV: {error}") from error
    for number, row in rows:
        if None in row or None in row.values():
            raise DataError(f"{path}, line {number}: {len(header)} values are needed")
    return rows


def _number(text: str, name: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {name} is {text!r}; a finite number is needed")
    return value
