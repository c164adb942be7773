"""Episodes that the environment ended before H: cut off there for other programs, and filled up.

In trials every episode has H steps: one that has ended stays as it is, terminated to the end. Other
programs write nothing after the step that ends an episode, so that its length tells when it did.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from datasets.errors import DataError
from datasets.trials import BoolArray, Trials

FILLED = "infos/filled"
"""Under this name readers of logs mark, (N, K, H) bool, the steps that an episode did not live.

There the arrays repeat its last row, and what such steps give is for the task family to say.
"""


def lived_steps(trials: Trials, where: str) -> BoolArray:
    """The steps up to each episode's first termination, (N, K, H).

    Raises:
        DataError: an episode does not stay as it was when it ended; names trial and step.
    """
    ended = np.logical_or.accumulate(trials.terminations, axis=2)
    lived = np.ones_like(ended)
    lived[:, :, 1:] = ~ended[:, :, :-1]
    moved = (trials.observations[:, :, 1:] != trials.observations[:, :, :-1]).any(axis=3)
    for trial, episode, step in np.argwhere(~lived & (moved | ~trials.terminations))[:1]:
        raise DataError(
            f"{where}: trial {trial}, step {episode * trials.horizon + step}: "
            "the episode goes on after it has terminated"
        )
    return lived


def check_lengths(
    lengths: npt.NDArray[np.intp],
    terminal: BoolArray,
    horizon: int,
    where: str,
    names: Sequence[str] | None = None,
) -> None:
    """Refuse episodes that do not have H steps and cannot be filled up to have them.

    Args:
        lengths: (episodes,).
        terminal: (episodes,), whether a termination ends them.
        horizon: H.
        where: the file.
        names: what episodes are called; `episode N` otherwise.

    Raises:
        DataError: names the episode, its length and why.
    """
    odd = np.flatnonzero((lengths > horizon) | ((lengths < horizon) & ~terminal))
    for index in odd[:1]:
        name = f"episode {index}" if names is None else names[index]
        if lengths[index] > horizon:
            raise DataError(
                f"{where}: {name} has {lengths[index]} steps, but episodes of the domain have "
                f"{horizon}"
            )
        raise DataError(
            f"{where}: {name} is cut off after {lengths[index]} of the {horizon} steps that "
            "episodes of the domain have; only those that a terminal ends can be shorter, since "
            "nobody knows how others went on"
        )


def held_rows(length: int | npt.NDArray[np.intp], horizon: int) -> npt.NDArray[np.intp]:
    """Rows of episodes whose last row is held to H: (..., H) of lengths (...,)."""
    rows: npt.NDArray[np.intp] = np.minimum(
        np.arange(horizon), np.asarray(length, np.intp)[..., None] - 1
    )
    return rows


def not_lived(length: int | npt.NDArray[np.intp], horizon: int) -> BoolArray:
    """Which steps up to H are beyond the episodes' lengths: (..., H) of (...,)."""
    beyond: BoolArray = np.arange(horizon) >= np.asarray(length)[..., None]
    return beyond
