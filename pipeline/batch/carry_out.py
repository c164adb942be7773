"""What the flow of a batch does, and what a program that calls it wants of it beside parameters."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.states import Cancelled, Completed, Failed

from pipeline.artifacts import artifact_key
from pipeline.batch.drive import OnLook, OnResult, Submit, drive
from pipeline.batch.job import JobResult
from pipeline.batch.page import markdown_page, verdict, write_page
from pipeline.batch.request import BatchRequest
from pipeline.batch.runners import check_where
from pipeline.batch.summary import Row, batch_table, rows
from pipeline.batch.tasks import prefect_pool
from pipeline.flows import own_sigterm
from pipeline.store import Store, default_root

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


@dataclass
class BatchSession:
    """What a calling program wants of the flow beside its parameters, and what it gets."""

    store: Store
    stop: threading.Event
    on_result: OnResult | None = None
    on_look: OnLook | None = None
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


def carry_out(request: BatchRequest) -> State[Any]:
    """All of a batch, inside a flow's run: its jobs, its page and its artifacts; the flow's state.

    Raises:
        ConfigError: its runner cannot be used.
    """
    check_where(request.where)
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
            return drive(request, session.store, pool, session.stop, session.told, session.on_look)
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
