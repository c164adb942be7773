"""Imported trials by name: small records that keep them in the store until they are forgotten.

An import is an artefact of kind `trials` like those that `collect` makes; a run whose configuration
names it (`collect.imported`) begins with it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets.errors import DataError
from datasets.files import read_json, write_json
from pipeline.building import Lease, Recipe
from pipeline.errors import ConfigError, StoreError
from pipeline.names import checked_name, did_you_mean, printable
from pipeline.store import Store, lock_name
from stages.context import Interrupted

FORMAT = 1
KIND, STAGE, VERSION = "trials", "import", 1
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class ImportRecord:
    """One import: its artefact, and what makes it again."""

    name: str
    domain: str
    artefact: str  # `trials/fingerprint`
    config: Mapping[str, Any]  # of the artefact's recipe
    source: str | None = None  # of the recipe too
    created: str = ""  # UTC, ISO 8601
    command: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """The artefact's recipe; nobody but `omrl import` can make it."""
        return Recipe(KIND, STAGE, VERSION, self.config, 0, source=self.source)


def import_name(name: str) -> str:
    """`name`, if an import can have it.

    Raises:
        ConfigError: it is no file name, or looks like a run's.
    """
    if re.search(r"-seed[0-9]+$", checked_name(name, "import")):
        raise ConfigError(f"import name {name!r} ends as runs' names do; choose another --name")
    return name


def write_import(store: Store, record: ImportRecord) -> None:
    """Write or replace the record of that name; `check_free` says whether it may be."""
    store.folder("imports")
    document = {"format": FORMAT, **asdict(record)}
    write_json(_path(store, record.name), document)


def check_free(store: Store, name: str, artefact: str) -> None:
    """Refuse a name that other trials have.

    Raises:
        StoreError: it is taken.
    """
    old = find_import(store, name)
    if old is not None and old.artefact != artefact:
        raise StoreError(
            f"import name {name!r} is taken by {old.artefact}; choose another --name, or free it "
            f"with `omrl gc --forget {name}`"
        )


def find_import(store: Store, name: str) -> ImportRecord | None:
    """The record of that name, or None if there is none or it cannot be read."""
    path = _path(store, name)
    record = _read(path) if path.is_file() and not path.is_symlink() else None
    return record if record is not None and record.name == path.stem else None


def read_import(store: Store, name: str) -> ImportRecord:
    """The record of that name.

    Raises:
        StoreError: there is none.
    """
    record = find_import(store, name)
    if record is None:
        known = [record.name for record in list_imports(store)]
        raise StoreError(
            f"no imported trials {printable(name)} in {store.root}; "
            f"{did_you_mean(name, known[:20])} (`omrl import` makes some)"
        )
    return record


def list_imports(store: Store) -> list[ImportRecord]:
    """All readable records, oldest first."""
    found = (find_import(store, path.stem) for path in _files(store))
    return sorted((r for r in found if r is not None), key=lambda r: (r.created, r.name))


def unreadable_imports(store: Store) -> list[Path]:
    """Files in place of records that cannot be read."""
    return [path for path in _files(store) if _read(path) is None]


def delete_import(store: Store, name: str) -> None:
    """Forget an import; its trials stay until the next `gc`, and while a run uses them."""
    _path(store, read_import(store, name).name).unlink()


def hold(store: Store, record: ImportRecord, stop: threading.Event) -> Lease:
    """The import's trials, kept from removal until the lease is closed.

    Raises:
        StoreError: they are gone or damaged.
        Interrupted: `stop` was set while another process held them.
    """
    kind, fingerprint = store.parse(record.artefact)
    lock = store.lock(lock_name(kind, fingerprint))
    try:
        while not lock.try_shared():
            if stop.is_set():
                raise Interrupted(f"stopped while another process was busy with {record.artefact}")
            time.sleep(_POLL_SECONDS)
        artefact = store.find(kind, fingerprint)
        if artefact is None:
            finding = store.inspect(kind, fingerprint)
            why = f"are damaged ({finding.problem})" if finding.problem else "are gone"
            raise StoreError(
                f"the trials of import {record.name}, {record.artefact}, {why}; import them "
                f"again: {record.command}"
            )
    except BaseException:
        lock.release()
        raise
    return Lease(artefact, lock)


def _path(store: Store, name: str) -> Path:
    return store.root / "imports" / f"{checked_name(name, 'import')}.json"


def _files(store: Store) -> list[Path]:
    paths = sorted((store.root / "imports").glob("*.json"))
    return [path for path in paths if not path.is_symlink()]


def _read(path: Path) -> ImportRecord | None:
    """What a file holds; None if it is damaged or another version of omrl wrote it."""
    try:
        document = read_json(path)
        if document.pop("format") != FORMAT:
            return None
        record = ImportRecord(**document)
        return record if record.recipe.reference == record.artefact else None
    except (DataError, OSError, TypeError, KeyError, AttributeError, ValueError):
        return None
