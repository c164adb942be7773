"""`omrl ls`: the runs and the artefacts in the store."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pipeline.console import human_age, human_seconds, human_size, say, say_json, table, tell
from pipeline.exits import OK

if TYPE_CHECKING:
    from pipeline.manifest import Manifest
    from pipeline.records import RunRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `omrl ls`."""
    parser.add_argument("--json", action="store_true", help="for programs")


def main(options: argparse.Namespace) -> int:
    """List everything; the data are not read, `omrl verify` does that."""
    from pipeline.records import list_records, unreadable_records
    from pipeline.store import Store, default_root

    store = Store(default_root())
    records, manifests = list_records(store), store.manifests()
    for path in unreadable_records(store):
        tell(f"{path} cannot be read: its run is not listed")
    users: dict[str, list[str]] = {}
    for record in records:
        for reference in dict.fromkeys(record.artefacts.values()):
            users.setdefault(reference, []).append(record.name)
    if options.json:
        say_json(
            {
                "store": str(store.root),
                "runs": [run_object(record) for record in records],
                "artefacts": [
                    artefact_object(manifest, users.get(manifest.reference, []))
                    for manifest in manifests
                ],
            }
        )
        return OK
    if not records and not manifests:
        say(f"{store.root} is empty; `omrl presets` lists what can be run")
        return OK
    say(_run_table(records))
    say()
    say(_artefact_table(manifests, users))
    return OK


def run_object(record: RunRecord) -> dict[str, Any]:
    """A run for programs."""
    return {
        "name": record.name,
        "status": record.status,
        "domain": record.domain,
        "preset": record.preset,
        "overrides": list(record.overrides),
        "seed": record.seed,
        "created": record.created,
        "command": record.command,
        "artefacts": dict(record.artefacts),
    }


def artefact_object(manifest: Manifest, runs: list[str]) -> dict[str, Any]:
    """An artefact for programs."""
    return {
        "id": manifest.reference,
        "kind": manifest.kind,
        "stage": manifest.stage,
        "domain": manifest.labels.get("domain"),
        "seed": manifest.seed,
        "bytes": manifest.size,
        "seconds": manifest.seconds,
        "created": manifest.created,
        "digest": manifest.digest,
        "runs": runs,
    }


def _run_table(records: list[RunRecord]) -> str:
    rows = [
        (r.name, r.domain, str(r.seed), r.status, human_age(r.created), str(len(r.artefacts)))
        for r in records
    ]
    return table(("run", "domain", "seed", "status", "age", "artefacts"), rows, right=(2, 4, 5))


def _artefact_table(manifests: list[Manifest], users: dict[str, list[str]]) -> str:
    rows = [
        (
            f"{m.kind}/{m.fingerprint[:8]}",
            m.stage,
            m.labels.get("domain", "?"),
            str(m.seed),
            human_size(m.size),
            human_seconds(m.seconds),
            human_age(m.created),
            str(len(users.get(m.reference, []))),
        )
        for m in manifests
    ]
    header = ("artefact", "stage", "domain", "seed", "size", "took", "age", "runs")
    return table(header, rows, right=(3, 4, 5, 6, 7))
