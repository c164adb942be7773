"""Locks: exclusive or shared, between processes, and gone with their holder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY

from pipeline.locks import KeyLock


def test_one_writer_or_many_readers(tmp_path: Path) -> None:
    a, b, c = (KeyLock(tmp_path / "x.lock") for _ in range(3))
    assert a.try_shared()
    assert b.try_shared()
    assert not c.try_exclusive()
    a.release()
    b.release()
    assert c.try_exclusive()
    d = KeyLock(tmp_path / "x.lock")
    assert not d.try_shared()
    assert c.try_shared()  # the writer turns reader
    assert d.try_shared()
    c.release()
    c.release()
    d.release()


def test_different_keys_do_not_meet(tmp_path: Path) -> None:
    a, b = KeyLock(tmp_path / "a.lock"), KeyLock(tmp_path / "b.lock")
    assert a.try_exclusive()
    assert b.try_exclusive()
    b.wait_exclusive()


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "x.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        KeyLock(tmp_path / "x.lock")
    assert not (tmp_path / "elsewhere").exists()


HOLDER = """
import os, sys, time
from pathlib import Path
from pipeline.locks import KeyLock
lock = KeyLock(Path(sys.argv[1]))
assert lock.try_exclusive()
if os.fork() == 0:  # a worker that outlives its parent
    print("held", os.getpid(), flush=True)
    time.sleep(60)
time.sleep(60)
"""


def test_a_killed_holder_lets_go_though_its_forked_worker_lives(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    worker = int(holder.stdout.readline().split()[1])
    try:
        mine = KeyLock(path)
        assert not mine.try_exclusive()
        holder.kill()
        holder.wait()
        begun = time.monotonic()
        while not mine.try_exclusive():
            assert time.monotonic() - begun < 5
            time.sleep(0.01)
    finally:
        os.kill(worker, signal.SIGKILL)
        holder.stdout.close()
