"""Every stage beside its plain loop: `python -m benchmarks [STAGE ...] [--case CASE ...]`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarks.cases import CASES, load_case
from benchmarks.duels import DUELS
from benchmarks.machine import measure_machine
from benchmarks.measure import measure, peak_memory
from benchmarks.on_device import device_table, measure_updates, merged_updates
from benchmarks.page import (
    Document,
    Row,
    merged,
    read_document,
    row_of,
    table,
    times,
    write_document,
)
from benchmarks.startup import measure_startup, startup_table
from benchmarks.to_loss import loss_table, race
from pipeline.commands.bench import add_arguments
from pipeline.names import did_you_mean
from stages.context import check_device
from stages.errors import StageError

STAGES = (*DUELS, "loss", "startup", "device")


def main(words: Sequence[str]) -> int:
    """Measure, print the table, and write the page if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add_arguments(parser)
    options = parser.parse_args(words)
    for what, asked, known in (("stage", options.stages, STAGES), ("case", options.case, CASES)):
        if unknown := set(asked) - set(known):
            name = min(unknown)
            parser.error(f"unknown {what} {name!r}; {did_you_mean(name, known)}")
    for what in ("rounds", "threads"):
        if getattr(options, what) < 1:
            parser.error(f"--{what} {getattr(options, what)}: must be a count of at least 1")
    try:
        check_device(options.device)
    except StageError as error:
        parser.error(str(error))
    stages = options.stages or STAGES[:-1]  # a device is measured where it is asked for
    command = shlex.join(["python", "-m", "benchmarks", *words])
    measured: Document = {}
    if duels := [stage for stage in stages if stage in DUELS]:
        measured["duels"] = _run_duels(duels, options, command)
        sys.stdout.write(table(measured["duels"]))
    if "loss" in stages:
        measured["loss"] = [race(name, options.threads) for name in options.case or CASES]
        sys.stdout.write(loss_table(measured["loss"]))
    if "device" in stages:
        torch.set_num_threads(options.threads)
        measured["device"] = measure_updates(options.case or CASES, options.device, command)
        sys.stdout.write(device_table(measured["device"]))
    if "startup" in stages:
        measured["startup"] = measure_startup(options.rounds)
        sys.stdout.write(startup_table(measured["startup"]))
    if options.write:
        before = read_document()
        for kind in measured.keys() & {"duels", "loss"}:
            measured[kind] = merged(before.get(kind, []), measured[kind])
        if "device" in stages:
            measured["device"] = merged_updates(before.get("device", []), measured["device"])
        write_document(before | measured)
    return 0


def _run_duels(stages: Sequence[str], options: argparse.Namespace, command: str) -> list[Row]:
    """A row for every stage and case; says each on the way."""
    torch.set_num_threads(options.threads)
    machine = measure_machine()
    rows = []
    for stage in stages:
        for name in options.case or CASES:
            measured = measure(DUELS[stage](load_case(name)), options.rounds)
            if not options.no_memory:
                measured = replace(
                    measured,
                    memory=peak_memory(stage, name, "ours", options.threads),
                    plain_memory=peak_memory(stage, name, "plain", options.threads),
                )
            rows.append(row_of(measured, stage, machine, command))
            sys.stderr.write(
                f"{stage} {name}: {times(rows[-1]['ratio'])} times as fast, "
                f"{rows[-1]['floor_share']:.0%} of the floor\n"
            )
    return rows


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
