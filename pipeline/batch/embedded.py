"""A batch through Prefect from the command line, with no server to set up."""

from __future__ import annotations

import logging
import signal
import threading
from typing import TYPE_CHECKING

from pipeline.batch.drive import OnLook, OnResult, drive
from pipeline.batch.job import JobResult
from pipeline.batch.request import BatchRequest
from pipeline.embedded import connect, short
from pipeline.errors import ConfigError
from pipeline.exits import exit_code
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.batch.carry_out import BatchSession

log = logging.getLogger("omrl.prefect")


def drive_with_prefect(
    request: BatchRequest,
    store: Store,
    stop: threading.Event,
    on_result: OnResult,
    on_look: OnLook,
    families: list[str],
    name: str | None,
) -> list[JobResult]:
    """`drive`, seen by Prefect. Processes of this machine do without it where it fails.

    Raises:
        ConfigError: Prefect cannot be used, and the runner needs it.
    """
    try:
        connect(store)
        from pipeline.batch.carry_out import BatchSession
    except Exception as error:
        if request.where.runner != "process":
            text = f"--runner {request.where.runner} needs Prefect, which cannot be used"
            raise ConfigError(f"{text} ({short(error)})") from error
        log.warning("Prefect cannot be used (%s); going on without it", short(error))
        return drive(request, store, stop=stop, on_result=on_result, on_look=on_look)
    handler = signal.getsignal(signal.SIGTERM)
    session = BatchSession(store, stop, on_result, on_look, on_sigterm=handler)
    return _call_flow(request, session, families, name)


def _call_flow(
    request: BatchRequest, session: BatchSession, families: list[str], name: str | None
) -> list[JobResult]:
    from pipeline.batch.carry_out import SESSION
    from pipeline.batch.flow import metaworld_batch

    known = next(member.loaded for member in request.members if member.loaded is not None)
    token = SESSION.set(session)
    try:
        metaworld_batch(
            families=families,
            seeds=list(request.seeds),
            overrides=list(known.overrides),
            runner=request.where.runner,
            address=request.where.address,
            concurrency=request.where.concurrency,
            name=name,
            runtime=request.runtime,
            return_state=True,
        )
    except Exception as error:
        if exit_code(error) is not None:
            raise
        log.warning("Prefect failed (%s)", short(error))
    finally:
        SESSION.reset(token)
    if session.error is not None:
        raise session.error
    if session.results is None:
        raise RuntimeError("Prefect ended the batch before its jobs had")
    return session.results
