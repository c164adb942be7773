"""How the command line ends: which error is whose, and what one sentence says about it."""

from __future__ import annotations

import os
from typing import Final

OK: Final = 0
FAILED: Final = 1  # a check that failed, or a fault of the machine: a full disk, short memory
USER: Final = 2  # something to correct in the command or a file
DIVERGED: Final = 3  # a loss became NaN or Inf
INTERRUPTED: Final = 130

# By name, so that ending a command imports none of the rooms.
_CODES: Final = {
    "pipeline.errors.ConfigError": USER,
    "pipeline.errors.StoreError": USER,
    "pipeline.errors.MemoryShortError": FAILED,
    "stages.errors.StageError": USER,
    "algorithms.errors.AlgorithmError": USER,
    "datasets.errors.DataError": USER,
    "environments.errors.TaskError": USER,
    "algorithms.errors.DivergenceError": DIVERGED,
    "stages.context.Interrupted": INTERRUPTED,
    "builtins.KeyboardInterrupt": INTERRUPTED,
    "builtins.OSError": FAILED,
}


def exit_code(error: BaseException) -> int | None:
    """The code for an error that one sentence explains; None for a defect, shown in full."""
    for kind in type(error).__mro__:
        code = _CODES.get(f"{kind.__module__}.{kind.__qualname__}")
        if code is not None:
            return code
    return None


def sentence(error: BaseException) -> str:
    """One line about an error that `exit_code` knows."""
    if type(error).__module__ == "builtins" and isinstance(error, OSError) and error.strerror:
        where = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
        return f"{where}{error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
