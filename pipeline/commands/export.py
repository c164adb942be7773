"""`omrl export`: trials as D4RL files or a Minari data set, for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.console import human_size, say
from pipeline.exits import OK

if TYPE_CHECKING:
    from pipeline.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `omrl export`."""
    parser.add_argument("id", metavar="RUN|ID", help="a run, imported trials, or an artefact's id")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="new, or empty")
    parser.add_argument("--format", default="d4rl", choices=("d4rl", "minari"))
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def main(options: argparse.Namespace) -> int:
    """Write everything aside, then give it its name."""
    from pipeline.exporting import export
    from pipeline.store import Store, default_root
    from stages.context import Bar

    store = Store(default_root())
    kind, fingerprint = trials_of(store, options.id)

    def bar(total: int) -> Bar:
        return Bar(total, "export", "task", options.quiet)

    done = export(store, kind, fingerprint, Path(options.to), options.format, bar)
    say(f"{done.tasks} tasks, {done.transitions} transitions, {human_size(done.size)}")
    for line in done.lines:
        say(line)
    return OK


def trials_of(store: Store, text: str) -> tuple[str, str]:
    """The key of the trials that a run, an import or an artefact's id names.

    Raises:
        StoreError: none of that name, a run without trials, or an artefact of another kind.
    """
    from pipeline.errors import StoreError
    from pipeline.imports import find_import, list_imports
    from pipeline.names import printable
    from pipeline.records import list_records

    records = {record.name: record for record in list_records(store)}
    if text in records:
        reference = records[text].artefacts.get("collect")
        if reference is None:
            raise StoreError(f"run {text} has no trials yet; go on with: {records[text].command}")
        return store.parse(reference)
    if text in {record.name for record in list_imports(store)}:
        record = find_import(store, text)
        assert record is not None
        return store.parse(record.artefact)
    kind, fingerprint = store.resolve(text)
    if kind != "trials":
        raise StoreError(f"{printable(text)} is of kind {kind}; only trials are exported")
    return kind, fingerprint
