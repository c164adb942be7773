"""Getting one artefact: found whole, or built once, whoever asks and whenever they are killed.

The order of a commit is what makes it safe: data in a temporary folder, flushed to the disk; the
manifest last; then one rename. Whatever moment a process dies at, the key holds the old artefact,
the new one, or nothing.
"""

from __future__ import annotations

import errno
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from datasets.errors import DataError, DiskFullError
from datasets.files import fail_point, fsync_path, fsync_tree, json_bytes, naming_full_disk
from pipeline.clock import seconds_spent
from pipeline.errors import StoreError
from pipeline.locks import KeyLock
from pipeline.manifest import (
    MANIFEST,
    InputEntry,
    Manifest,
    content_digest,
    fingerprint,
    read_manifest,
    scan,
)
from pipeline.store import Artefact, Store, lock_name
from stages.context import Interrupted

_LIBRARIES = ("omrl", "torch", "numpy", "h5py", "zarr", "safetensors", "pydantic")
_POLL_SECONDS = 0.1

log = logging.getLogger("omrl.store")

Make = Callable[[Path], None]
"""Fills an empty folder with an artefact's data."""


@dataclass(frozen=True)
class Recipe:
    """All that decides an artefact's bytes, and (labels, stage) what to call it."""

    kind: str
    stage: str
    version: int
    config: Mapping[str, Any]
    seed: int
    inputs: Mapping[str, Artefact] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    source: str | None = None  # digest of the user's own family's file

    @property
    def fingerprint(self) -> str:
        """The key in the store."""
        digests = {name: artefact.digest for name, artefact in self.inputs.items()}
        return fingerprint(self.kind, self.version, self.config, self.seed, digests, self.source)

    @property
    def reference(self) -> str:
        """`kind/fingerprint`."""
        return f"{self.kind}/{self.fingerprint}"


@dataclass(frozen=True)
class Lease:
    """A whole artefact that nobody may remove or replace until the lease is closed."""

    artefact: Artefact
    lock: KeyLock

    def close(self) -> None:
        """Let others remove or replace it again."""
        self.lock.release()


def obtain(
    store: Store,
    recipe: Recipe,
    make: Make,
    refresh: bool = False,
    stop: threading.Event | None = None,
) -> Lease:
    """The recipe's artefact: from the store if it is there and whole, else made now.

    Any number of processes may ask for one key at once; one makes it, the others wait for it.
    `refresh` makes it anew and then swaps.

    Raises:
        Interrupted: `stop` was set while another run held the key.
        StoreError: an input was replaced or removed meanwhile.
        DiskFullError: no room; the store is as before.
    """
    lock = store.lock(lock_name(recipe.kind, recipe.fingerprint))
    try:
        artefact = _obtain_locked(store, recipe, make, refresh, lock, stop or threading.Event())
    except BaseException:
        lock.release()
        raise
    return Lease(artefact, lock)


def _obtain_locked(
    store: Store, recipe: Recipe, make: Make, refresh: bool, lock: KeyLock, stop: threading.Event
) -> Artefact:
    folder = store.artefact_folder(recipe.kind, recipe.fingerprint)
    made: Artefact | None = None
    told = False
    while True:
        if not refresh and folder.exists() and lock.try_shared():
            if made is not None and _holds(made):
                return made
            found = store.find(recipe.kind, recipe.fingerprint)
            if found is not None:
                return found
        if lock.try_exclusive():
            if refresh or store.find(recipe.kind, recipe.fingerprint) is None:
                made = _build(store, recipe, make)
                refresh = False
            continue  # round again as a reader, so that other readers need not wait for us
        if stop.is_set():
            raise Interrupted(f"stopped while another run was busy with {recipe.reference}")
        if not told:
            log.warning("waiting for another run that builds or uses %s", recipe.reference)
            told = True
        time.sleep(_POLL_SECONDS)


def _holds(made: Artefact) -> bool:
    """Whether what we just made still stands; turning from writer to reader is not one step."""
    try:
        return read_manifest(made.folder).digest == made.digest
    except DataError:
        return False


