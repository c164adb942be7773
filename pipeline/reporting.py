"""From run records to the report: which folders it reads, and whether it must be drawn anew."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from datasets.errors import DataError
from datasets.files import read_json, write_json
from pipeline.again import again
from pipeline.errors import StoreError
from pipeline.manifest import Manifest, content_digest, scan
from pipeline.names import checked_name
from pipeline.presets import preset_stem
from pipeline.records import RunRecord, list_records
from pipeline.scores import SCORES_STEP
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.report.build import OtherRun, ReportRequest
    from pipeline.report.sources import ArtefactFacts, SeedFolders

STAMP = "stamp.json"


def write_run_report(
    store: Store, records: Sequence[RunRecord], name: str, refresh: bool = False
) -> Path:
    """The page of one run over its seeds, at `reports/<name>/index.html`.

    One whose inputs have not changed since is left as it is. A new one replaces the old as a whole.

    Raises:
        StoreError: an artefact of the run is gone or damaged.
        DataError: a stage's file is not what the report expects.
    """
    checked_name(name, "report")
    from pipeline.report.build import VERSION, write_report

    request = report_request(store, records, name)
    digest = hashlib.sha256(
        json.dumps([VERSION, asdict(request)], sort_keys=True, default=str).encode()
    ).hexdigest()
    runs = [record.name for record in records]
    return replace_report(
        store, name, digest, runs, lambda output: write_report(request, output), refresh
    )


def replace_report(
    store: Store,
    name: str,
    digest: str,
    runs: list[str],
    draw: Callable[[Path], None],
    refresh: bool = False,
) -> Path:
    """Put what `draw` writes into an empty folder at `reports/<name>/`; its index.html.

    One of the same digest and runs is left as it is. A new one replaces the old as a whole.
    """
    folder = store.folder("reports") / name
    temporary = store.folder(".tmp") / f"report-{name}"
    lock = store.lock(temporary.name)
    lock.wait_exclusive()
    try:
        if refresh or not _current(folder, digest, runs):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            draw(temporary)
            contents = content_digest(scan(temporary))
            stamp = {"request": digest, "contents": contents, "runs": runs}
            write_json(temporary / STAMP, stamp)
            if folder.exists():
                store.discard(folder)
            temporary.rename(folder)
            store.empty_trash()
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        lock.release()
    return folder / "index.html"


def report_request(store: Store, records: Sequence[RunRecord], name: str) -> ReportRequest:
    """What the report reads, from the store."""
    from pipeline.report.build import ReportRequest

    first = records[0]
    return ReportRequest(
        name=name,
        preset=first.preset,
        family=first.domain,
        difference=", ".join(first.overrides),
        command=again(records),
        seeds=tuple(_seed_folders(store, record) for record in records),
        others=tuple(_others(store, first)),
    )


def report_runs(folder: Path) -> list[str]:
    """The runs that a page is of, as its stamp says; none if it says nothing."""
    try:
        runs = read_json(folder / STAMP)["runs"]
    except (DataError, OSError, KeyError, TypeError):
        return []
    return [run for run in runs if isinstance(run, str)] if isinstance(runs, list) else []


def _current(folder: Path, digest: str, runs: list[str]) -> bool:
    """Whether a page of exactly this request and these runs lies there, undamaged."""
    try:
        stamp = read_json(folder / STAMP)
        files = {name: entry for name, entry in scan(folder).items() if name != STAMP}
        contents = content_digest(files)
        return bool(stamp == {"request": digest, "contents": contents, "runs": runs})
    except (DataError, OSError):
        return False


def _seed_folders(store: Store, record: RunRecord) -> SeedFolders:
    from pipeline.report.sources import SeedFolders

    folders: dict[str, Path] = {}
    lineage: list[ArtefactFacts] = []
    for step, reference in record.artefacts.items():
        artefact = store.find(*store.parse(reference))
        if artefact is None:
            raise StoreError(
                f"{reference} of run {record.name} is gone or damaged; run again: {record.command}"
            )
        # the agent comes before the task-blind one
        folders.setdefault(artefact.manifest.kind, artefact.folder)
        lineage.append(_facts(step, artefact.manifest))
    return SeedFolders(record.seed, folders, tuple(lineage))


def _facts(step: str, manifest: Manifest) -> ArtefactFacts:
    from pipeline.report.sources import ArtefactFacts

    return ArtefactFacts(
        stage=step,
        kind=manifest.kind,
        fingerprint=manifest.fingerprint,
        digest=manifest.digest,
        seed=manifest.seed,
        config=manifest.config,
        inputs={name: entry.reference for name, entry in manifest.inputs.items()},
        versions=manifest.versions,
        seconds=manifest.seconds,
        finished=manifest.created,
        size=manifest.size,
    )


def _others(store: Store, own: RunRecord) -> list[OtherRun]:
    """Complete runs of the domain with another configuration, to compare with.

    Under one preset and overrides only the newest configuration counts.
    """
    from pipeline.report.build import OtherRun
    from pipeline.report.comparison import differences

    groups: dict[tuple[str, tuple[str, ...]], list[RunRecord]] = {}
    for record in list_records(store):  # oldest first
        key = (record.preset, record.overrides)
        if record.domain == own.domain and record.status == "complete":
            groups.setdefault(key, []).append(record)
    groups.pop((own.preset, own.overrides), None)
    found = []
    for (preset, _), group in sorted(groups.items()):
        newest = [r for r in group if r.config_digest == group[-1].config_digest]
        folders = tuple(f for f in (_scores_folder(store, r) for r in newest) if f is not None)
        if folders:
            difference = differences(own.config, newest[0].config)
            found.append(OtherRun(preset_stem(preset), difference, folders))
    return found


def _scores_folder(store: Store, record: RunRecord) -> Path | None:
    reference = record.artefacts.get(SCORES_STEP)
    artefact = None if reference is None else store.find(*store.parse(reference))
    return None if artefact is None else artefact.folder
