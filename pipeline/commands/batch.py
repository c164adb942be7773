"""`omrl batch`: many presets and seeds side by side, on this machine or on a cluster."""

from __future__ import annotations

import argparse
import threading
import time
from typing import TYPE_CHECKING, Self

from pipeline.commands.run import parse_seeds, runtime_of
from pipeline.console import human_seconds, say, table, tell
from pipeline.errors import ConfigError
from pipeline.exits import FAILED, INTERRUPTED, OK
from pipeline.names import printable

if TYPE_CHECKING:
    from collections.abc import Collection

    from pipeline.batch.job import JobResult
    from pipeline.batch.request import BatchRequest
    from pipeline.store import Store

_LOOK_SECONDS = 2.0  # between two looks into the logs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `omrl batch`."""
    parser.add_argument(
        "presets", metavar="PRESET", nargs="+", help="presets, files, or ml1/eleven and ml1/all"
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change one setting of all of them; may be repeated",
    )
    parser.add_argument("--seeds", default="0", metavar="A..B", help="0..4 or 0,2,5 (0)")
    parser.add_argument("--runner", default="process", help="process, dask or ray (process)")
    parser.add_argument("--address", metavar="URL", help="a scheduler's, such as tcp://host:8786")
    parser.add_argument("--concurrency", metavar="N", help="runs at once (as there is room for)")
    parser.add_argument("--name", help="the batch's name, instead of the presets'")
    parser.add_argument("--dry-run", action="store_true", help="say what would run, and why")
    parser.add_argument("--no-prefect", action="store_true", help="plain Python, no Prefect")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="float32", help="float32 or tf32")
    parser.add_argument("--threads", default="2", metavar="N", help="CPU threads a run (2)")
    parser.add_argument("--workers", default="2", metavar="N", help="collectors a run (2)")


def main(options: argparse.Namespace) -> int:
    """Run all that is not in the store, and say what came of it."""
    from pipeline.batch.request import Where, batch_request, checked_runner
    from pipeline.batch.runners import check_where
    from pipeline.store import Store, default_root

    where = Where(checked_runner(options.runner), options.address, _concurrency(options))
    request = batch_request(
        options.presets,
        parse_seeds(None, options.seeds),
        options.overrides,
        options.name,
        where,
        runtime_of(options, options.quiet),
    )
    check_where(where, prefect=not options.no_prefect)
    store = Store(default_root())
    if options.dry_run:
        say(_outlook(request, store))
        return OK
    return _run(options, request, store)


def _concurrency(options: argparse.Namespace) -> int | None:
    text = options.concurrency
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 10_000):
        raise ConfigError(f"--concurrency {printable(text)}: must be a count of at least 1")
    return int(text)


def _run(options: argparse.Namespace, request: BatchRequest, store: Store) -> int:
    from pipeline.signals import stopping_on_signals

    stop = threading.Event()
    total = sum(member.loaded is not None for member in request.members) * len(request.seeds)
    tell(f"batch {request.name}: {total} runs in {store.root}")
    for member in request.members:
        if member.problem:
            tell(f"  {member.label}: failed, {member.problem}")
    with stopping_on_signals(stop), _Progress(store, total, options.quiet) as progress:
        results = _drive(options, request, store, stop, progress)
    again = request.command + (" --no-prefect" if options.no_prefect else "")
    return _finish(request, store, results, again, stop.is_set())


def _drive(
    options: argparse.Namespace,
    request: BatchRequest,
    store: Store,
    stop: threading.Event,
    progress: _Progress,
) -> list[JobResult]:
    if options.no_prefect:
        from pipeline.batch.drive import drive

        return drive(request, store, stop=stop, on_result=progress.ended, on_look=progress.look)
    from pipeline.batch.embedded import drive_with_prefect

    return drive_with_prefect(
        request, store, stop, progress.ended, progress.look, options.presets, options.name
    )


class _Progress:
    """A bar over the runs that says what the running ones are at; a line for each that ended."""

    def __init__(self, store: Store, total: int, quiet: bool) -> None:
        from stages.context import Bar

        self._store, self._total, self._count = store, total, 0
        self._since, self._looked = time.time(), 0.0
        self._quiet = quiet
        self._bar = Bar(total, "batch", "run", quiet)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def look(self, runs: Collection[str]) -> None:
        """Refresh the bar, from time to time."""
        from pipeline.batch.watch import progress_note

        if self._quiet or time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        self._bar.note(progress_note(self._store.root, runs, self._since))

    def ended(self, result: JobResult) -> None:
        """Say how a run ended."""
        self._count += 1
        how = "cached" if result.cached else result.status
        text = f"failed, {result.reason}" if result.status == "failed" else how
        at = f"[{self._count}/{self._total}]"
        self._bar.write(f"  {at} {result.run}: {text} ({human_seconds(result.seconds)})")
        self._bar.advance()


def _finish(
    request: BatchRequest, store: Store, results: list[JobResult], again: str, stopped: bool
) -> int:
    """The table, why what failed did, where the page is, and how to go on."""
    from pipeline.batch.page import verdict, write_page
    from pipeline.batch.summary import batch_table, rows

    found = rows(request, store, results)
    title = f"batch {request.name}: {verdict(found)}"
    say(batch_table(found, title, len(request.seeds), reasons=False).plain_text())
    for row in found:
        for failure in row.failures:
            say(f"{row.label}: {failure}")
    say(f"page: {write_page(request, store, found)}")
    failed = any(row.state == "failed" for row in found)
    if stopped:
        tell(f"stopped. Go on with: {again}")
        return INTERRUPTED
    if failed:
        tell(f"logs of the runs: {store.root / 'logs' / 'batches'}; again: {again}")
    return FAILED if failed else OK


def _outlook(request: BatchRequest, store: Store) -> str:
    """A line a run: which of its steps are in the store."""
    from pipeline.explain import outlooks
    from pipeline.run import RunRequest

    lines = [(m.label, "-", "failed", m.problem) for m in request.members if m.loaded is None]
    for seed in request.seeds:
        for member in request.members:
            if member.loaded is None:
                continue
            run = RunRequest(member.loaded, seed, member.run(seed), runtime=request.runtime)
            steps = outlooks(run, store)
            new = [step.step.name for step in steps if step.status != "cached"]
            why = f"from {new[0]}" if new else f"all {len(steps)} steps"
            lines.append((run.name, str(seed), "would run" if new else "cached", why))
    limit = request.where.limit(request.runtime.threads, len(lines))
    at_once = f"{request.where.runner}, up to {limit} at once"
    head = f"batch {request.name}: {len(lines)} runs, {at_once}"
    return f"{head}\n{table(('run', 'seed', 'outlook', 'why'), lines, right=(1,))}"
