"""Trials in the store to a folder in another program's layout: whole, or not there at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datasets.d4rl import write_d4rl
from datasets.files import fsync_path, fsync_tree, naming_full_disk
from datasets.logs.table import TaskTable, write_table
from datasets.trial_store import CollectionMeta, read_meta, read_trials
from datasets.trials import Trials
from environments.registry import load_family
from pipeline.errors import StoreError
from pipeline.garbage import tree_size
from pipeline.locks import KeyLock
from pipeline.minari_writer import minari_id, plain_domain, write_minari
from pipeline.store import Store, lock_name
from stages.context import Bar


@dataclass(frozen=True)
class Exported:
    """What was written."""

    tasks: int
    transitions: int
    size: int  # bytes
    lines: tuple[str, ...]  # how it is read


def export(
    store: Store, kind: str, fingerprint: str, folder: Path, format: str, bar: Callable[[int], Bar]
) -> Exported:
    """Write the trials of a key; a run may use them meanwhile, and nobody can remove them.

    Raises:
        StoreError: they are gone or damaged, or the folder is not empty.
        DataError: an episode goes on after it has ended, which the layouts cannot say; Minari is
            not installed.
        DiskFullError: no room; nothing is left.
    """
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise StoreError(f"{folder} is there already; --to takes a new folder or an empty one")
    lock = store.lock(lock_name(kind, fingerprint))
    try:
        source = _held(store, kind, fingerprint, lock)
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = folder.with_name(f".tmp-{folder.name}-{uuid.uuid4().hex[:8]}")
        aside.mkdir()
        try:
            with naming_full_disk(folder, 0):
                done = _write(source, aside, format, bar)
            fsync_tree(aside)
            if folder.exists():
                folder.rmdir()
            aside.rename(folder)
            fsync_path(folder.parent)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    finally:
        lock.release()
    lines = tuple(line.format(folder=folder) for line in done.lines)
    return Exported(done.tasks, done.transitions, done.size, lines)


def _held(store: Store, kind: str, fingerprint: str, lock: KeyLock) -> Path:
    """The artefact's folder, read by us under its lock."""
    reference = f"{kind}/{fingerprint}"
    if not lock.try_shared():
        raise StoreError(f"{reference} is being made by another run; try again when it is done")
    artefact = store.find(kind, fingerprint)
    if artefact is None:
        raise StoreError(f"{reference} is gone or damaged; `omrl verify {reference}` says more")
    return artefact.folder


def _write(source: Path, aside: Path, format: str, bar: Callable[[int], Bar]) -> Exported:
    meta = read_meta(source)
    count, transitions = len(meta.tasks_train), 0
    progress = bar(count)

    def task(index: int) -> Trials:
        nonlocal transitions
        trials = read_trials(source, index, meta)
        transitions += trials.rewards.size
        progress.advance()
        return trials

    try:
        if format == "minari":
            write_minari(aside, meta, task)
            lines: tuple[str, ...] = (
                f"minari.load_dataset({minari_id(meta)!r}) with MINARI_DATASETS_PATH={{folder}}",
            )
        else:
            for index in range(count):
                path = aside / d4rl_name(meta, index)
                write_d4rl(path, task(index), _attributes(meta, index))
            lines = (f"{{folder}}/{d4rl_name(meta, 0)} and on",)
    finally:
        progress.close()
    _write_table(aside / "tasks.csv", meta, format)
    return Exported(count, transitions, tree_size(aside), lines)


def d4rl_name(meta: CollectionMeta, index: int) -> str:
    """What the file of one task is called."""
    return f"{plain_domain(meta)}-task-{index:04d}.hdf5"


def _write_table(path: Path, meta: CollectionMeta, format: str) -> None:
    """Which log is of which task, and the held-out tasks: what `omrl import --tasks` takes."""
    names = load_family(meta.family).spec.task_names
    stem = minari_id(meta).rpartition("/")[2]
    train = {}
    for index, task in enumerate(meta.tasks_train.tolist()):
        alone = len(meta.tasks_train) == 1
        minari = stem if alone else f"{stem}[{index}]"
        train[minari if format == "minari" else Path(d4rl_name(meta, index)).stem] = tuple(task)
    held_out = () if meta.test_tasks_seen else tuple(map(tuple, meta.tasks_test.tolist()))
    write_table(path, names, TaskTable(path, train, held_out, frozenset()))


def _attributes(meta: CollectionMeta, index: int) -> dict[str, object]:
    """What D4RL ignores and `omrl import` reads; no `metadata/*`, which its loader trips over."""
    return {
        "family": meta.family,
        "task": meta.tasks_train[index],
        "episodes": meta.episodes,
        "horizon": meta.horizon,
        "start": meta.start,
        "behaviour": meta.behaviour,
    }
