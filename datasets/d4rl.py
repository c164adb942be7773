"""A bridge to any file in D4RL's layout, without D4RL: one flat HDF5 file to trials, and back.

D4RL's rows are transitions in the order they were lived; an episode ends where `terminals` or
`timeouts` is true. Trials have episodes of one length, so files with episodes of several lengths
are refused. `metadata/*` is ignored.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datasets.errors import DataError
from datasets.flat_hdf5 import AnyArray, FlatFile, open_flat, write_flat
from datasets.trial_store import join_observations, to_rows
from datasets.trials import Trials


def write_d4rl(path: Path, trials: Trials, attributes: Mapping[str, Any] | None = None) -> None:
    """Write trials as one D4RL-layout file, atomically.

    Args:
        path: the file.
        trials: every episode must end in a termination or a truncation, or readers of the
            layout could not tell episodes apart.
        attributes: further facts for the file's HDF5 attributes, which D4RL ignores.

    Raises:
        DataError: as `Trials.validate`; an episode that does not end at its last step only.
        DiskFullError: no room.
    """
    trials.validate(str(path))
    ends = trials.terminations | trials.truncations
    expected = np.zeros_like(ends)
    expected[:, :, -1] = True
    odd = np.argwhere(ends != expected)
    if len(odd):
        trial, episode, step = odd[0]
        raise DataError(
            f"{path}: trial {trial}, step {episode * trials.horizon + step}: "
            "an episode must end (terminate or be truncated) at its last step and only there"
        )
    write_flat(path, to_rows(trials), attributes or {})


def read_d4rl(path: Path, episodes: int = 1, rows: npt.NDArray[np.bool_] | None = None) -> Trials:
    """Read a D4RL-layout file: `episodes` successive episodes make one trial.

    Rows after the last end of an episode are an unfinished episode and left out. Without
    `next_observations` in the file, an episode's last transition has no next observation, and is
    left out too, as D4RL's own loader does.

    Args:
        path: the file.
        episodes: K.
        rows: which rows count, (rows of the file,); all if None.

    Raises:
        DataError: not such a file, or damaged; episodes of several lengths, naming two; a number
            of episodes that K does not divide; contents that `Trials.validate` refuses.
    """
    return read_unchecked(path, episodes, rows).validate(str(path))


def read_unchecked(
    path: Path, episodes: int = 1, rows: npt.NDArray[np.bool_] | None = None
) -> Trials:
    """`read_d4rl` without `Trials.validate`: discrete actions may still be floats."""
    chosen: slice | npt.NDArray[np.bool_] = slice(None) if rows is None else rows
    with open_flat(path) as file:
        rewards = file.read("rewards").reshape(-1)
        total = len(rewards)
        ends = _ends(file, total, chosen)
        rewards = rewards[chosen]
        horizon = _common_length(ends, path)
        if len(ends) % episodes:
            raise DataError(f"{path}: {len(ends)} episodes do not make trials of {episodes}")

        def folded(name: str) -> AnyArray:
            array = rewards if name == "rewards" else file.read(name)
            if name != "rewards":
                if array.shape[:1] != (total,):
                    raise DataError(
                        f"{path}: {name} of shape {array.shape}, but rewards of ({total},)"
                    )
                array = array[chosen]
            return array[: len(ends) * horizon].reshape(-1, episodes, horizon, *array.shape[1:])

        return _assemble(file, folded)


def _assemble(file: FlatFile, folded: Callable[[str], AnyArray]) -> Trials:
    observations = folded("observations").astype(np.float32)
    kept = observations.shape[2]
    if "next_observations" in file.names:
        after = folded("next_observations").astype(np.float32)
        observations = join_observations(observations, after, str(file.path))
    else:
        kept -= 1
    actions = folded("actions")
    actions = actions[..., None] if actions.ndim == 3 else actions
    terminations = folded("terminals").astype(bool)[:, :, :kept]
    truncations = np.zeros_like(terminations)
    if "timeouts" in file.names:
        truncations = folded("timeouts").astype(bool)[:, :, :kept]
    truncations[:, :, -1:] |= ~terminations[:, :, -1:]
    infos = {
        name.removeprefix("infos/"): folded(name)[:, :, :kept]
        for name in sorted(file.names)
        if name.startswith("infos/")
    }
    return Trials(
        observations,
        actions[:, :, :kept].astype(np.float32 if actions.dtype.kind == "f" else np.int64),
        folded("rewards")[:, :, :kept].astype(np.float32),
        terminations,
        truncations,
        infos,
    )


def _ends(file: FlatFile, rows: int, chosen: slice | npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Which of the chosen rows are the last of an episode."""
    ended = np.zeros(rows, bool)
    for name in ("terminals", "timeouts"):
        if name in file.names:
            flags = file.read(name).reshape(-1)
            if flags.shape != (rows,):
                raise DataError(f"{file.path}: {name} of shape {flags.shape}, but ({rows},)")
            ended |= flags.astype(bool)
    return np.flatnonzero(ended[chosen])


def _common_length(ends: npt.NDArray[np.intp], path: Path) -> int:
    """H, if all episodes have it."""
    if not len(ends):
        raise DataError(f"{path}: no episode ends; terminals or timeouts must mark the last rows")
    lengths = np.diff(ends, prepend=-1)
    odd = np.flatnonzero(lengths != lengths[0])
    if len(odd):
        raise DataError(
            f"{path}: episode {odd[0]} has {lengths[odd[0]]} steps, but episode 0 has {lengths[0]};"
            " all must be of one length"
        )
    return int(lengths[0])
