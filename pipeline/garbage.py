"""What no run needs any more, and what killed processes left behind.

A run on record needs its artefacts, all that they were made from, and the checkpoint that it was
stopped at. Imported trials are kept until they are forgotten and no run needs them. Other
checkpoints may be of a run whose settings were changed and may be changed back, so they are kept
for a week after they were last written to.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from pipeline.errors import StoreError
from pipeline.imports import ImportRecord, list_imports, unreadable_imports
from pipeline.manifest import MANIFEST
from pipeline.records import RunRecord, list_records, unreadable_records
from pipeline.reporting import report_runs
from pipeline.store import KINDS, Store, lock_name

KEPT_DAYS = 7
_DAY = 24 * 3600 * 10**9  # nanoseconds

Key = tuple[str, str]


@dataclass(frozen=True)
class Garbage:
    """One thing to delete and why."""

    path: Path
    reason: str
    lock: str | None  # which must be free; None: nobody can want it
    written: int | None = None  # when last; written to since, it is not garbage. None: no matter

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return tree_size(self.path)


def tree_size(path: Path) -> int:
    """Bytes of all files below a folder, or of one file."""
    if path.is_file():
        return path.stat().st_size
    return sum(stat.st_size for stat in _stats_below(path) if S_ISREG(stat.st_mode))


def sweep(store: Store) -> None:
    """Remove left-overs of killed processes; a live build's folder is under its lock and stays."""
    for item in _left_overs(store):
        remove(store, item)


def find_garbage(store: Store, forgotten: frozenset[str] = frozenset()) -> list[Garbage]:
    """Everything that no record leads to (those `forgotten` aside); nothing is deleted yet.

    `forgotten` are names of runs and of imports.

    Raises:
        StoreError: a record cannot be read, so nobody knows what its run needs.
    """
    if unreadable := [*unreadable_records(store), *unreadable_imports(store)]:
        raise StoreError(
            f"{unreadable[0]} cannot be read, so what its run uses is not known and nothing was "
            "deleted; delete that file, or run its preset again first"
        )
    records = list_records(store)
    kept = [record for record in records if record.name not in forgotten]
    imports = list_imports(store)
    needed = _needed(store, kept, [one for one in imports if one.name not in forgotten])
    checkpoints = list(_unfinished(store, needed, _needed(store, records, imports)))
    return [
        *_left_overs(store),
        *_artefacts(store, needed),
        *checkpoints,
        *_logs(store, needed, {item.path for item in checkpoints}),
        *_reports(store, {record.name for record in kept}),
        *_videos(store, {record.name for record in kept}),
    ]


def in_use(store: Store, item: Garbage) -> bool:
    """Whether a live process holds its key at this moment; creates and changes nothing."""
    if item.lock is None or not store.lock_file(item.lock).exists():
        return False
    lock = store.lock(item.lock)
    try:
        return not lock.try_exclusive()
    finally:
        lock.release()


def remove(store: Store, item: Garbage) -> bool:
    """Delete one thing unless someone holds its key; whether it was deleted."""
    if item.lock is None:
        _delete(item.path)
        return True
    lock = store.lock(item.lock)
    try:
        if not lock.try_exclusive():
            return False
        if item.written is not None and _written(item.path) != item.written:
            return False
        if _is_seen_whole(store, item.path) and item.path.exists():
            store.discard(item.path)  # gone in one step, so nobody sees half of it
            store.empty_trash()
        else:
            _delete(item.path)
        return True
    finally:
        lock.release()


def _is_seen_whole(store: Store, path: Path) -> bool:
    return path.relative_to(store.root).parts[0] in ("artefacts", "reports")


def _left_overs(store: Store) -> Iterator[Garbage]:
    for path in _entries(store, ".tmp"):
        key = _key(path.name)
        yield Garbage(path, "left by a killed run", lock_name(*key) if key else path.name)
    for path in _entries(store, ".trash"):
        yield Garbage(path, "replaced or damaged", None)
    for path in _entries(store, ".checkpoints"):
        key = _key(path.name)
        if key is not None and _finished(store, key, path):
            yield Garbage(path, "checkpoint of a finished artefact", lock_name(*key))


