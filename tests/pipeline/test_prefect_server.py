"""The server of our own: quiet, private, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from served import ends_soon

from pipeline import prefect_server
from pipeline.prefect_server import ServerNotStartedError, ensure_server, settle_environment

REPOSITORY = Path(__file__).resolve().parents[2]


def test_defaults_are_quiet_and_private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*prefect_server._QUIET, "PREFECT_HOME", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "x")  # so that what is set below is undone
        monkeypatch.delenv(name)
    settle_environment(tmp_path)
    assert os.environ["DO_NOT_TRACK"] == "1"
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert os.environ["PREFECT_HOME"] == str(tmp_path)


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in prefect_server._QUIET:
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    settle_environment(tmp_path)
    assert os.environ["DO_NOT_TRACK"] == "mine"
    assert "PREFECT_HOME" not in os.environ  # their profile goes with their server
    pending = ensure_server()
    assert (pending.url, pending.process) == ("http://127.0.0.1:1/api", None)
    pending.wait()


def test_a_server_that_dies_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setattr(prefect_server, "_COMMAND", ("-c", "raise SystemExit('no')"))
    pending = ensure_server()
    with pytest.raises(ServerNotStartedError, match=r"server\.log"):
        pending.wait()
    assert not os.environ.get("PREFECT_API_URL")
    assert "no" in (tmp_path / "server.log").read_text()


SLEEPER = """
import sys, time
from pathlib import Path
from pipeline import prefect_server
prefect_server._COMMAND = ("-c", "import time; time.sleep(60)")
prefect_server.settle_environment(Path(sys.argv[1]))
print(prefect_server.ensure_server().process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_parent_leaves_no_orphan(tmp_path: Path, how: signal.Signals) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER, str(tmp_path)],
        cwd=REPOSITORY,
        env={**environment, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert os.getsid(child) == child  # a terminal's Ctrl-C does not reach it
        parent.send_signal(how)
    assert ends_soon(child), "the server outlived its parent"
