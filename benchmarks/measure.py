"""Timing two sides of a duel in turns, and their memory in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.cases import load_case
from benchmarks.duels import DUELS, Duel, Work
from benchmarks.settings import Settings

Side = Literal["ours", "plain"]

_BLOCK_SECONDS = 0.5  # of work between two looks at the clock, at least
_MEMORY_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Measured:
    """Units a second of each round, and the peak of memory in bytes where it is known.

    `plain` ran with its duel's settings, the library's as a rule, `plain_best` with ours.
    """

    duel: Duel
    ours: Sequence[float]
    plain: Sequence[float]
    plain_best: Sequence[float]
    memory: float | None = None
    plain_memory: float | None = None

    def ratio(self, plain: Sequence[float]) -> tuple[float, float, float]:
        """Median, first and third quartile of how many times as fast ours was, round by round."""
        ratios = np.divide(self.ours, plain)
        lower, median, upper = np.quantile(ratios, [0.25, 0.5, 0.75])
        return float(median), float(lower), float(upper)

    @property
    def rate(self) -> float:
        """Median units a second of ours."""
        return float(np.median(self.ours))

    @property
    def plain_rate(self) -> float:
        """Median units a second of the plain loop with the library's settings."""
        return float(np.median(self.plain))


def measure(duel: Duel, rounds: int) -> Measured:
    """Time both sides in turns, `rounds` times; the order changes from round to round."""
    contenders = {
        "ours": (duel.ours, Settings.BEST),
        "plain": (duel.plain, duel.plain_settings),
        "plain_best": (duel.plain, Settings.BEST),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            work, settings = contenders[name]
            with settings.applied():
                rates[name].append(_rate(work))
    return Measured(duel, rates["ours"], rates["plain"], rates["plain_best"])


def _rate(work: Work) -> float:
    """Units a second, after one call that is not counted."""
    work()
    units, start = 0.0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < _BLOCK_SECONDS:
        units += work()
    return units / seconds


def peak_memory(stage: str, case: str, side: Side, threads: int) -> float | None:
    """Peak resident bytes of a process that does nothing but this side; None if not to be had."""
    words = ["-m", "benchmarks.measure", stage, case, side, str(threads)]
    ended = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    return float(ended.stdout) if ended.returncode == 0 and ended.stdout.strip() else None


def _print_peak(stage: str, case: str, side: str, threads: str) -> None:
    """The other end of `peak_memory`; what is prepared before does not count as a peak."""
    import torch

    torch.set_num_threads(int(threads))
    duel = DUELS[stage](load_case(case))
    work = duel.ours if side == "ours" else duel.plain
    settings = Settings.BEST if side == "ours" else duel.plain_settings
    with settings.applied():
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
        for _ in range(2):
            work()
    line = next(x for x in _MEMORY_STATUS.read_text().splitlines() if x.startswith("VmHWM"))
    sys.stdout.write(f"{int(line.split()[1]) * 1024}\n")


if __name__ == "__main__":
    _print_peak(*sys.argv[1:])