def _artefacts(store: Store, needed: set[Key]) -> Iterator[Garbage]:
    for key in store.all_keys():
        if key not in needed:
            yield Garbage(store.artefact_folder(*key), "no run uses it", lock_name(*key))


def _unfinished(store: Store, needed: set[Key], with_forgotten: set[Key]) -> Iterator[Garbage]:
    """Checkpoints of what was never finished and no run on record would go on with."""
    for path in _entries(store, ".checkpoints"):
        key = _key(path.name)
        if key is None or key in needed or _finished(store, key, path):
            continue
        written = _written(path)
        if key in with_forgotten:
            yield Garbage(path, "checkpoint of a forgotten run", lock_name(*key), written)
        elif time.time_ns() - written > KEPT_DAYS * _DAY:
            reason = f"checkpoint, not written to for {KEPT_DAYS} days"
            yield Garbage(path, reason, lock_name(*key), written)


def _logs(store: Store, needed: set[Key], unfinished: set[Path]) -> Iterator[Garbage]:
    """Logs of artefacts that no run uses, and of builds that nobody goes on with."""
    keys = set(store.all_keys())
    for path in _entries(store, "logs"):
        key = _key(path.name)
        if key is None or key in needed:
            continue
        checkpoint = store.checkpoint_folder(*key)
        if key in keys:
            yield Garbage(path, "log of an artefact that no run uses", lock_name(*key))
        elif checkpoint in unfinished or not checkpoint.exists():
            yield Garbage(path, "log of nothing", lock_name(*key))


def _reports(store: Store, names: set[str]) -> Iterator[Garbage]:
    """Pages none of whose runs is on record.

    A page that does not say whose it is, as those made before, is its run's by name or is kept.
    """
    for path in _entries(store, "reports"):
        by_name = [path.name] if re.search(r"-seed[0-9]+$", path.name) else []
        runs = report_runs(path) or by_name
        if runs and not names & set(runs):
            yield Garbage(path, "report of forgotten runs", f"report-{path.name}")


def _videos(store: Store, names: set[str]) -> Iterator[Garbage]:
    for path in _entries(store, "videos"):
        if path.name not in names:
            yield Garbage(path, "videos of a forgotten run", None)


def _written(folder: Path) -> int:
    """When a folder or anything in it was last written to, in nanoseconds."""
    return max([folder.lstat().st_mtime_ns, *(s.st_mtime_ns for s in _stats_below(folder))])


def _finished(store: Store, key: Key, checkpoints: Path) -> bool:
    """Whether the artefact was committed after the checkpoint; a refresh under way is younger."""
    manifest = store.artefact_folder(*key) / MANIFEST
    if not manifest.is_file():
        return False
    times = [stat.st_mtime_ns for stat in _stats_below(checkpoints)]
    return max(times, default=0) <= manifest.stat().st_mtime_ns


def _stats_below(folder: Path) -> Iterator[os.stat_result]:
    """Of everything in a folder, but for what a live process takes away meanwhile."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with suppress(FileNotFoundError):
                yield (Path(parent) / name).lstat()


def _needed(
    store: Store, records: Sequence[RunRecord], imports: Sequence[ImportRecord]
) -> set[Key]:
    """Keys of all artefacts that these name or would go on making, and of what went into them."""
    references = [one.artefact for one in imports]
    for record in records:
        references += [*record.artefacts.values(), record.building]
    split = (reference.partition("/") for reference in references)
    open_keys = [(kind, name) for kind, _, name in split if kind in KINDS]
    needed: set[Key] = set()
    while open_keys:
        key = open_keys.pop()
        if key in needed:
            continue
        needed.add(key)
        manifest = store.inspect(*key, data=False).manifest
        if manifest is not None:
            open_keys += [(e.kind, e.fingerprint) for e in manifest.inputs.values()]
    return needed


def _entries(store: Store, folder: str) -> list[Path]:
    path = store.root / folder
    return sorted(path.iterdir()) if path.is_dir() else []


def _key(name: str) -> Key | None:
    """The key in a name such as `hyper-states-<fingerprint>[-<unique>]`."""
    for kind in KINDS:
        if name.startswith(f"{kind}-"):
            return kind, name.removeprefix(f"{kind}-").partition("-")[0]
    return None


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
