"""What no run needs any more, and what killed processes left behind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.manifest import MANIFEST
from pipeline.records import list_records
from pipeline.store import KINDS, Store, lock_name


@dataclass(frozen=True)
class Garbage:
    """One thing to delete and why."""

    path: Path
    reason: str
    lock: str | None  # which must be free; None: nobody can want it

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return tree_size(self.path)


def tree_size(path: Path) -> int:
    """Bytes of all files below a folder, or of one file."""
    if path.is_file():
        return path.stat().st_size
    return sum(entry.lstat().st_size for entry in path.rglob("*") if entry.is_file())


def sweep(store: Store) -> None:
    """Remove left-overs of killed processes; a live build's folder is under its lock and stays."""
    for item in _left_overs(store):
        remove(store, item)


def find_garbage(store: Store, forgotten: frozenset[str] = frozenset()) -> list[Garbage]:
    """Everything that no record leads to (those `forgotten` aside); nothing is deleted yet."""
    needed = _needed(store, forgotten)
    found = list(_left_overs(store))
    for kind, name in store.all_keys():
        if (kind, name) not in needed:
            path = store.artefact_folder(kind, name)
            found.append(Garbage(path, "no run uses it", lock_name(kind, name)))
    keys = set(store.all_keys())
    for path in _entries(store, "logs"):
        key = _key(path.name)
        if key is not None and key not in needed:
            reason = "log of an artefact that no run uses" if key in keys else "log of nothing"
            if key in keys or not store.checkpoint_folder(*key).exists():
                found.append(Garbage(path, reason, lock_name(*key)))
    return found


def remove(store: Store, item: Garbage) -> bool:
    """Delete one thing unless someone holds its key; whether it was deleted."""
    if item.lock is None:
        _delete(item.path)
        return True
    lock = store.lock(item.lock)
    try:
        if not lock.try_exclusive():
            return False
        if item.path.parent.parent.name == "artefacts" and item.path.exists():
            store.discard(item.path)  # gone in one step, so nobody sees half an artefact
            store.empty_trash()
        else:
            _delete(item.path)
        return True
    finally:
        lock.release()


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


def _finished(store: Store, key: tuple[str, str], checkpoints: Path) -> bool:
    """Whether the artefact was committed after the checkpoint; a refresh under way is younger."""
    manifest = store.artefact_folder(*key) / MANIFEST
    if not manifest.is_file():
        return False
    times = [entry.lstat().st_mtime_ns for entry in checkpoints.rglob("*")]
    return max(times, default=0) <= manifest.stat().st_mtime_ns


def _needed(store: Store, forgotten: frozenset[str]) -> set[tuple[str, str]]:
    """Keys of all artefacts that records name, and of what those were made from."""
    open_keys = [
        (kind, name)
        for record in list_records(store)
        if record.name not in forgotten
        for kind, _, name in (ref.partition("/") for ref in record.artefacts.values())
        if kind in KINDS
    ]
    needed: set[tuple[str, str]] = set()
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


def _key(name: str) -> tuple[str, str] | None:
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
