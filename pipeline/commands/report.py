"""`omrl report`: a run's HTML page and tables, written again from the store."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.console import say
from pipeline.exits import OK

if TYPE_CHECKING:
    from pipeline.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `omrl report`."""
    parser.add_argument("runs", metavar="RUN", nargs="+", help="runs of one preset, one a seed")
    parser.add_argument("--name", help="the report's name, instead of the runs'")


def main(options: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    from pipeline.store import Store, default_root

    say(str(write(Store(default_root()), options.runs, options.name, refresh=True)))
    return OK


def write(
    store: Store, runs: Sequence[str], name: str | None = None, refresh: bool = False
) -> Path:
    """The page over these runs, which must differ in their seeds only.

    Raises:
        StoreError: no such run, one given twice, or runs of several presets.
    """
    from pipeline.errors import StoreError
    from pipeline.records import read_record
    from pipeline.reporting import write_run_report

    records = [read_record(store, run) for run in runs]
    if len({record.name for record in records}) < len(records):
        raise StoreError("a run stands twice; a report takes runs that differ in their seeds")
    if len({(r.preset, r.overrides, r.config_digest) for r in records}) > 1:
        raise StoreError("one report takes runs that differ in their seeds only; give one run")
    if any(r.status != "complete" for r in records):
        unfinished = next(r for r in records if r.status != "complete")
        raise StoreError(f"run {unfinished.name} is not complete; go on with: {unfinished.command}")
    stem = records[0].name.rpartition("-seed")[0]
    return write_run_report(
        store, records, name or (records[0].name if len(records) == 1 else stem), refresh
    )
