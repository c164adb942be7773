"""Ctrl-C and SIGTERM: the first asks the stage to save a checkpoint, the second ends at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pipeline.console import tell
from pipeline.exits import INTERRUPTED

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopping_on_signals(stop: threading.Event) -> Iterator[None]:
    """Set `stop` at the first signal; raise KeyboardInterrupt at the second; die at the third.

    Outside the main thread, where handlers cannot be set, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    count = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count == 1:
            stop.set()
            tell("\nstopping after a checkpoint; once more to stop at once")
        elif count == 2:
            raise KeyboardInterrupt
        else:
            os._exit(INTERRUPTED)

    before: dict[int, Any] = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
