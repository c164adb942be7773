"""`omrl` as the child of another process, with which it ends: `child.py PARENT WORD ...`.

On Linux the kernel sends SIGTERM when the parent dies, so that a killed driver or worker leaves no
run behind that nobody waits for; the run saves a checkpoint first. Asked for here, not between
fork and exec, where the many threads of a worker would make it unsafe.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from pipeline.cli import main
from pipeline.exits import INTERRUPTED

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Have this process end with `parent`; at once if it is gone."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(INTERRUPTED)


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    raise SystemExit(main(sys.argv[2:]))
