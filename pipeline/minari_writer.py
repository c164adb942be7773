"""Trials as one Minari data set, `omrl/<domain>/all-v0`, written by Minari itself.

Every episode carries its task as episode metadata: `task` (its numbers), `task_index`, `trial` and
`episode`. `MinariDataset.filter_episodes` can pick by them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from datasets.early_ends import lived_steps
from datasets.errors import DataError
from datasets.trial_store import CollectionMeta
from datasets.trials import Trials

_ROOT = "MINARI_DATASETS_PATH"


def minari_id(meta: CollectionMeta) -> str:
    """The data set's id."""
    return f"omrl/{plain_domain(meta)}/all-v0"


def plain_domain(meta: CollectionMeta) -> str:
    """The domain's name without what file names and Minari's ids cannot hold."""
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in meta.family).strip("-")


def write_minari(root: Path, meta: CollectionMeta, task: Callable[[int], Trials]) -> None:
    """Write the data set below `root`, as Minari's folder of all data sets would hold it.

    Args:
        root: an empty folder.
        meta: what the trials are.
        task: gives the trials of a training task; asked for one after the other.

    Raises:
        DataError: Minari or its HDF5 storage is not installed; an episode goes on after it has
            terminated.
    """
    minari, spaces, buffer = _minari()
    action_space: Any = spaces.Box(-1.0, 1.0, (meta.action_dim,), np.float32)
    if meta.n_actions is not None:
        action_space = spaces.Discrete(meta.n_actions)
    observation_space = spaces.Box(-np.inf, np.inf, (meta.observation_dim,), np.float32)
    with _datasets_path(root), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is no environment to name
        data = None
        for index in range(len(meta.tasks_train)):
            trials = task(index)
            episodes = list(_episodes(trials, meta, buffer))
            if data is None:
                data = minari.create_dataset_from_buffers(
                    minari_id(meta),
                    buffer=episodes,
                    observation_space=observation_space,
                    action_space=action_space,
                    algorithm_name=meta.behaviour,
                    description=f"omrl's trials of {len(meta.tasks_train)} tasks of {meta.family}: "
                    f"{meta.episodes} episodes of {meta.horizon} steps each",
                    author="omrl",
                    author_email="unknown",
                    code_permalink="unknown",
                    data_format="hdf5",
                )
                first = 0
            else:
                first = data.storage.total_episodes
                data.storage.update_episodes(episodes)
            numbers = [first + place for place in range(len(episodes))]
            data.storage.update_episode_metadata(list(_metadata(trials, meta, index)), numbers)


def _minari() -> tuple[Any, Any, Any]:
    try:
        import minari
        from gymnasium import spaces
        from minari.data_collector import EpisodeBuffer
        from minari.dataset._storages import hdf5_storage  # noqa: F401 - needs h5py
    except ImportError as error:
        raise DataError(
            f"Minari cannot be imported ({error}); install it: pip install '.[minari]'"
        ) from error
    return minari, spaces, EpisodeBuffer


@contextmanager
def _datasets_path(root: Path) -> Iterator[None]:
    """Minari's folder of data sets is `root` meanwhile."""
    before = os.environ.get(_ROOT)
    os.environ[_ROOT] = str(root.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ROOT]
        else:
            os.environ[_ROOT] = before


def _episodes(trials: Trials, meta: CollectionMeta, buffer: Any) -> Iterator[Any]:
    """One buffer an episode, in the order trial, episode; actions of a Discrete are flat.

    An episode that has terminated goes up to its first termination and not beyond.
    """
    lengths = lived_steps(trials, meta.family).sum(axis=2)
    for trial in range(trials.count):
        for episode in range(trials.episodes):
            lived = (trial, episode, slice(lengths[trial, episode]))
            actions = trials.actions[lived]
            yield buffer(
                observations=trials.observations[trial, episode, : lengths[trial, episode] + 1],
                actions=actions[:, 0] if meta.n_actions is not None else actions,
                rewards=trials.rewards[lived],
                terminations=trials.terminations[lived],
                truncations=trials.truncations[lived],
                infos={name: array[lived] for name, array in trials.infos.items()},
            )


def _metadata(trials: Trials, meta: CollectionMeta, index: int) -> Iterator[dict[str, Any]]:
    for trial in range(trials.count):
        for episode in range(trials.episodes):
            yield {
                "task": meta.tasks_train[index],
                "task_index": index,
                "trial": trial,
                "episode": episode,
            }
