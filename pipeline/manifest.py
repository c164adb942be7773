"""What stands beside an artefact's data: where it came from, and a digest of every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets.errors import DataError
from datasets.files import digest_file, json_bytes, list_files, read_json

MANIFEST = "manifest.json"
FORMAT = 1
FINGERPRINT_DIGITS = 20


@dataclass(frozen=True)
class FileEntry:
    """One file of an artefact."""

    sha256: str
    size: int  # bytes


@dataclass(frozen=True)
class InputEntry:
    """One artefact that another was made from."""

    kind: str
    fingerprint: str
    digest: str  # of the input's contents

    @property
    def reference(self) -> str:
        """`kind/fingerprint`."""
        return f"{self.kind}/{self.fingerprint}"


@dataclass(frozen=True)
class Manifest:
    """The identity card of an artefact.

    `config`, `seed`, `version`, the inputs' digests and `source`, where there is one, make the
    fingerprint; `files` make the content digest; the rest is information and enters neither.
    """

    kind: str
    fingerprint: str
    stage: str
    version: int
    config: dict[str, Any]
    seed: int
    inputs: dict[str, InputEntry]
    files: dict[str, FileEntry]
    digest: str
    created: str  # UTC, ISO 8601
    seconds: float  # of all processes that worked on it, without what was done twice
    versions: dict[str, str]  # of the libraries
    labels: dict[str, str]  # domain, preset, run
    source: str | None = None  # digest of the user's own family's file; not written for our domains

    @property
    def reference(self) -> str:
        """`kind/fingerprint`."""
        return f"{self.kind}/{self.fingerprint}"

    @property
    def size(self) -> int:
        """Bytes of all data files."""
        return sum(entry.size for entry in self.files.values())

    def to_json(self) -> dict[str, Any]:
        """The document to write, sealed: its last key is a digest of all the others."""
        document = {"format": FORMAT, **asdict(self)}
        if self.source is None:
            del document["source"]
        return {**document, "seal": _sha256(document)}


def fingerprint(
    kind: str,
    version: int,
    config: Mapping[str, Any],
    seed: int,
    inputs: Mapping[str, str],
    source: str | None = None,
) -> str:
    """20 hex digits that name a recipe: `inputs` maps input names to content digests."""
    recipe: dict[str, Any] = {
        "kind": kind,
        "version": version,
        "config": dict(config),
        "seed": seed,
        "inputs": dict(inputs),
    }
    if source is not None:
        recipe["source"] = source
    return _sha256(recipe)[:FINGERPRINT_DIGITS]


def scan(folder: Path) -> dict[str, FileEntry]:
    """Every data file below `folder` with its digest and size; the manifest itself is left out.

    Raises:
        DataError: the folder is missing, or holds a link or a special file.
    """
    return {
        name: FileEntry(digest_file(folder / name), (folder / name).stat().st_size)
        for name in list_files(folder)
        if name != MANIFEST
    }


def content_digest(files: Mapping[str, FileEntry]) -> str:
    """One digest of all names and contents: what the next stage's fingerprint is made from."""
    return _sha256({name: entry.sha256 for name, entry in files.items()})


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artefact folder, its seal and its place checked but not the data.

    Raises:
        DataError: missing, unreadable, edited, or in the wrong folder.
    """
    path = folder / MANIFEST
    if path.is_symlink():
        raise DataError(f"{path} is a link; only plain files belong here")
    document = read_json(path)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DataError(f"{path} is not a manifest of format {FORMAT}")
    body = {key: value for key, value in document.items() if key != "seal"}
    if document.get("seal") != _sha256(body) or path.read_bytes() != json_bytes(document):
        raise DataError(f"{path} was edited after it was sealed")
    try:
        manifest = _from_json(body)
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} lacks what a manifest has: {error}") from error
    if folder.name != manifest.fingerprint or folder.parent.name != manifest.kind:
        raise DataError(f"{folder} holds the manifest of {manifest.reference}")
    return manifest


def damage(folder: Path, manifest: Manifest) -> str | None:
    """Why the data below `folder` are not what the manifest says, or None if every byte is."""
    try:
        names = set(list_files(folder)) - {MANIFEST}
        for name in sorted(names | set(manifest.files)):
            if name not in names:
                return f"file {name} is missing"
            if name not in manifest.files:
                return f"file {name} does not belong there"
            size = (folder / name).stat().st_size
            if size != manifest.files[name].size:
                return f"file {name} has {size} bytes instead of {manifest.files[name].size}"
            if digest_file(folder / name) != manifest.files[name].sha256:
                return f"file {name} has changed"
    except (DataError, OSError) as error:
        return str(error)
    return None


def _from_json(body: Mapping[str, Any]) -> Manifest:
    fields = {key: value for key, value in body.items() if key != "format"}
    fields["inputs"] = {name: InputEntry(**entry) for name, entry in fields["inputs"].items()}
    fields["files"] = {name: FileEntry(**entry) for name, entry in fields["files"].items()}
    return Manifest(**fields)


def _sha256(value: Any) -> str:
    """Digest of a value's canonical JSON: sorted keys, no spaces, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
