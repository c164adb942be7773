"""The artefact store: which folders there are, and which artefacts in them are whole.

    artefacts/<kind>/<fingerprint>/   manifest.json and data files, never changed once there
    records/<run>.json                what a run was made of
    imports/<name>.json               which trials were imported under that name
    reports/<run>/                    its page and tables
    videos/<run>/                     what `omrl video` filmed of it
    logs/<kind>-<fingerprint>/        TensorBoard events, outside every digest
    .locks/ .tmp/ .trash/ .checkpoints/<kind>-<fingerprint>/

An artefact is there when its manifest verifies against every byte, never because a folder exists.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.errors import DataError
from pipeline.errors import StoreError
from pipeline.locks import KeyLock
from pipeline.manifest import FINGERPRINT_DIGITS, Manifest, damage, read_manifest
from pipeline.names import did_you_mean, printable

KINDS = ("trials", "donor-plan", "vae", "hyper-states", "agent", "scores")
_FINGERPRINT = re.compile(rf"[0-9a-f]{{{FINGERPRINT_DIGITS}}}")
_FOLDERS = (
    *("artefacts", "records", "imports", "reports", "videos", "logs"),
    *(".locks", ".tmp", ".trash", ".checkpoints"),
)

_SHOWN_DIGITS = _SHOWN_KEYS = 8  # of a hint

log = logging.getLogger("omrl.store")


@dataclass(frozen=True)
class Artefact:
    """A whole artefact in the store. `cached` is false if this very process made it."""

    folder: Path
    manifest: Manifest
    cached: bool = True

    @property
    def reference(self) -> str:
        """`kind/fingerprint`."""
        return self.manifest.reference

    @property
    def digest(self) -> str:
        """Digest of the contents."""
        return self.manifest.digest


@dataclass(frozen=True)
class Finding:
    """What lies at one key: an artefact's manifest, or damage, or (both None) nothing."""

    folder: Path
    manifest: Manifest | None = None
    problem: str | None = None


def default_root() -> Path:
    """`OMRL_HOME`, or `runs` in the working folder."""
    return Path(os.environ.get("OMRL_HOME") or "runs")


