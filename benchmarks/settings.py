"""Process-wide settings of the two sides: the library's defaults, and what serves us best.

The reference runs as people run it; a second figure gives it our settings too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from algorithms.memory import give_freed_memory_back, keep_freed_memory


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
            give_freed_memory_back()
