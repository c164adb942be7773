"""IDAQ's folders: `goal_idx<i>/trj_evalsample<n>_step<s>`, one episode a file.

The published files are .npy arrays of Python objects, (H, 4) rows of (observation, action, reward,
next observation), and can only be unpickled: they are refused. The same as plain numbers is read:

- .npz with `obs`, `actions`, `rewards`, `next_obs`, each (H, dim);
- .npy of a structure with the fields `obs`, `actions`, `rewards`, `next_obs`, (H,);
- .npy of numbers, (H, obs + act + 1 + obs), in that order.

Nothing in the files says which goal `goal_idx<i>` is: a table of tasks must.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from datasets.errors import DataError
from datasets.flat_hdf5 import AnyArray
from datasets.logs.arrays import load_array, load_arrays
from datasets.logs.names import numbers_in
from datasets.logs.source import LoggedTask, Shape, ToldBy, as_actions, check_folds, natural
from datasets.trial_store import join_observations
from datasets.trials import Trials

_FIELDS = ("obs", "actions", "rewards", "next_obs")
_SINGULAR = {"action": "actions", "reward": "rewards"}
_EPISODE = re.compile(r"trj_evalsample[0-9]+_step[0-9]+", re.ASCII)


def episode_files(folder: Path) -> list[Path]:
    """The episodes of one task, by step and then by sample."""
    if not folder.is_dir():
        return []
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".npy", ".npz") and _EPISODE.fullmatch(path.stem):
            found[path.stem] = path  # the plain .npz wins over the .npy that it was made from
    return sorted(found.values(), key=lambda p: natural(p.stem)[::-1])


def is_idaq(folder: Path) -> bool:
    """Whether a folder is one task's, by the names in it."""
    return bool(episode_files(folder))


def idaq_tasks(folder: Path) -> Iterator[LoggedTask]:
    """The tasks of a folder of such folders, or of a single one."""
    found = [folder] if is_idaq(folder) else [p for p in folder.iterdir() if is_idaq(p)]
    for path in sorted(found, key=lambda p: natural(p.name)):
        files = tuple(episode_files(path))
        numbers = numbers_in(path.name)
        told: ToldBy | None = "name" if numbers is not None else None
        yield LoggedTask(path.name, files, numbers, told, partial(_read, path, files), False)


def _read(folder: Path, files: tuple[Path, ...], shape: Shape) -> Trials:
    check_folds(len(files), shape.episodes, str(folder))
    episodes = [_episode(path, shape) for path in files]
    length = len(episodes[0]["rewards"])
    for path, episode in zip(files, episodes, strict=True):
        for name in _FIELDS:
            if episode[name].shape[1:] != episodes[0][name].shape[1:]:
                raise DataError(
                    f"{path}: {name} of shape {episode[name].shape}, but "
                    f"{episodes[0][name].shape} in {files[0].name}"
                )
        if len(episode["rewards"]) != length:
            raise DataError(
                f"{path} has {len(episode['rewards'])} steps, but {files[0].name} has {length}; "
                "all episodes must be of one length"
            )

    def stacked(name: str) -> AnyArray:
        array = np.stack([episode[name] for episode in episodes])
        return array.reshape(-1, shape.episodes, length, array.shape[-1])

    before, after = (stacked(name).astype(np.float32) for name in ("obs", "next_obs"))
    rewards = stacked("rewards")[..., 0].astype(np.float32)
    truncations = np.zeros(rewards.shape, bool)
    truncations[..., -1] = True
    return Trials(
        join_observations(before, after, str(folder)),
        as_actions(stacked("actions"), shape, str(folder)),
        rewards,
        np.zeros(rewards.shape, bool),
        truncations,
    )


def _episode(path: Path, shape: Shape) -> dict[str, AnyArray]:
    """One file's `_FIELDS`, each (H, dim)."""
    if path.suffix == ".npz":
        arrays: Mapping[str, AnyArray] = load_arrays(path)
    else:
        array = load_array(path)
        if array.dtype.names is None:
            return _columns(path, array, shape)
        arrays = {name: array[name] for name in array.dtype.names}
    named = {_SINGULAR.get(name, name): array for name, array in arrays.items()}
    for name in _FIELDS:
        if name not in named:
            raise DataError(f"{path} has no {name!r}, only {sorted(arrays)}")
        array = named[name]
        if array.ndim not in (1, 2) or not array.size or len(array) != len(named["obs"]):
            raise DataError(
                f"{path}: {name} has shape {array.shape}, but ({len(named['obs'])}, dim) is needed"
            )
    found = {name: named[name].reshape(len(named[name]), -1) for name in _FIELDS}
    if found["rewards"].shape[1] != 1:
        raise DataError(f"{path}: rewards of shape {named['rewards'].shape}; one a step is needed")
    return found


def _columns(path: Path, array: AnyArray, shape: Shape) -> dict[str, AnyArray]:
    """Rows of numbers taken apart."""
    widths = [shape.observation_dim, shape.action_dim, 1, shape.observation_dim]
    if array.ndim != 2 or array.shape[1] != sum(widths) or not len(array):
        raise DataError(
            f"{path} has shape {array.shape}, but (steps, {sum(widths)}) is needed: "
            f"{' + '.join(map(str, widths))} columns of obs, actions, rewards and next_obs"
        )
    parts = np.split(array, np.cumsum(widths)[:-1], axis=1)
    return dict(zip(_FIELDS, parts, strict=True))
