"""What every reader of logs gives: tasks with names, their numbers if known, and a way to read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from datasets.errors import DataError
from datasets.flat_hdf5 import AnyArray
from datasets.trials import Trials

Format = Literal["d4rl", "minari", "borel", "idaq"]
ToldBy = Literal["table", "metadata", "name"]


@dataclass(frozen=True)
class Shape:
    """What logs must have, or are folded by: of the task family, but for the episodes."""

    episodes: int  # K of a trial
    horizon: int  # H of an episode
    observation_dim: int
    action_dim: int
    n_actions: int | None = None


@dataclass(frozen=True)
class LoggedTask:
    """The log of one task.

    Attributes:
        name: of its file or folder, by which a table of tasks knows it.
        files: all that is read.
        numbers: the task's parameters, where the log tells them.
        told_by: where it tells them: "metadata" or "name".
        read: its trials; `Shape` says how arrays without episode ends are folded.
        knows_ends: whether its `terminations` are the environment's own; else they are all False.
    """

    name: str
    files: tuple[Path, ...]
    numbers: tuple[float, ...] | None
    told_by: ToldBy | None
    read: Callable[[Shape], Trials]
    knows_ends: bool = True


def natural(name: str) -> tuple[object, ...]:
    """A sort key that puts `goal_idx2` before `goal_idx10`."""
    runs: list[list[str]] = []
    for character in name:
        if runs and runs[-1][-1].isdigit() == character.isdigit():
            runs[-1].append(character)
        else:
            runs.append([character])
    words = ["".join(run) for run in runs]
    return tuple((word.isdecimal(), int(word) if word.isdecimal() else word) for word in words)


def check_folds(count: int, episodes: int, where: str) -> None:
    """Refuse a number of episodes that does not make whole trials.

    Raises:
        DataError: names the numbers that would.
    """
    if not count:
        raise DataError(f"{where} holds no whole episode")
    if count % episodes:
        fitting = [k for k in range(1, min(count, 20) + 1) if count % k == 0]
        raise DataError(
            f"{where}: {count} episodes do not make trials of {episodes}; "
            f"--episodes {', '.join(map(str, fitting))} would divide them"
        )


def as_actions(actions: AnyArray, shape: Shape, where: str) -> AnyArray:
    """Actions (..., act) f4, or (..., 1) int64 where they are discrete; one-hot rows are decoded.

    Raises:
        DataError: discrete actions that are neither whole numbers nor one-hot.
    """
    if shape.n_actions is None:
        return actions.astype(np.float32)
    width = actions.shape[-1]
    if width == shape.n_actions and width > 1:
        if not (np.isin(actions, (0, 1)).all() and (actions.sum(axis=-1) == 1).all()):
            raise DataError(f"{where}: actions of width {width} are not one-hot")
        decoded: AnyArray = actions.argmax(axis=-1)[..., None].astype(np.int64)
        return decoded
    whole: AnyArray = actions.astype(np.int64)
    if not np.array_equal(whole, actions):
        raise DataError(
            f"{where}: actions are not whole numbers, but the domain has {shape.n_actions} "
            "discrete actions"
        )
    return whole
