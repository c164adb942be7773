"""Jobs in worker processes: the same progress however they run, a wish to stop, lost workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.errors import DataError, DiskFullError
from stages.context import Interrupted, StageContext
from stages.workers import _start_worker, _watch, _work, _worker, run_jobs


def make_context(folder: Path, **settings: Any) -> StageContext:
    """A quiet context of one worker."""
    return replace(StageContext(folder, workers=1, quiet=True), **settings)


def steps(job: int, context: StageContext) -> Iterator[int]:
    """`job` units of progress, each with its own trace in the folder."""
    for step in range(job):
        if context.interrupted:
            raise Interrupted("stopped")
        (context.checkpoints / f"{job}-{step}-{torch.get_num_threads()}").touch()
        yield 1


def killed(job: int, context: StageContext) -> Iterator[int]:
    """A job whose process is killed as by a machine without memory."""
    yield 1
    os.kill(os.getpid(), signal.SIGKILL)


def traces(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_on_one_thread(tmp_path: Path, workers: int) -> None:
    threads = torch.get_num_threads()
    done = list(run_jobs("count", steps, [2, 3], make_context(tmp_path, workers=workers)))
    assert sum(done) == 5
    assert traces(tmp_path) == {"2-0-1", "2-1-1", "3-0-1", "3-1-1", "3-2-1"}
    assert torch.get_num_threads() == threads


def test_one_job_needs_no_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("stages.workers.ProcessPoolExecutor")
    assert list(run_jobs("count", steps, [3], make_context(tmp_path, workers=4))) == [1, 1, 1]


def test_a_killed_worker_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ChildProcessError, match=r"^count: a worker process was killed.*run again"):
        list(run_jobs("count", killed, [1, 2], make_context(tmp_path, workers=2)))


def test_a_wish_to_stop_reaches_worker_processes(tmp_path: Path) -> None:
    context = make_context(tmp_path, workers=2)
    context.stop.set()
    with pytest.raises(Interrupted):
        list(run_jobs("count", steps, [100_000, 100_001], context))


# ---------------------------------------------------------------------- the pieces, in this process


def test_a_worker_counts_its_steps_and_hears_its_parent(tmp_path: Path) -> None:
    """What runs in a worker process, run here."""
    stop, counter = multiprocessing.Event(), multiprocessing.Value("q", 0)
    before, threads = signal.getsignal(signal.SIGINT), torch.get_num_threads()
    try:
        _start_worker(stop, counter, str(tmp_path), 0.0, "cpu")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert torch.get_num_threads() == 1
        _work(steps, 4)
        assert counter.value == 4
        stop.set()
        with pytest.raises(Interrupted):
            _work(steps, 4)
        assert counter.value == 4
    finally:
        signal.signal(signal.SIGINT, before)
        torch.set_num_threads(threads)
        _worker.clear()


class Shared:
    """Stands for what is shared with workers."""

    def __init__(self) -> None:
        self.value = 0
        self.stopped = False

    def set(self) -> None:
        self.stopped = True


def finished_future(error: BaseException | None = None) -> Future[None]:
    """A future that is done, or has failed."""
    future: Future[None] = Future()
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
    return future


def test_a_wish_to_stop_reaches_the_workers(tmp_path: Path) -> None:
    shared, context = Shared(), make_context(tmp_path)
    waiting: Future[None] = Future()
    watch = _watch("count", [finished_future(), waiting], shared, shared, context)
    shared.value = 2
    assert next(watch) == 2
    context.stop.set()
    assert next(watch) == 0
    assert shared.stopped
    waiting.set_exception(Interrupted())
    with pytest.raises(Interrupted):
        list(watch)


def test_the_first_failure_stops_the_others(tmp_path: Path) -> None:
    shared, waiting = Shared(), Future[None]()
    futures = [finished_future(DataError("torn")), waiting]
    with pytest.raises(DataError, match="torn"):
        list(_watch("count", futures, shared, shared, make_context(tmp_path)))
    assert shared.stopped
    assert waiting.cancelled()


def test_a_worker_that_dies_of_the_users_signal_was_stopped(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    context.stop.set()
    with pytest.raises(Interrupted):
        list(_watch("count", [finished_future(BrokenProcessPool())], Shared(), Shared(), context))


def test_a_full_disk_is_told_across_processes() -> None:
    error = ForkingPickler.loads(ForkingPickler.dumps(DiskFullError(Path("/full"), 12, 28)))
    assert isinstance(error, DiskFullError)
    assert (error.path, error.bytes_needed, error.errno) == (Path("/full"), 12, 28)
    assert "/full: 12 bytes are needed" in str(error)
