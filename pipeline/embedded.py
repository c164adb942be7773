"""A run through Prefect from the command line, with no server to set up.

Prefect watches the run; it is never in its way. Where everything is in the store there is nothing
to watch, and where Prefect itself fails the run goes on without it.
"""

from __future__ import annotations

import logging
import signal
import threading
from typing import TYPE_CHECKING, get_args

from pipeline.exits import exit_code
from pipeline.explain import outlooks
from pipeline.prefect_server import ensure_server, settle_environment
from pipeline.run import OnStep, RunRequest, RunResult, execute
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.flows import Session

log = logging.getLogger("omrl.prefect")


def execute_with_prefect(
    request: RunRequest,
    store: Store,
    stop: threading.Event | None = None,
    on_step: OnStep | None = None,
    report: bool = True,
) -> RunResult:
    """`execute`, seen by Prefect: the user's server if PREFECT_API_URL names one, else our own.

    Raises:
        Exception: as `execute`.
    """
    stop = stop or threading.Event()
    if all(outlook.status == "cached" for outlook in outlooks(request, store)):
        return execute(request, store, stop=stop, on_step=on_step)
    try:
        session = _open_session(request, store, stop, on_step)
    except Exception as error:
        log.warning("Prefect cannot be used (%s); going on without it", short(error))
        return execute(request, store, stop=stop, on_step=on_step)
    try:
        _call_flow(request, session, report)
    except Exception as error:
        if session.error is not None:
            raise session.error from None  # without Prefect's frames
        if exit_code(error) is not None:
            raise
        if not session.results:
            log.warning("Prefect failed (%s); going on without it", short(error))
            return execute(request, store, stop=stop, on_step=on_step)
        log.warning("Prefect failed after the run (%s)", short(error))
    return session.results[0]


def _open_session(
    request: RunRequest, store: Store, stop: threading.Event, on_step: OnStep | None
) -> Session:
    """Start the server if there is none, and import the flow."""
    connect(store)
    from pipeline.flows import Session

    on_sigterm = signal.getsignal(signal.SIGTERM)
    return Session(store, stop, on_step, request.command, on_sigterm=on_sigterm)


def connect(store: Store) -> None:
    """Have Prefect imported and its server answer: the user's, or one of our own.

    Raises:
        ServerNotStartedError: ours did not come up.
    """
    settle_environment(store.root / ".prefect")
    pending = ensure_server()
    _import_quietly()
    pending.wait()


def _import_quietly() -> None:
    """Import Prefect, and keep its words, and ours in its form, off the terminal.

    It takes over the root logger, now and again when a flow is called, unless that has a handler
    with a formatter.
    """
    if not any(handler.formatter for handler in logging.root.handlers):
        silent = logging.NullHandler()
        silent.setFormatter(logging.Formatter())
        logging.root.addHandler(silent)
    import prefect  # noqa: F401

    own = logging.getLogger("prefect")
    own.propagate = False
    own.addHandler(logging.NullHandler())


def _call_flow(request: RunRequest, session: Session, report: bool) -> None:
    from pipeline.flows import SESSION, StageName, collect_vae_offline

    token = SESSION.set(session)
    try:
        collect_vae_offline(
            preset=request.loaded.preset,
            seeds=[request.seed],
            overrides=list(request.loaded.overrides),
            refresh=[stage for stage in get_args(StageName) if stage in request.refresh],
            name=request.name.removesuffix(f"-seed{request.seed}"),
            report=report,
            runtime=request.runtime,
        )
    finally:
        SESSION.reset(token)


def short(error: Exception) -> str:
    """The first line of what it says."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
