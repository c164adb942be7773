"""`omrl scores`: what the complete runs of a domain in the store have scored."""

from __future__ import annotations

import argparse

from pipeline.console import say, say_json
from pipeline.exits import OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `omrl scores`."""
    parser.add_argument("domain", nargs="?", help="a domain's name; all if left out")
    parser.add_argument("--json", action="store_true", help="rows as in docs/results.json")


def main(options: argparse.Namespace) -> int:
    """Print the rows; an empty list is a valid answer, an unknown domain is not."""
    from environments.registry import load_family
    from pipeline.records import list_records
    from pipeline.scores import score_rows, score_table
    from pipeline.store import Store, default_root

    store = Store(default_root())
    if options.domain not in (None, *(record.domain for record in list_records(store))):
        load_family(options.domain)  # raises TaskError if there is none
    rows = score_rows(store, options.domain)
    if options.json:
        say_json(rows)
    elif rows:
        say(score_table(rows))
    else:
        say(f"no complete run yet; try `omrl run {options.domain or 'gridworld'}`")
    return OK
