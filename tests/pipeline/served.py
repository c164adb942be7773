"""Real servers and workers on loopback, for tests: start them, wait for them, see them end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def background(words: Sequence[str], env: dict[str, str], log: Path) -> Iterator[None]:
    """`python -m WORDS` in a session of its own, ended with all that it started."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=REPOSITORY,
            env=env,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        yield
    finally:
        for _ in range(2):  # Prefect's worker ends at the second signal
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=15)
                break
            except subprocess.TimeoutExpired:
                continue
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(url: str, tries: int = 400) -> None:
    """Return once `url` answers."""
    for _ in range(tries):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"{url} does not answer")


def ends_soon(process: int) -> bool:
    """Whether a process, by its number, is gone within five seconds; it is killed otherwise."""
    for _ in range(100):
        if not _alive(process):
            return True
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    return False


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
