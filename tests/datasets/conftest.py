"""Makers of small random data, one seed one result, and a lever that fills the disk."""

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.collection_meta import CollectionMeta
from datasets.hyper_state_layout import HyperStateLayout
from datasets.hyper_states import HyperStateWriter
from datasets.trials import Trials

TrialMaker = Callable[..., Trials]
MetaMaker = Callable[..., CollectionMeta]
FieldMaker = Callable[..., dict[str, np.ndarray]]
StoreMaker = Callable[..., Path]
DiskLimit = Callable[[int], AbstractContextManager[None]]


def random_trials(
    seed: int = 0,
    count: int = 3,
    episodes: int = 2,
    horizon: int = 4,
    observation_dim: int = 3,
    action_dim: int = 2,
    n_actions: int | None = None,
    infos: bool = False,
) -> Trials:
    """Valid trials, every number different."""
    rng = np.random.default_rng(seed)
    each = (count, episodes, horizon)
    truncations = np.zeros(each, bool)
    truncations[:, :, -1] = True
    actions = rng.uniform(-1, 1, (*each, action_dim)).astype(np.float32)
    if n_actions is not None:
        actions = rng.integers(0, n_actions, (*each, action_dim))
    observations = rng.normal(size=(count, episodes, horizon + 1, observation_dim))
    return Trials(
        observations.astype(np.float32),
        actions,
        rng.normal(size=each).astype(np.float32),
        rng.random(each) < 0.2,
        truncations,
        {"qpos": rng.normal(size=(*each, 7)), "seed": rng.integers(0, 9, each)} if infos else {},
    )


def meta_for(trials: Trials, tasks: int = 3, **changes: Any) -> CollectionMeta:
    """The meta that fits these trials."""
    values: dict[str, Any] = {
        "family": "point_robot",
        "tasks_train": np.random.default_rng(1).normal(size=(tasks, 2)),
        "tasks_test": np.random.default_rng(2).normal(size=(2, 2)),
        "start": "wide",
        "behaviour": "sac",
        "episodes": trials.episodes,
        "horizon": trials.horizon,
        "observation_dim": trials.observations.shape[3],
        "action_dim": trials.actions.shape[3],
        "n_actions": 5 if trials.actions.dtype.kind == "i" else None,
        "details": {"noise": 0.1},
    }
    return CollectionMeta(**(values | changes))


def random_fields(layout: HyperStateLayout, seed: int = 0) -> dict[str, np.ndarray]:
    """Valid fields of one task."""
    rng = np.random.default_rng(seed)
    fields: dict[str, np.ndarray] = {}
    for name, field in layout.fields().items():
        shape = field.shape[1:]
        if field.dtype.kind == "b":
            fields[name] = rng.random(shape) < 0.2
        elif field.dtype.kind == "i":
            fields[name] = rng.integers(0, layout.n_actions or 1, shape)
        else:
            fields[name] = rng.uniform(-1, 1, shape).astype(np.float32)
    return fields


def write_store(path: Path, layout: HyperStateLayout, seed: int = 0) -> Path:
    """A sealed store; task i holds `random_fields(layout, seed + i)`."""
    with HyperStateWriter(path, layout) as writer:
        for task in range(layout.tasks):
            writer.write_task(task, random_fields(layout, seed + task))
    return path


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """The kernel refuses to let any file of this process grow past `limit` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="session")
def make_trials() -> TrialMaker:
    return random_trials


@pytest.fixture(scope="session")
def make_meta() -> MetaMaker:
    return meta_for


@pytest.fixture(scope="session")
def make_fields() -> FieldMaker:
    return random_fields


@pytest.fixture(scope="session")
def make_store() -> StoreMaker:
    return write_store


@pytest.fixture(scope="session")
def disk_limit() -> DiskLimit:
    return file_size_limit


@pytest.fixture(scope="session")
def small_layout() -> HyperStateLayout:
    return HyperStateLayout(3, 4, 2, 3, 2, 1, 2, belief_rewards=True)
