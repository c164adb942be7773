"""Process-wide settings of the two sides: the library's defaults, and what serves us best.

The reference runs as people run it; a second figure gives it our settings too.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from algorithms.memory import keep_freed_memory

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
_GLIBC_MMAP, _GLIBC_TRIM = 32 << 20, 64 << 20  # where glibc's own moving thresholds end


class Settings(Enum):
    """Whose settings a side is timed with."""

    DEFAULT = "the library's"
    BEST = "ours"

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The process under these settings; the defaults come back afterwards."""
        if self is Settings.DEFAULT:
            yield
            return
        keep_freed_memory()
        try:
            yield
        finally:
            _give_memory_back()


def _give_memory_back() -> None:
    """The C library's defaults again, as near as they can be set; nothing without glibc."""
    try:
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _GLIBC_MMAP)
        library.mallopt(_M_TRIM_THRESHOLD, _GLIBC_TRIM)
        library.malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return
