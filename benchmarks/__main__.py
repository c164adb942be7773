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
from benchmarks.page import page, row_of, table, times
from datasets.files import write_atomically
from pipeline.commands.bench import add_arguments
from pipeline.names import did_you_mean

DOCS = Path(__file__).resolve().parent.parent / "docs"


def main(words: Sequence[str]) -> int:
    """Measure, print the table, and write the page if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add_arguments(parser)
    options = parser.parse_args(words)
    for what, asked, known in (("stage", options.stages, DUELS), ("case", options.case, CASES)):
        if unknown := set(asked) - set(known):
            name = min(unknown)
            parser.error(f"unknown {what} {name!r}; {did_you_mean(name, known)}")
    for what in ("rounds", "threads"):
        if getattr(options, what) < 1:
            parser.error(f"--{what} {getattr(options, what)}: must be a count of at least 1")
    torch.set_num_threads(options.threads)
    machine = measure_machine()
    rows = []
    for stage in options.stages or DUELS:
        for name in options.case or CASES:
            measured = measure(DUELS[stage](load_case(name)), options.rounds)
            if not options.no_memory:
                measured = replace(
                    measured,
                    memory=peak_memory(stage, name, "ours", options.threads),
                    plain_memory=peak_memory(stage, name, "plain", options.threads),
                )
            rows.append(row_of(measured, stage, machine))
            sys.stderr.write(
                f"{stage} {name}: {times(rows[-1]['ratio'])} times as fast, "
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


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
