"""Locks between processes that the kernel releases when their holder dies (flock)."""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path

_held: weakref.WeakSet[KeyLock] = weakref.WeakSet()


class KeyLock:
    """One key's lock: held by one writer, or by any number of readers.

    The file is never deleted, since a second file of that name would be a second lock. A forked
    child lets go of its copies, so a worker that outlives a killed parent holds nothing up.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o666)
        _held.add(self)

    def try_shared(self) -> bool:
        """Become one of the readers if there is no writer. A writer becomes a reader."""
        return self._try(fcntl.LOCK_SH)

    def try_exclusive(self) -> bool:
        """Become the only holder if there is no other."""
        return self._try(fcntl.LOCK_EX)

    def wait_exclusive(self) -> None:
        """Become the only holder, however long that takes."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def release(self) -> None:
        """Let go for good; harmless when repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _try(self, how: int) -> bool:
        try:
            fcntl.flock(self._descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _release_in_child() -> None:
    """Close a forked child's copies: closing one copy leaves the parent's lock in place."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_release_in_child)
