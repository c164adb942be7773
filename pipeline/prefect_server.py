"""A Prefect server for one process: on loopback, quiet, and gone when the process is.

Prefect can start such a server itself, but one that hears the terminal's Ctrl-C and so dies before
the run has saved its checkpoint, and that outlives a killed run as an orphan. This one runs in a
session of its own, and on Linux the kernel ends it with its parent.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_CLI_COLORS": "false",
}
_EPHEMERAL = {
    "PREFECT__SERVER_EPHEMERAL": "1",  # no UI, no scheduler
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
}
_COMMAND = (
    *("-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
    *("--log-level", "error", "--lifespan", "on"),
)
STARTUP_SECONDS = 120.0
_PR_SET_PDEATHSIG = 1


class ServerNotStartedError(RuntimeError):
    """The server did not come up; the message names its log."""


def settle_environment(home: Path) -> None:
    """Quiet defaults for Prefect, before it is imported; what the user has set stays.

    Its database and profiles go to `home`, unless the user has a server or a home of their own.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if "PREFECT_API_URL" not in os.environ:
        os.environ.setdefault("PREFECT_HOME", str(home.absolute()))


@dataclass(frozen=True)
class PendingServer:
    """A server that is starting, unless the user has one."""

    url: str
    process: subprocess.Popen[bytes] | None = None
    log: Path = Path()

    def wait(self) -> None:
        """Return once it answers.

        Raises:
            ServerNotStartedError: it died or did not answer in time.
        """
        if self.process is None:
            return
        deadline = time.monotonic() + STARTUP_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.1)
        self.stop()
        raise ServerNotStartedError(f"its server did not start, see {self.log}")

    def stop(self) -> None:
        """End it, if it is ours."""
        if self.process is not None:
            _stop(self.process)
            atexit.unregister(self.stop)
            os.environ.pop("PREFECT_API_URL", None)


def ensure_server() -> PendingServer:
    """The user's server if PREFECT_API_URL names one, else one of our own, which begins to start.

    Ours is started once a process, is stopped at its end, and from now on is PREFECT_API_URL: so
    Prefect may be imported, which takes seconds, while it starts.
    """
    known = os.environ.get("PREFECT_API_URL")
    if known:
        return PendingServer(known)
    home = Path(os.environ["PREFECT_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    log = home / "server.log"
    # Bound here and handed over, so that nobody can take the port in between.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        process = _start(listener.fileno(), log)
    os.environ["PREFECT_API_URL"] = url
    pending = PendingServer(url, process, log)
    atexit.register(pending.stop)
    return pending


def _start(descriptor: int, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, *_COMMAND, "--fd", str(descriptor)],
            env={**os.environ, **_EPHEMERAL},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            pass_fds=[descriptor],
            start_new_session=True,
            preexec_fn=_end_with_parent(),
        )


def _end_with_parent() -> Callable[[], None] | None:
    """What the child does before it becomes the server; nothing where there is no prctl."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we could ask
            os._exit(1)

    return ask


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
