"""A bridge to any file in D4RL's layout, without D4RL: one flat HDF5 file to trials, and back.

D4RL's rows are transitions in the order they were lived; an episode ends where `terminals` or
`timeouts` is true. Trials have episodes of one length: one that the environment ended early is
written up to there, and filled up again by who knows its length (`datasets.early_ends`); files
with other episodes of several lengths are refused. `metadata/*` is ignored.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datasets.early_ends import FILLED, check_lengths, held_rows, lived_steps, not_lived
from datasets.errors import DataError
from datasets.flat_hdf5 import AnyArray, FlatFile, open_flat, write_flat
from datasets.trial_store import join_observations, to_rows
from datasets.trials import Trials


def write_d4rl(path: Path, trials: Trials, attributes: Mapping[str, Any] | None = None) -> None:
    """Write trials as one D4RL-layout file, atomically.

    An episode that has terminated is written up to its first termination and not beyond.

    Args:
        path: the file.
        trials: every episode must end in a termination or a truncation, or readers of the
            layout could not tell episodes apart.
        attributes: further facts for the file's HDF5 attributes, which D4RL ignores.

    Raises:
        DataError: as `Trials.validate`; an episode that is not ended at its last step, is cut off
            before, or goes on after it has terminated.
        DiskFullError: no room.
    """
    trials.validate(str(path))
    lived = lived_steps(trials, str(path))
    last = lived.copy()  # the last step that each episode lived
    last[:, :, :-1] &= ~lived[:, :, 1:]
    ends = trials.terminations | trials.truncations
    odd = np.argwhere(lived & (ends != last))
    if len(odd):
        trial, episode, step = odd[0]
        raise DataError(
            f"{path}: trial {trial}, step {episode * trials.horizon + step}: "
            "an episode must end (terminate or be truncated) at its last step and only there"
        )
    rows = {name: array[lived.reshape(-1)] for name, array in to_rows(trials).items()}
    write_flat(path, rows, attributes or {})


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
    path: Path,
    episodes: int = 1,
    rows: npt.NDArray[np.bool_] | None = None,
    horizon: int | None = None,
) -> Trials:
    """`read_d4rl` without `Trials.validate`: discrete actions may still be floats.

    With `horizon` every episode must have so many steps; those that a terminal ends earlier are
    filled up, and the info `filled` says where.

    Raises:
        DataError: as `read_d4rl`; episodes of other lengths, or next observations that would be
            needed and are not there.
    """
    chosen: slice | npt.NDArray[np.bool_] = slice(None) if rows is None else rows
    with open_flat(path) as file:
        total = len(read_rewards(file))
        ends = _ends(file, total, chosen)
        kept, filled = _kept_rows(file, ends, chosen, horizon)
        if len(ends) % episodes:
            raise DataError(f"{path}: {len(ends)} episodes do not make trials of {episodes}")

        def folded(name: str) -> AnyArray:
            array = read_rewards(file) if name == "rewards" else file.read(name)
            if array.shape[:1] != (total,):
                raise DataError(f"{path}: {name} of shape {array.shape}, but rewards of ({total},)")
            array = array[chosen][kept]
            return array.reshape(-1, episodes, *array.shape[1:])

        return _assemble(file, folded, filled.reshape(-1, episodes, filled.shape[1]))


def read_rewards(file: FlatFile) -> AnyArray:
    """The rewards of an open file, (rows,).

    Raises:
        DataError: there are none, or not one a row.
    """
    rewards = file.read("rewards")
    if rewards.ndim not in (1, 2) or rewards.shape[1:] not in ((), (1,)):
        raise DataError(f"{file.path}: rewards of shape {rewards.shape}, but (rows,) is needed")
    return rewards.reshape(-1)


def _assemble(
    file: FlatFile,
    folded: Callable[[str], AnyArray],
    filled: npt.NDArray[np.bool_],
) -> Trials:
    """Trials of arrays (N, K, H, ...); `filled` marks steps (N, K, H) that repeat an end."""
    observations = folded("observations").astype(np.float32)
    kept = observations.shape[2]
    if "next_observations" in file.names:
        after = folded("next_observations").astype(np.float32)
        observations[filled] = after[filled]  # who has ended stays where it is
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
        if name.startswith("infos/") and name != FILLED
    }
    short = filled[:, :, -1]
    if short.any():
        truncations[short] = False  # but at H, where all episodes end
        truncations[:, :, -1] |= short
        infos[FILLED.removeprefix("infos/")] = filled
    return Trials(
        observations,
        actions[:, :, :kept].astype(np.float32 if actions.dtype.kind == "f" else np.int64),
        folded("rewards")[:, :, :kept].astype(np.float32),
        terminations,
        truncations,
        infos,
    )


def _kept_rows(
    file: FlatFile,
    ends: npt.NDArray[np.intp],
    chosen: slice | npt.NDArray[np.bool_],
    horizon: int | None,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Which of the chosen rows make episodes, (episodes, H), and which of these repeat an end.

    Where the file has no next observations, H is one more than there will be steps.
    """
    lengths = np.diff(ends, prepend=-1)
    if horizon is None:
        length = _common_length(lengths, file.path)
    elif "next_observations" in file.names:
        length = horizon
        terminal = file.read("terminals").reshape(-1)[chosen][ends].astype(bool)
        check_lengths(lengths, terminal, horizon, str(file.path))
    else:
        length = horizon + 1
        _check_last_rows(lengths, length, file.path)
    rows = (ends - lengths + 1)[:, None] + held_rows(lengths, length)
    return rows, not_lived(lengths, length)


def _check_last_rows(lengths: npt.NDArray[np.intp], needed: int, path: Path) -> None:
    """Refuse episodes (episodes,) without a row for the observation after their last step."""
    for index in np.flatnonzero(lengths != needed)[:1]:
        raise DataError(
            f"{path} has no next_observations, so the observation after an episode's last "
            f"step would have to come from a row of its own, the last of {needed}, but "
            f"episode {index} has {lengths[index]} rows; write next_observations, the true next "
            "one of every row"
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
    ends = np.flatnonzero(ended[chosen])
    if not len(ends):
        raise DataError(
            f"{file.path}: no episode ends; terminals or timeouts must mark the last rows"
        )
    return ends


def _common_length(lengths: npt.NDArray[np.intp], path: Path) -> int:
    """H, if all episodes (episodes,) have it."""
    odd = np.flatnonzero(lengths != lengths[0])
    if len(odd):
        raise DataError(
            f"{path}: episode {odd[0]} has {lengths[odd[0]]} steps, but episode 0 has {lengths[0]};"
            " all must be of one length"
        )
    return int(lengths[0])
