"""docs/performance.md from docs/performance.json: every stage and case as measured last."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES
from benchmarks.duels import DUELS, TARGETS
from benchmarks.machine import Machine
from benchmarks.measure import Measured
from benchmarks.on_device import device_provenance, device_table
from benchmarks.schedule import schedule_rows, schedule_table
from benchmarks.startup import startup_table
from benchmarks.to_loss import EPOCHS, loss_table
from datasets.files import write_atomically
from pipeline.markdown import markdown_table

DOCS = Path(__file__).resolve().parent.parent / "docs"

Row = dict[str, Any]
Document = dict[str, list[Row]]
"""Rows of every kind of measurement, by its name."""

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

_LIMITS = """\
## What is short, and why

The figures wanted were set on cores with 512-bit vectors, which torch's default products leave
unused; the processor named above has none.

- *Offline RL update.* The floor is its matrix products alone. The plain loop spends much of its
  time in them too, and nobody computes them faster: what was to be gained is what surrounds them.
- *State relabelling.* Ours writes the store as well, compressed and with checksums; the plain loop
  writes nothing. Both encode all trials of a task as one batch.
- *Evaluation, and reward relabelling of the gridworld.* A step of twenty tasks, or a batch of two
  thousand steps on a grid, is a handful of array calls, whose overhead is most of the time.
- *The published schedule* of the first two cases is mostly offline updates.
"""

_SCHEDULE = """\
## The published schedule

Hours of a whole run of the `_published` settings, all training tasks, extrapolated from the rates
above; `rewards` and `vae` are the parts of an update of the belief.
"""

_LOSS = f"""\
## The same loss

Seconds to the validation loss that the published settings reach after {EPOCHS} epochs over a small
collection of random behaviour: of the plain loop, extrapolated from timed updates; of our full
estimator at the same updates; and of ours with the settings in `benchmarks/to_loss.py`, a draw of
posteriors and another optimiser, on the same model, relabelling and validation trials.
"""

_STARTUP = """\
## Start-up

Seconds of a process from its start to its end, median and largest; the store holds a small run.
"""

_DEVICE = """\
## On a GPU

Milliseconds of an update: *eager* as plain calls, *captured* as one CUDA graph. The belief's batch
comes from the host each time; drawing from the hyper-states, which lie on the device, is part of
the offline update. FLOP/s are of the operations that nobody can do without, captured if it can be.
"""

_COLUMNS = (
    "stage",
    "case",
    "ours, a second",
    "ratio",
    "middle half",
    "equal",
    "wanted",
    "floor",
    "memory",
    "plain",
)


def row_of(measured: Measured, stage: str, machine: Machine, command: str) -> Row:
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
        "key": stage,
        "stage": duel.stage,
        "case": duel.case,
        "unit": duel.unit,
        "units_per_second": measured.rate,
        "plain_units_per_second": measured.plain_rate,
        "ratio": median,
        "quartiles": [lower, upper],
        "equal_settings": measured.ratio(measured.plain_best)[0],
        "target": wanted[place] if place < len(wanted) else None,
        "floor_share": needed * measured.rate,
        "peak_memory": measured.memory,
        "plain_peak_memory": measured.plain_memory,
        "command": command,
        "machine": asdict(machine),
    }


def table(rows: Sequence[Row]) -> str:
    """The rows of duels as Markdown."""
    lines = []
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
        lines.append(cells)
    return markdown_table(_COLUMNS, lines)


def page(document: Document) -> str:
    """The whole page."""
    duels, startup = document.get("duels", []), document.get("startup", [])
    parts = [_INTRODUCTION, table(duels), _provenance(duels), _LIMITS]
    if schedule := schedule_rows(duels):
        parts += [_SCHEDULE, schedule_table(schedule)]
    if loss := document.get("loss", []):
        parts += [_LOSS, loss_table(loss)]
    if device := document.get("device", []):
        parts += [_DEVICE, device_table(device), device_provenance(device)]
    if startup:
        parts += [_STARTUP, startup_table(startup)]
    return "\n".join(parts)


def merged(known: Sequence[Row], newer: Sequence[Row]) -> list[Row]:
    """The rows known, those measured again replaced, in the order of stages and cases."""
    rows = {(row.get("key"), row["case"]): row for row in (*known, *newer)}
    return [rows[key, case] for key in (*DUELS, None) for case in CASES if (key, case) in rows]


def read_document(folder: Path = DOCS) -> Document:
    """What was measured before; nothing if there is no file."""
    path = folder / "performance.json"
    document: Document = json.loads(path.read_text()) if path.exists() else {}
    return document


def write_document(document: Document, folder: Path = DOCS) -> None:
    """Both files."""
    text = json.dumps(document, indent=1) + "\n"
    write_atomically(folder / "performance.json", text.encode())
    write_atomically(folder / "performance.md", page(document).encode())


def _provenance(rows: Sequence[Row]) -> str:
    """Which commands measured the rows, and on what; a line each."""
    lines = []
    for command, machine in {row["command"]: row["machine"] for row in rows}.items():
        lines.append(
            f"- `{command}` on {machine['processor']}, {machine['threads']} threads, torch "
            f"{machine['torch_version']}: {machine['operations'] / 1e9:.0f} GFLOP/s in float32 "
            f"products, {machine['copied'] / 1e9:.0f} GB/s copied."
        )
    return "\n".join(lines) + "\n"


def times(ratio: float) -> str:
    """A ratio; a share of one with two digits."""
    return f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2f}"


def _short(number: float) -> str:
    """Three digits: 53,200 or 0.00124."""
    rounded = float(f"{number:.3g}")
    return f"{rounded:,.0f}" if rounded >= 1000 else f"{rounded:g}"


def _megabytes(count: float | None) -> str:
    return "-" if count is None else f"{count / 1e6:,.0f} MB"
