"""How long an artefact has been in the making, over all processes that worked on it.

Each notes in the checkpoint folder when it began. What a killed one did counts up to the last file
that its stage saved, for the rest is done once more.
"""

from __future__ import annotations

import time
from pathlib import Path

from datasets.errors import DataError
from datasets.files import read_json, write_json

_NOTE = "clock.json"


def saved_files(checkpoints: Path) -> list[Path]:
    """What a stage has saved to go on from; none if it starts from the beginning."""
    return [path for path in checkpoints.rglob("*") if path.is_file() and path.name != _NOTE]


def seconds_spent(checkpoints: Path) -> float:
    """What earlier processes spent on what they saved."""
    saved = [path.stat().st_mtime for path in saved_files(checkpoints)]
    try:
        note = read_json(checkpoints / _NOTE)
        before, begun = float(note["before"]), float(note["begun"])
    except (DataError, OSError, KeyError, TypeError, ValueError):
        return 0.0
    return before + max(0.0, max(saved) - begun) if saved else 0.0


def start_clock(checkpoints: Path) -> None:
    """Note that a process begins."""
    write_json(checkpoints / _NOTE, {"before": seconds_spent(checkpoints), "begun": time.time()})
