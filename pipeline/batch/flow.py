"""The Prefect flow `metaworld-batch`: many presets through `collect-vae-offline`, side by side.

It takes any presets; Meta-World's families are what it is for. Each run is a task that waits for a
process of its own, so none can take the others down with it.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger
from prefect import runtime as runtime_of
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.states import Cancelled, Completed, Failed
from pydantic import PositiveInt

from pipeline.artifacts import artifact_key
from pipeline.batch.drive import OnResult, Submit, drive
from pipeline.batch.job import JobResult
from pipeline.batch.page import markdown_page, verdict, write_page
from pipeline.batch.request import BatchRequest, Runner, Where, batch_request
from pipeline.batch.runners import check_where
from pipeline.batch.summary import Row, batch_table, rows
from pipeline.batch.tasks import prefect_pool
from pipeline.config import RuntimeConfig
from pipeline.flows import Seeds, own_sigterm
from pipeline.store import Store, default_root

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

_RUNTIME = RuntimeConfig(quiet=True)


@dataclass
class BatchSession:
    """What a calling program wants of the flow beside its parameters, and what it gets."""

    store: Store
    stop: threading.Event
    on_result: OnResult | None = None
    results: list[JobResult] | None = None  # None until all jobs have ended
    error: BaseException | None = None  # as raised while they ran
    on_sigterm: Any = None

    def told(self, result: JobResult) -> None:
        """Say how a job has ended: in the flow's log, and to whoever called."""
        text = result.reason or f"{result.seconds:.1f} s on {result.host}"
        get_run_logger().info("%s: %s, %s", result.run, result.status, text)
        if self.on_result is not None:
            self.on_result(result)


SESSION: ContextVar[BatchSession | None] = ContextVar("BATCH_SESSION", default=None)


def _flow_run_name() -> str:
    """`ml1/eleven, seed 0, 1`, as it stands in Prefect's lists."""
    given = runtime_of.flow_run.parameters
    named = ", ".join(given["families"])
    short = named if len(named) <= 60 else f"{given['families'][0]} and others"
    return f"{short}, seed {', '.join(map(str, given['seeds']))}"


@flow(
    name="metaworld-batch",
    flow_run_name=_flow_run_name,
    persist_result=False,
    result_serializer="json",
)
def metaworld_batch(
    families: list[str],
    seeds: Seeds = [0],  # noqa: B006 (Prefect shows it as the form's default)
    overrides: list[str] = [],  # noqa: B006
    runner: Runner = "process",
    address: str | None = None,
    concurrency: PositiveInt | None = None,
    name: str | None = None,
    runtime: RuntimeConfig = _RUNTIME,
) -> Any:
    """Run many presets, each with several seeds; one that fails leaves the others alone.

    Args:
        families: presets such as ml1/reach-wall, or ml1/eleven and ml1/all.
        seeds: every preset is run once for each.
        overrides: settings of all of them as KEY=VALUE, such as vae.kl_weight=0.1.
        runner: process (this machine), dask or ray.
        address: the scheduler's, such as tcp://host:8786; workers of this machine if empty.
        concurrency: runs at once; as many as the processors or the cluster allow if empty.
        name: the batch's name.
        runtime: device, precision, threads and workers of each run.

    Returns:
        A state: completed, or failed if any preset has failed, with one sentence.
    """
    where = Where(runner, address, concurrency)
    request = batch_request(families, seeds, overrides, name, where, runtime)
    check_where(where)
    session = SESSION.get() or BatchSession(Store(default_root()), threading.Event())
    session.results = _drive(request, session)
    found = rows(request, session.store, session.results)
    _publish(request, session.store, found)
    return _state(found, session.stop.is_set())


def _drive(request: BatchRequest, session: BatchSession) -> list[JobResult]:
    def pool(limit: int) -> AbstractContextManager[Submit]:
        return prefect_pool(request.where, limit)

    try:
        with own_sigterm(session.on_sigterm):
            return drive(request, session.store, pool, session.stop, session.told)
    except BaseException as error:
        session.error = error
        raise


def _publish(request: BatchRequest, store: Store, found: list[Row]) -> None:
    """The page, and its table as Prefect's artifacts."""
    write_page(request, store, found)
    table = batch_table(found, f"Batch {request.name}", len(request.seeds))
    key = artifact_key(request.name)
    cells = [dict(zip(table.columns, row, strict=True)) for row in table.cells()]
    create_table_artifact(cells, f"batch-{key}", table.protocol)
    create_markdown_artifact(
        markdown_page(request, table), f"batch-report-{key}", f"batch {request.name}"
    )


def _state(found: list[Row], stopped: bool) -> State[Any]:
    text = verdict(found)
    if any(row.state == "failed" for row in found):
        return Failed(message=text)
    return Cancelled(message=text) if stopped else Completed(message=text)
