"""Where the driver of a batch and its jobs meet: a folder in the store that all of them share.

A job finds a token there, so it knows that it looks at the driver's store and not at a folder of
the same name on another machine; and it finds the driver's wish to stop. The driver holds a lock
meanwhile, from which a job learns whether locks reach from machine to machine: without them, one
machine would sweep away what another is building.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets.files import write_atomically
from pipeline.errors import StoreError
from pipeline.store import Store

_TOKEN, _STOP = "token", "stop"
AFTER_CHECKPOINT, AT_ONCE = b"checkpoint", b"now"


@dataclass(frozen=True)
class Meeting:
    """The driver's side."""

    folder: Path
    token: str

    def ask_to_stop(self, at_once: bool = False) -> None:
        """Have all jobs stop, after a checkpoint if they may."""
        write_atomically(self.folder / _STOP, AT_ONCE if at_once else AFTER_CHECKPOINT)


@contextmanager
def meeting(store: Store, batch: str) -> Iterator[Meeting]:
    """Open the folder; gone with what it said at the end.

    Raises:
        StoreError: another process is running this batch.
    """
    lock = store.lock(meeting_name(batch))
    if not lock.try_exclusive():
        lock.release()
        raise StoreError(
            f"batch {batch!r} is being run by another process; wait for it, or take another --name"
        )
    folder = store.folder(".tmp") / meeting_name(batch)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        token = uuid.uuid4().hex
        write_atomically(folder / _TOKEN, token.encode())
        yield Meeting(folder, token)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def meeting_name(batch: str) -> str:
    """What the folder and its lock are called."""
    return f"batch-{batch}"


def is_the_store(root: Path, batch: str, token: str) -> bool:
    """Whether the driver's store lies at `root`, as seen from here."""
    try:
        return _place(root, batch, _TOKEN).read_bytes() == token.encode()
    except OSError:
        return False


def locks_reach(store: Store, batch: str) -> bool:
    """Whether the driver's lock is noticed here."""
    lock = store.lock(meeting_name(batch))
    try:
        return not lock.try_shared()
    finally:
        lock.release()


def stop_wish(root: Path, batch: str) -> bytes | None:
    """How the driver wants the jobs to stop; None if they may go on."""
    try:
        return _place(root, batch, _STOP).read_bytes()
    except OSError:
        return None


def _place(root: Path, batch: str, name: str) -> Path:
    return root / ".tmp" / meeting_name(batch) / name