class Store:
    """One store on disk. Opening it creates nothing; the first build does."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(f"the store {self.root} is a file; set OMRL_HOME to a folder")
        for name in _FOLDERS:
            self._refuse_link(self.root / name)

    def folder(self, name: str) -> Path:
        """One of the store's own folders, made if missing."""
        path = self.root / name
        self._refuse_link(path)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def artefact_folder(self, kind: str, fingerprint: str) -> Path:
        """Where that artefact lies or would lie.

        Raises:
            StoreError: no such kind, not a fingerprint, or a link stands in the way.
        """
        if kind not in KINDS or not _FINGERPRINT.fullmatch(fingerprint):
            raise StoreError(f"{printable(f'{kind}/{fingerprint}')} is not an artefact's id")
        path = self.root / "artefacts" / kind / fingerprint
        self._refuse_link(path.parent)
        self._refuse_link(path)
        return path

    def lock(self, name: str) -> KeyLock:
        """The lock of that name (see `lock_name`), not yet taken."""
        self.folder(".locks")
        return KeyLock(self.lock_file(name))

    def lock_file(self, name: str) -> Path:
        """Where that lock lies, if anyone has asked for it yet."""
        return self.root / ".locks" / f"{name}.lock"

    def inspect(self, kind: str, fingerprint: str, data: bool = True) -> Finding:
        """What lies at a key; `data` false leaves the data files unread (no proof of wholeness)."""
        folder = self.artefact_folder(kind, fingerprint)
        if not folder.exists():
            return Finding(folder)
        try:
            manifest = read_manifest(folder)
        except (DataError, OSError) as error:
            return Finding(folder, None, str(error))
        return Finding(folder, manifest, damage(folder, manifest) if data else None)

    def find(self, kind: str, fingerprint: str) -> Artefact | None:
        """The artefact of a key if it is there and whole."""
        finding = self.inspect(kind, fingerprint)
        if finding.manifest is None or finding.problem is not None:
            return None
        return Artefact(finding.folder, finding.manifest)

    def all_keys(self, kinds: Sequence[str] = KINDS) -> Iterator[tuple[str, str]]:
        """(kind, fingerprint) of every folder in the store, whole or not, in order."""
        for kind in kinds:
            parent = self.root / "artefacts" / kind
            self._refuse_link(parent)
            if parent.is_dir():
                for entry in sorted(parent.iterdir()):
                    if _FINGERPRINT.fullmatch(entry.name) and not entry.is_symlink():
                        yield kind, entry.name

    def manifests(self, kinds: Sequence[str] = KINDS) -> list[Manifest]:
        """All readable manifests; the data files are not read."""
        found = (self.inspect(*key, data=False).manifest for key in self.all_keys(kinds))
        return [manifest for manifest in found if manifest is not None]

    def parse(self, reference: str) -> tuple[str, str]:
        """The key of a whole `kind/fingerprint`, whether there is such an artefact or not.

        Raises:
            StoreError: it is not of that form.
        """
        kind, _, name = reference.partition("/")
        self.artefact_folder(kind, name)
        return kind, name

    def resolve(self, text: str) -> tuple[str, str]:
        """The key that an id names: `kind/fingerprint`, or any prefix of one that is unambiguous.

        Raises:
            StoreError: none or several match.
        """
        keys = list(self.all_keys())
        if "/" in text:
            kind, _, start = text.partition("/")
            hits = [key for key in keys if key[0] == kind and key[1].startswith(start)]
        else:
            hits = [key for key in keys if text and key[1].startswith(text)]
        if len(hits) == 1:
            return hits[0]
        names = [f"{kind}/{name}" for kind, name in hits]
        if hits:
            raise StoreError(f"{printable(text)} is ambiguous: {', '.join(names[:4])}")
        digits = max(len(text.rpartition("/")[2]), _SHOWN_DIGITS)
        known = dict.fromkeys(f"{kind}/{name[:digits]}" for kind, name in keys)
        hint = did_you_mean(text, list(known)[:_SHOWN_KEYS])
        raise StoreError(f"no artefact {printable(text)} in {self.root}; {hint}")

    def discard(self, folder: Path) -> None:
        """Move a folder out of the way at once, into the trash; `empty_trash` deletes it."""
        folder.rename(self.folder(".trash") / f"{folder.parent.name}-{folder.name}-{_unique()}")

    def empty_trash(self) -> None:
        """Delete what was discarded."""
        for entry in self.folder(".trash").iterdir():
            shutil.rmtree(entry, ignore_errors=True)

    def new_temporary(self, kind: str, fingerprint: str) -> Path:
        """An empty folder to build that artefact in; its lock must be held."""
        path = self.folder(".tmp") / f"{kind}-{fingerprint}-{_unique()}"
        path.mkdir()
        return path

    def checkpoint_folder(self, kind: str, fingerprint: str) -> Path:
        """The folder that outlives a killed build of that artefact."""
        return self.root / ".checkpoints" / lock_name(kind, fingerprint)

    def log_folder(self, kind: str, fingerprint: str) -> Path:
        """TensorBoard events of that artefact's training."""
        return self.root / "logs" / lock_name(kind, fingerprint)

    def _refuse_link(self, path: Path) -> None:
        if path.is_symlink() and not path.resolve().is_relative_to(self.root.resolve()):
            raise StoreError(f"{path} is a link that leads out of the store; remove it")


def lock_name(kind: str, fingerprint: str) -> str:
    """What an artefact's lock, checkpoints and log are called."""
    return f"{kind}-{fingerprint}"


def _unique() -> str:
    return uuid.uuid4().hex[:12]
