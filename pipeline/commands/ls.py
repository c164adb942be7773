"""`omrl ls`: the runs and the artefacts in the store."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pipeline.console import human_age, human_seconds, human_size, say, say_json, table, tell
from pipeline.exits import OK

if TYPE_CHECKING:
    from pipeline.imports import ImportRecord
    from pipeline.manifest import Manifest
    from pipeline.records import RunRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `omrl ls`."""
    parser.add_argument("--json", action="store_true", help="for programs")


def main(options: argparse.Namespace) -> int:
    """List everything; the data are not read, `omrl verify` does that."""
    from pipeline.imports import list_imports, unreadable_imports
    from pipeline.records import list_records, unreadable_records
    from pipeline.store import Store, default_root

    store = Store(default_root())
    records, manifests = list_records(store), store.manifests()
    imports = list_imports(store)
    for path in unreadable_records(store):
        tell(f"{path} cannot be read: its run is not listed")
    for path in unreadable_imports(store):
        tell(f"{path} cannot be read: its imported trials are not listed")
    users: dict[str, list[str]] = {}
    for record in records:
        for reference in dict.fromkeys(record.artefacts.values()):
            users.setdefault(reference, []).append(record.name)
    if options.json:
        say_json(
            {
                "store": str(store.root),
                "runs": [run_object(record) for record in records],
                "imports": [import_object(record) for record in imports],
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
    if records or not imports:
        say(_run_table(records))
        say()
    if imports:
        say(_import_table(imports))
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


def import_object(record: ImportRecord) -> dict[str, Any]:
    """Imported trials for programs."""
    return {
        "name": record.name,
        "domain": record.domain,
        "artefact": record.artefact,
        "created": record.created,
        "command": record.command,
        **record.summary,
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


def _import_table(imports: list[ImportRecord]) -> str:
    rows = [
        (
            record.name,
            record.domain,
            str(record.summary.get("tasks", "?")),
            str(record.summary.get("trials", "?")),
            human_age(record.created),
            record.artefact[: record.artefact.index("/") + 9],
        )
        for record in imports
    ]
    header = ("import", "domain", "tasks", "trials", "age", "artefact")
    return table(header, rows, right=(2, 3, 4))


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
