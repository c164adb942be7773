"""Run records: which artefacts a named run is made of. Small JSON files, written atomically."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from datasets.errors import DataError
from datasets.files import read_json, write_json
from pipeline.errors import StoreError
from pipeline.names import checked_name, did_you_mean, printable
from pipeline.store import Store

FORMAT = 1


@dataclass(frozen=True)
class RunRecord:
    """One run of one preset with one seed. `artefacts` maps steps to `kind/fingerprint`."""

    name: str
    preset: str
    overrides: tuple[str, ...]
    seed: int
    domain: str
    config: Mapping[str, Any]  # resolved, as JSON
    artefacts: Mapping[str, str] = field(default_factory=dict)
    status: Literal["unfinished", "complete"] = "unfinished"
    created: str = ""  # UTC, ISO 8601
    command: str = ""  # makes it again
    runtime: Mapping[str, Any] = field(default_factory=dict)  # what is decisive; {} in old ones
    building: str = ""  # `kind/fingerprint` of what it makes, or would go on making

    @property
    def stem(self) -> str:
        """What the runs of all seeds have in common in their names."""
        return self.name.removesuffix(f"-seed{self.seed}")

    @property
    def config_digest(self) -> str:
        """8 hex digits of the resolved configuration: runs with equal ones differ by seed only."""
        text = json.dumps(self.config, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def run_name(preset: str, overrides: Sequence[str], seed: int, name: str | None = None) -> str:
    """`<preset>[-<hash of the overrides>]-seed<N>`, or `<name>-seed<N>`.

    Raises:
        ConfigError: the result cannot be a file name.
    """
    stem = name if name is not None else run_stem(preset, overrides)
    return checked_name(f"{checked_name(stem, 'run')}-seed{seed}", "run")


def run_stem(preset: str, overrides: Sequence[str]) -> str:
    """`<preset>[-<hash of the overrides>]`: what the runs of all seeds have in common."""
    if not overrides:
        return preset
    text = "\n".join(overrides)
    return f"{preset}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def write_record(store: Store, record: RunRecord) -> None:
    """Write or replace the record of that name.

    Raises:
        StoreError: the name belongs to a run of another preset, other overrides or another seed.
    """
    old = find_record(store, record.name)
    if old is not None and _identity(old) != _identity(record):
        raise StoreError(
            f"run name {record.name!r} is taken by {' '.join(_words(old))}; choose another --name, "
            f"or free it with `omrl gc --forget {record.name}`"
        )
    store.folder("records")
    write_json(_path(store, record.name), _to_json(record))


def find_record(store: Store, name: str) -> RunRecord | None:
    """The record of that name, or None if there is none or it cannot be read."""
    path = _path(store, name)
    return _read(path) if path.is_file() and not path.is_symlink() else None


def read_record(store: Store, name: str) -> RunRecord:
    """The record of that name.

    Raises:
        StoreError: there is none.
    """
    record = find_record(store, name)
    if record is None:
        known = [record.name for record in list_records(store)]
        raise StoreError(
            f"no run {printable(name)} in {store.root}; {did_you_mean(name, known[:20])}"
        )
    return record


def list_records(store: Store) -> list[RunRecord]:
    """All readable records, oldest first."""
    found = (_read(path) for path in _files(store))
    return sorted((r for r in found if r is not None), key=lambda r: (r.created, r.name))


def unreadable_records(store: Store) -> list[Path]:
    """Files in place of records that cannot be read: what their runs use is not known."""
    return [path for path in _files(store) if _parse(path) is None]


def delete_record(store: Store, name: str) -> None:
    """Forget a run; its artefacts stay until the next `gc`.

    Raises:
        StoreError: there is none of that name.
    """
    _path(store, read_record(store, name).name).unlink()


def _path(store: Store, name: str) -> Path:
    return store.root / "records" / f"{checked_name(name, 'run')}.json"


def _files(store: Store) -> list[Path]:
    """Where records lie; a link is none."""
    paths = sorted((store.root / "records").glob("*.json"))
    return [path for path in paths if not path.is_symlink()]


def _read(path: Path) -> RunRecord | None:
    """The record of that name; None of a damaged file and of a copy under another name."""
    record = _parse(path)
    return record if record is not None and record.name == path.stem else None


def _parse(path: Path) -> RunRecord | None:
    """What a file holds; None if it is damaged or another version of omrl wrote it."""
    try:
        document = read_json(path)
        if document.pop("format") != FORMAT:
            return None
        document["overrides"] = tuple(document["overrides"])
        document["artefacts"] = dict(document["artefacts"])
        return RunRecord(**document)
    except (DataError, OSError, TypeError, KeyError, AttributeError):
        return None


def _to_json(record: RunRecord) -> dict[str, Any]:
    """Artefacts as pairs, since a JSON object written with sorted keys loses the steps' order."""
    document = {"format": FORMAT, **asdict(record)}
    return {**document, "artefacts": list(record.artefacts.items())}


def _identity(record: RunRecord) -> tuple[str, tuple[str, ...], int]:
    return record.preset, tuple(sorted(record.overrides)), record.seed


def _words(record: RunRecord) -> list[str]:
    return [record.preset, *record.overrides, f"seed {record.seed}"]
