"""`omrl verify`: read every byte of one artefact, or of all, and compare."""

from __future__ import annotations

import argparse

from pipeline.console import human_size, say, say_json, table, tell
from pipeline.exits import FAILED, OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `omrl verify`."""
    parser.add_argument("id", nargs="?", help="the start of an artefact's id; all if left out")
    parser.add_argument("--json", action="store_true", help="for programs")


def main(options: argparse.Namespace) -> int:
    """Verify; 1 if anything is damaged. Nothing is changed: the next run makes it anew."""
    from pipeline.imports import unreadable_imports
    from pipeline.records import unreadable_records
    from pipeline.store import Store, default_root

    store = Store(default_root())
    unreadable = unreadable_records(store) if options.id is None else []
    for path in unreadable:
        tell(f"{path} cannot be read; run its preset again to write it anew")
    lost = unreadable_imports(store) if options.id is None else []
    for path in lost:
        tell(f"{path} cannot be read; import its logs again under that name to write it anew")
    keys = [store.resolve(options.id)] if options.id is not None else list(store.all_keys())
    found = []
    for kind, name in keys:
        finding = store.inspect(kind, name)
        size = finding.manifest.size if finding.manifest is not None else 0
        found.append((f"{kind}/{name}", size, finding.problem))
    damaged = sum(problem is not None for *_, problem in found)
    if options.json:
        say_json(
            [
                {"id": reference, "ok": problem is None, "bytes": size, "problem": problem}
                for reference, size, problem in found
            ]
        )
    else:
        rows = [(ref, human_size(size), problem or "whole") for ref, size, problem in found]
        say(table(("artefact", "size", "state"), rows, right=(1,)))
        say(f"{len(found)} artefacts, {damaged} damaged")
    return FAILED if damaged or unreadable or lost else OK
