"""What this machine can do, measured in the run whose figures are compared with it."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

_SIDE = 1024  # of the matrices: large enough for the full rate, small enough to be quick
_MEGABYTES = 256  # copied at once: no cache holds it
_REPEATS = 7


@dataclass(frozen=True)
class Machine:
    """Rates are the best of several measurements: what the hardware allows."""

    processor: str
    threads: int
    torch_version: str
    operations: float  # floating point operations a second of a large float32 product
    copied: float  # bytes a second, each counted once read and once written


def measure_machine() -> Machine:
    """Rates with the threads that torch has now."""
    left, right = torch.rand(_SIDE, _SIDE), torch.rand(_SIDE, _SIDE)
    product = torch.empty(_SIDE, _SIDE)
    source = torch.rand(_MEGABYTES << 18)
    target = torch.empty_like(source)
    return Machine(
        processor=processor(),
        threads=torch.get_num_threads(),
        torch_version=torch.__version__,
        operations=2 * _SIDE**3 / _least(lambda: torch.mm(left, right, out=product)),
        copied=2 * (_MEGABYTES << 20) / _least(lambda: target.copy_(source)),
    )


def _least(work: Callable[[], object]) -> float:
    """Seconds of the quickest of several calls."""
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
