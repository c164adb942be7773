"""`omrl show`: one run, one import, or one artefact with all that it was made from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipeline.console import human_age, human_seconds, human_size, say, say_json, table
from pipeline.exits import OK

if TYPE_CHECKING:
    from pipeline.imports import ImportRecord
    from pipeline.manifest import Manifest
    from pipeline.records import RunRecord
    from pipeline.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `omrl show`."""
    parser.add_argument("id", metavar="ID|RUN", help="a run's name, or the start of an artefact's")
    parser.add_argument("--json", action="store_true", help="for programs")


def main(options: argparse.Namespace) -> int:
    """Show the run of that name, else the import, else the artefact."""
    from pipeline.commands.ls import import_object, run_object
    from pipeline.imports import list_imports
    from pipeline.records import list_records
    from pipeline.store import Store, default_root

    store = Store(default_root())
    record = next((r for r in list_records(store) if r.name == options.id), None)
    if record is not None:
        if options.json:
            say_json({**run_object(record), "config": dict(record.config)})
        else:
            _say_run(store, record)
        return OK
    imported = next((i for i in list_imports(store) if i.name == options.id), None)
    if imported is not None:
        if options.json:
            say_json({**import_object(imported), "config": dict(imported.config)})
        else:
            _say_import(store, imported)
        return OK
    manifest = _manifest(store, options.id)
    if options.json:
        say_json({**manifest.to_json(), "lineage": [m.reference for m in lineage(store, manifest)]})
    else:
        _say_artefact(store, manifest)
    return OK


def lineage(store: Store, manifest: Manifest) -> list[Manifest]:
    """What an artefact was made from, the oldest first, each once; what is gone is left out."""
    return list({m.reference: m for m in _ancestors(store, manifest)}.values())


def _ancestors(store: Store, manifest: Manifest) -> Iterator[Manifest]:
    for entry in manifest.inputs.values():
        found = store.inspect(entry.kind, entry.fingerprint, data=False).manifest
        if found is not None:
            yield from _ancestors(store, found)
            yield found


def _manifest(store: Store, text: str) -> Manifest:
    from pipeline.errors import StoreError

    kind, name = store.resolve(text)
    finding = store.inspect(kind, name, data=False)
    if finding.manifest is None:
        raise StoreError(f"{kind}/{name} is damaged: {finding.problem}")
    return finding.manifest


def _say_run(store: Store, record: RunRecord) -> None:
    facts = [
        ("run", record.name),
        ("status", record.status),
        ("domain", record.domain),
        ("preset", " ".join([record.preset, *record.overrides])),
        ("seed", str(record.seed)),
        ("age", human_age(record.created)),
        ("again", record.command),
        ("report", _report_path(store, record)),
    ]
    _say_facts(facts)
    say()
    rows = []
    for step, reference in record.artefacts.items():
        kind, name = store.parse(reference)
        manifest = store.inspect(kind, name, data=False).manifest
        size = human_size(manifest.size) if manifest is not None else "gone or damaged"
        took = human_seconds(manifest.seconds) if manifest is not None else "-"
        rows.append((step, f"{kind}/{name[:8]}", size, took))
    say(table(("stage", "artefact", "size", "took"), rows, right=(2, 3)))


def _say_import(store: Store, record: ImportRecord) -> None:
    from pipeline.records import list_records

    users = [r.name for r in list_records(store) if record.artefact in r.artefacts.values()]
    numbers = {key: value for key, value in record.summary.items() if key != "fewest_trials"}
    facts = [
        ("import", record.name),
        ("domain", record.domain),
        ("artefact", record.artefact),
        ("format", str(record.config.get("format", "?"))),
        *((key.replace("_", " "), _number(value)) for key, value in numbers.items()),
        ("age", human_age(record.created)),
        ("again", record.command),
        ("runs", ", ".join(users) or "none yet"),
    ]
    _say_facts(facts)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.2f}"


def _say_artefact(store: Store, manifest: Manifest) -> None:
    facts = [
        ("artefact", manifest.reference),
        ("stage", f"{manifest.stage}, version {manifest.version}"),
        *manifest.labels.items(),
        ("seed", str(manifest.seed)),
        ("size", f"{human_size(manifest.size)} in {len(manifest.files)} files"),
        ("took", human_seconds(manifest.seconds)),
        ("created", manifest.created),
        ("digest", manifest.digest),
        *([("source", manifest.source)] if manifest.source is not None else []),
        ("versions", ", ".join(f"{k} {v}" for k, v in manifest.versions.items())),
        ("folder", str(store.artefact_folder(manifest.kind, manifest.fingerprint))),
        *((f"input {name}", entry.reference) for name, entry in manifest.inputs.items()),
    ]
    _say_facts(facts)
    say("config")
    for key, value in _flat(manifest.config):
        say(f"  {key}: {_shown(value)}")
    ancestors = lineage(store, manifest)
    if ancestors:
        say("lineage")
        for one in ancestors:
            say(f"  {one.reference}  {one.stage}, seed {one.seed}, {human_seconds(one.seconds)}")


def _say_facts(facts: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        say(f"{name.ljust(width)}  {value}")


def _flat(value: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{path}{key}.")
        else:
            yield f"{path}{key}", item


def _shown(value: Any) -> str:
    """A setting as a configuration file has it, and `-` where none was made."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(_shown(item) for item in value)}]"
    return str(value)


def _report_path(store: Store, record: RunRecord) -> str:
    """The run's own page, else the first of several seeds' that covers it."""
    from pipeline.reporting import report_runs

    pages = sorted((store.root / "reports").glob("*/index.html"))
    own = [page for page in pages if page.parent.name == record.name]
    covering = [page for page in pages if record.name in report_runs(page.parent)]
    return str(next(iter(own + covering), f"none; `omrl report {record.name}` writes it"))
