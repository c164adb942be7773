"""BOReL's folders: `seed_<s>_goal_<g...>/{obs,actions,rewards,next_obs,terminals}.npy`.

Each array is flat, (N * K * H, dim) in the order trial, episode, step; the goal stands in the
folder's name only, rounded to three decimals. What is particular to these files:

- Observations may carry a last column that is 1 where an episode has just ended: it is left out.
- The first observation of a trial's later episodes is the last one of the episode before, since the
  program that wrote them did not keep the reset's. There is nothing to restore it from.
- `terminals` mark goals that the episode goes on in, not ends: they are left out.
- Discrete actions are one-hot.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from datasets.errors import DataError
from datasets.flat_hdf5 import AnyArray
from datasets.logs.arrays import load_array
from datasets.logs.names import numbers_in
from datasets.logs.source import LoggedTask, Shape, as_actions, check_folds, natural
from datasets.trial_store import join_observations
from datasets.trials import Trials

FILES = ("obs", "actions", "rewards", "next_obs")


def is_borel(folder: Path) -> bool:
    """Whether a folder is one task's, by the names in it."""
    return folder.is_dir() and (folder / "obs.npy").is_file()


def borel_tasks(folder: Path) -> Iterator[LoggedTask]:
    """The tasks of a folder of such folders, or of a single one."""
    found = [folder] if is_borel(folder) else [p for p in folder.iterdir() if is_borel(p)]
    for path in sorted(found, key=lambda p: natural(p.name)):
        for name in FILES:
            if not (path / f"{name}.npy").is_file():
                there = ", ".join(sorted(p.name for p in path.glob("*.npy")))
                raise DataError(f"{path} has no {name}.npy, only {there}")
        numbers = numbers_in(path.name)
        yield LoggedTask(
            name=path.name,
            files=tuple(path / f"{name}.npy" for name in FILES),
            numbers=numbers,
            told_by="name" if numbers is not None else None,
            read=partial(_read, path),
            knows_ends=False,
        )


def has_carried_starts(trials: Trials) -> bool:
    """Whether later episodes begin with the last observation of the one before."""
    if trials.episodes < 2:
        return False
    return np.array_equal(trials.observations[:, 1:, 0], trials.observations[:, :-1, -1])


def _read(folder: Path, shape: Shape) -> Trials:
    arrays = {name: load_array(folder / f"{name}.npy") for name in FILES}
    rows = len(arrays["rewards"]) if arrays["rewards"].ndim else 0
    for name, array in arrays.items():
        if array.ndim not in (1, 2) or len(array) != rows or array.size == 0:
            raise DataError(
                f"{folder / name}.npy has shape {array.shape}, but ({rows}, dim) is needed: "
                "rewards.npy has that many rows"
            )
    if rows % shape.horizon:
        raise DataError(
            f"{folder}: {rows} rows do not make episodes of {shape.horizon} steps, which the "
            "domain has"
        )
    check_folds(rows // shape.horizon, shape.episodes, str(folder))

    def folded(name: str) -> AnyArray:
        array = arrays[name].reshape(rows, -1)
        return array.reshape(-1, shape.episodes, shape.horizon, array.shape[1])

    before, after = (_without_flag(folded(name), shape) for name in ("obs", "next_obs"))
    rewards = folded("rewards")
    if rewards.shape[-1] != 1:
        raise DataError(
            f"{folder / 'rewards.npy'} has shape {arrays['rewards'].shape}, but one reward a row "
            "is needed"
        )
    return Trials(
        join_observations(before, after, str(folder)),
        as_actions(folded("actions"), shape, str(folder / "actions.npy")),
        rewards[..., 0].astype(np.float32),
        np.zeros(rewards.shape[:3], bool),
        _last_steps(rewards.shape[:3]),
    )


def _without_flag(observations: AnyArray, shape: Shape) -> AnyArray:
    """Observations without the column that says that an episode has just ended, if it is there."""
    flagged = observations.shape[-1] == shape.observation_dim + 1
    if flagged and np.isin(observations[..., -1], (0, 1)).all():
        observations = observations[..., :-1]
    return observations.astype(np.float32)


def _last_steps(shape: tuple[int, ...]) -> AnyArray:
    """True at each episode's last step, (N, K, H)."""
    ends = np.zeros(shape, bool)
    ends[..., -1] = True
    return ends
