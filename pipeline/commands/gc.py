"""`omrl gc`: delete what no run uses. What a run is using right now is never touched."""

from __future__ import annotations

import argparse

from pipeline.console import human_size, say, table
from pipeline.exits import OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `omrl gc`."""
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    parser.add_argument(
        "--forget",
        metavar="RUN",
        action="append",
        default=[],
        help="forget this run, or these imported trials, first, so that what only it used goes too",
    )


def main(options: argparse.Namespace) -> int:
    """Forget runs, collect garbage, say how much room that made."""
    from pipeline.garbage import find_garbage, in_use, remove
    from pipeline.imports import delete_import, find_import
    from pipeline.records import delete_record, read_record
    from pipeline.store import Store, default_root

    store = Store(default_root())
    imported = {name for name in options.forget if find_import(store, name) is not None}
    for run in options.forget:
        if run not in imported:
            read_record(store, run)
    garbage = find_garbage(store, frozenset(options.forget))
    if not options.dry_run:
        for run in dict.fromkeys(options.forget):
            (delete_import if run in imported else delete_record)(store, run)
    rows, total = [], 0
    for item in garbage:
        size = item.size
        gone = not in_use(store, item) if options.dry_run else remove(store, item)
        name = item.path.relative_to(store.root)
        rows.append((str(name), human_size(size), item.reason if gone else "in use, kept"))
        total += size if gone else 0
    if rows:
        say(table(("what", "size", "why"), rows, right=(1,)))
    say(f"{human_size(total)} {'would be' if options.dry_run else 'were'} freed")
    return OK
