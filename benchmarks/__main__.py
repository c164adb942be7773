"""Every stage beside its plain loop: `python -m benchmarks [STAGE ...] [--case CASE ...]`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks.cases import CASES, load_case
from benchmarks.duels import DUELS
from benchmarks.machine import measure_machine
from benchmarks.measure import measure, peak_memory
from benchmarks.page import page, row_of, table
from datasets.files import write_atomically

DOCS = Path(__file__).resolve().parent.parent / "docs"


def main(words: Sequence[str]) -> int:
    """Measure, print the table, and write the page if asked to."""
    parser = _parser()
    options = parser.parse_args(words)
    if unknown := set(options.stages) - DUELS.keys():
        parser.error(f"unknown stage {min(unknown)!r}; known: {', '.join(DUELS)}")
    torch.set_num_threads(options.threads)
    machine = measure_machine()
    rows = []
    for stage in options.stages or DUELS:
        for name in options.case or CASES:
            measured = measure(DUELS[stage](load_case(name)), options.rounds)
            if options.memory:
                measured = replace(
                    measured,
                    memory=peak_memory(stage, name, "ours", options.threads),
                    plain_memory=peak_memory(stage, name, "plain", options.threads),
                )
            rows.append(row_of(measured, stage, machine))
            sys.stderr.write(
                f"{stage} {name}: {rows[-1]['ratio']:.1f} times as fast, "
                f"{rows[-1]['floor_share']:.0%} of the floor\n"
            )
    sys.stdout.write(table(rows))
    if options.write:
        command = shlex.join(["python", "-m", "benchmarks", *words])
        write_atomically(DOCS / "performance.md", page(rows, machine, command).encode())
        document = {"command": command, "machine": asdict(machine), "rows": rows}
        text = json.dumps(document, indent=1) + "\n"
        write_atomically(DOCS / "performance.json", text.encode())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=", ".join(DUELS))
    parser.add_argument("--case", action="append", choices=CASES, help="may be repeated")
    parser.add_argument("--rounds", type=int, default=7, help="of both sides in turns (7)")
    parser.add_argument("--threads", type=int, default=2, help="of both sides (2)")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="only times")
    parser.add_argument("--write", action="store_true", help="docs/performance.md and .json")
    return parser


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