def _build(store: Store, recipe: Recipe, make: Make) -> Artefact:
    """Make and commit; the key's lock is held by us alone."""
    final = store.artefact_folder(recipe.kind, recipe.fingerprint)
    finding = store.inspect(recipe.kind, recipe.fingerprint)
    if finding.problem is not None:
        log.warning("%s is damaged (%s); it is made anew", recipe.reference, finding.problem)
        store.discard(final)
    _check_inputs(recipe)
    _fail_point(recipe.kind, "before-write")
    temporary = store.new_temporary(recipe.kind, recipe.fingerprint)
    checkpoints = store.checkpoint_folder(recipe.kind, recipe.fingerprint)
    try:
        with _naming_full_disk(temporary):
            before, begun = seconds_spent(checkpoints), time.monotonic()
            make(temporary)
            seconds = before + time.monotonic() - begun
            _fail_point(recipe.kind, "data-done")
            _check_inputs(recipe)
            manifest = _seal(recipe, temporary, seconds)
        _publish(store, recipe, temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(checkpoints, ignore_errors=True)
    return Artefact(final, manifest, cached=False)


@contextmanager
def _naming_full_disk(folder: Path) -> Iterator[None]:
    """A full disk names the folder and, where the writer did not, what had been written."""
    try:
        with naming_full_disk(folder, 0):
            yield
    except DiskFullError as error:
        if error.bytes_needed:
            raise
        written = sum(entry.stat().st_size for entry in folder.rglob("*") if entry.is_file())
        raise DiskFullError(error.path, max(written, 1), error.errno or errno.ENOSPC) from error


def _seal(recipe: Recipe, temporary: Path, seconds: float) -> Manifest:
    """Digest the data, flush it, and write the manifest last."""
    if (temporary / MANIFEST).exists():
        raise StoreError(f"stage {recipe.stage} wrote a file {MANIFEST}, which is the store's own")
    files = scan(temporary)
    if not files:
        raise StoreError(f"stage {recipe.stage} wrote nothing")
    manifest = Manifest(
        kind=recipe.kind,
        fingerprint=recipe.fingerprint,
        stage=recipe.stage,
        version=recipe.version,
        config=dict(recipe.config),
        seed=recipe.seed,
        inputs={name: _entry(artefact) for name, artefact in recipe.inputs.items()},
        files=files,
        digest=content_digest(files),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        versions=dict(_versions()),
        labels=dict(recipe.labels),
        source=recipe.source,
    )
    fsync_tree(temporary)
    _fail_point(recipe.kind, "before-manifest")
    (temporary / MANIFEST).write_bytes(json_bytes(manifest.to_json()))
    fsync_path(temporary / MANIFEST)
    fsync_path(temporary)
    return manifest


def _publish(store: Store, recipe: Recipe, temporary: Path, final: Path) -> None:
    """One rename from nothing to everything; an older artefact goes to the trash first."""
    final.parent.mkdir(parents=True, exist_ok=True)
    _fail_point(recipe.kind, "before-rename")
    if final.exists():
        store.discard(final)
    temporary.rename(final)
    fsync_path(final.parent)
    _fail_point(recipe.kind, "after-rename")


def _check_inputs(recipe: Recipe) -> None:
    """Refuse inputs that were swapped or removed since their digests were taken."""
    for name, artefact in recipe.inputs.items():
        try:
            digest = read_manifest(artefact.folder).digest
        except DataError as error:
            raise StoreError(f"input {name} is gone ({error}); run again") from error
        if digest != artefact.digest:
            raise StoreError(f"input {name} ({artefact.reference}) was replaced; run again")


def _entry(artefact: Artefact) -> InputEntry:
    return InputEntry(artefact.manifest.kind, artefact.manifest.fingerprint, artefact.digest)


def _fail_point(kind: str, point: str) -> None:
    """Die here if a crash test asked for this point, of any stage or of this kind's."""
    fail_point(point)
    fail_point(f"{kind}/{point}")


@cache
def _versions() -> dict[str, str]:
    found = {"python": python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
