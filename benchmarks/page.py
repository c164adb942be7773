"""docs/performance.md and docs/performance.json from what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.cases import CASES
from benchmarks.duels import TARGETS
from benchmarks.machine import Machine
from benchmarks.measure import Measured

Row = dict[str, Any]

_INTRODUCTION = """\
# Performance

Made by `python -m benchmarks --write`; do not edit by hand. Every stage ran beside a plain loop in
the shape the published programs have (`benchmarks/reference/`), in one process, in turns, on the
same work; tests show that both compute the same (`tests/benchmarks/`). *Ratio* is how many times as
fast ours was: the median over rounds, and the middle half of them. The plain loop had the library's
settings, ours those that `algorithms/memory.py` asks for; *equal* is the ratio where the plain loop
had ours too. *Floor* is the share of the time that the operations which nobody can do without take
at the rate of a large matrix product of this run, or the bytes at the rate of a copy. Half-cheetah
has the published shapes on dynamics that cost nothing. Peak memory is of a process of its own.
*Rotating* is the offline update where tasks take turns in a quarter of the memory that their store
needs; its plain side is the same update with all of them there, under the same settings. The
system's cache holds the store's files, so what is read is decoded but waits for no disk.
"""


def row_of(measured: Measured, stage: str, machine: Machine) -> Row:
    """What the table and the JSON file say of a duel."""
    duel = measured.duel
    median, lower, upper = measured.ratio(measured.plain)
    needed = 0.0
    if duel.operations is not None:
        needed += duel.operations / machine.operations
    if duel.moved is not None:
        needed += duel.moved / machine.copied
    wanted = TARGETS[stage]
    place = CASES.index(duel.case)
    return {
        "stage": duel.stage,
        "case": duel.case,
        "unit": duel.unit,
        "units_per_second": measured.rate,
        "ratio": median,
        "quartiles": [lower, upper],
        "equal_settings": measured.ratio(measured.plain_best)[0],
        "target": wanted[place] if place < len(wanted) else None,
        "floor_share": needed * measured.rate,
        "peak_memory": measured.memory,
        "plain_peak_memory": measured.plain_memory,
    }


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| stage | case | ours, a second | ratio | middle half | equal | wanted | floor | memory "
        "| plain |",
        "|" + "---|" * 10,
    ]
    for row in rows:
        lower, upper = row["quartiles"]
        cells = [
            row["stage"],
            row["case"],
            f"{_short(row['units_per_second'])} {row['unit']}s",
            f"**{times(row['ratio'])}**",
            f"{times(lower)} to {times(upper)}",
            times(row["equal_settings"]),
            "-" if row["target"] is None else f"{row['target']:g}",
            f"{row['floor_share']:.0%}",
            _megabytes(row["peak_memory"]),
            _megabytes(row["plain_peak_memory"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page(rows: Sequence[Row], machine: Machine, command: str) -> str:
    """The whole page."""
    return (
        f"{_INTRODUCTION}\n{table(rows)}\n"
        f"`{command}` on {machine.processor}, {machine.threads} threads, torch "
        f"{machine.torch_version}: {machine.operations / 1e9:.0f} GFLOP/s in float32 products, "
        f"{machine.copied / 1e9:.0f} GB/s copied.\n"
    )


def times(ratio: float) -> str:
    """A ratio; a share of one with two digits."""
    return f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2f}"


def _short(number: float) -> str:
    """Three digits: 53,200 or 0.00124."""
    rounded = float(f"{number:.3g}")
    return f"{rounded:,.0f}" if rounded >= 1000 else f"{rounded:g}"


def _megabytes(count: float | None) -> str:
    return "-" if count is None else f"{count / 1e6:,.0f} MB"
