"""How long the command line takes where there is nothing to do: help, and runs that are cached."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.markdown import markdown_table

_SETTINGS = (
    "collect.random_trials=2",
    "collect.iterations=1",
    "collect.updates_per_iteration=2",
    "vae.updates=2",
    "offline.updates=2",
)
_RUN = ("run", "gridworld", *(word for setting in _SETTINGS for word in ("--set", setting)))
COMMANDS: dict[str, tuple[Sequence[str], float]] = {
    "`omrl --help`": (("--help",), 0.5),
    "`omrl run`, all cached, `--no-prefect`": ((*_RUN, "--no-prefect"), 3.0),
    "`omrl run`, all cached, Prefect's embedded server": (_RUN, 12.0),
}
"""What is timed, and the seconds that it may take at most."""


def measure_startup(repeats: int) -> list[dict[str, Any]]:
    """Median and largest of the seconds of `repeats` calls of each command, on a store of its own.

    Raises:
        subprocess.CalledProcessError: a command failed.
    """
    rows = []
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"OMRL_HOME": home}
        _seconds((*_RUN, "--no-prefect"), environment)  # fills the store
        for name, (words, wanted) in COMMANDS.items():
            _seconds(words, environment)  # Prefect makes its database at the first call
            seconds = [_seconds(words, environment) for _ in range(repeats)]
            rows.append(
                {
                    "what": name,
                    "seconds": float(np.median(seconds)),
                    "largest": max(seconds),
                    "target": wanted,
                }
            )
            sys.stderr.write(f"{name}: {rows[-1]['seconds']:.2f} s\n")
    return rows


def startup_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        (row["what"], f"{row['seconds']:.2f}", f"{row['largest']:.2f}", f"{row['target']:g}")
        for row in rows
    ]
    return markdown_table(("command", "seconds", "largest", "at most"), lines)


def _seconds(words: Sequence[str], environment: Mapping[str, str]) -> float:
    command = [sys.executable, "-m", "pipeline.cli", *words]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - start
