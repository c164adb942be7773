"""What the running jobs of a batch are at, read from the ends of their logs.

The logs lie in the store that driver and jobs share, so this works on a cluster as on one machine.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from pipeline.batch.job import log_path

_TAIL_BYTES = 2000
_BAR = re.compile(r"^([\w-]+)\s*:\s+(\d+)%")
_MOST_NAMED = 3


def progress_note(root: Path, runs: Collection[str], since: float) -> str:
    """`soccer-seed0 train-vae 43 %, sweep-seed0 collect 7 %`: runs that began after `since`.

    Args:
        root: the store's folder.
        runs: those that were handed out; a cluster may not have begun them all.
        since: a time as of `time.time()`; logs from before are of another batch.
    """
    found = [f"{run} {at}".rstrip() for run in sorted(runs) if (at := _at(root, run, since))]
    more = len(found) - _MOST_NAMED
    return ", ".join(found[:_MOST_NAMED]) + (f", {more} more" if more > 0 else "")


def _at(root: Path, run: str, since: float) -> str | None:
    """The step and how far it is; a space if the run says neither yet, None if it has no log."""
    path = log_path(root, run)
    try:
        with path.open("rb") as stream:
            if path.stat().st_mtime < since:
                return None
            stream.seek(max(0, stream.seek(0, 2) - _TAIL_BYTES))
            tail = stream.read().decode("utf-8", "replace")
    except OSError:
        return None
    for line in reversed(re.split(r"[\r\n]", tail)):
        bar = _BAR.match(line.strip())
        if bar:
            return f"{bar[1]} {bar[2]} %"
    return " "
