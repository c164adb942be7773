"""Running the groups of a collection: one after the other, or several at once in processes.

A group computes with one thread wherever it runs, so its bytes do not depend on how many workers
there are. A worker stops between rounds when its parent asks it to, and dies with its parent:
otherwise it would go on writing checkpoints beside the run that takes over.
"""

from __future__ import annotations

import copyreg
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from algorithms.memory import keep_freed_memory
from datasets.errors import DiskFullError
from stages.collect_groups import GroupJob, run_group
from stages.context import Interrupted, StageContext

_POLL_SECONDS = 0.25

# An OSError is rebuilt from its errno and text alone, which this one cannot be.
copyreg.pickle(
    DiskFullError,
    lambda error: (DiskFullError, (error.path, error.bytes_needed, error.errno)),
)


def run_groups(jobs: list[GroupJob], context: StageContext) -> Iterator[int]:
    """Run all groups, yielding rounds as they are done; in processes where that helps.

    Raises:
        Interrupted: the user asked to stop; checkpoints hold all whole rounds.
        ChildProcessError: a worker was killed from outside.
    """
    if context.workers > 1 and len(jobs) > 1:
        yield from _run_in_processes(jobs, context)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    keep_freed_memory()
    try:
        for job in jobs:
            yield from run_group(job, context)
    finally:
        torch.set_num_threads(threads)


def _run_in_processes(jobs: list[GroupJob], context: StageContext) -> Iterator[int]:
    spawn = multiprocessing.get_context("spawn")
    stop, counter = spawn.Event(), spawn.Value("q", 0)
    runtime = (str(context.checkpoints), context.checkpoint_seconds, context.device)
    settings = (stop, counter, *runtime)
    workers = min(context.workers, len(jobs))
    with ProcessPoolExecutor(workers, spawn, _start_worker, settings) as pool:
        futures = [pool.submit(_work, job) for job in jobs]
        yield from _watch(futures, counter, stop, context)


def _watch(
    futures: list[Future[None]], counter: Any, stop: Any, context: StageContext
) -> Iterator[int]:
    """Yield the rounds that workers report until all are done, and pass on a wish to stop."""
    seen, pending = 0, set(futures)
    try:
        while pending:
            finished, pending = wait(pending, timeout=_POLL_SECONDS)
            done = counter.value
            yield done - seen
            seen = done
            if context.interrupted:
                stop.set()
            for future in finished:
                future.result()
    except BrokenProcessPool as error:
        stop.set()
        if context.interrupted:  # the signal that asked us to stop reached the workers too
            raise Interrupted("collect: the workers were stopped") from error
        raise ChildProcessError(
            "collect: a worker process was killed, perhaps for want of memory; whole rounds are "
            "kept in checkpoints, run again to go on, with fewer workers if memory is short"
        ) from error
    except BaseException:
        stop.set()
        for future in pending:
            future.cancel()
        raise


_worker: dict[str, Any] = {}


def _start_worker(stop: Any, counter: Any, checkpoints: str, seconds: float, device: str) -> None:
    """Set up a worker process: one thread, and the parent's wish to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and tells through `stop`
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    keep_freed_memory()
    _worker["counter"] = counter
    _worker["context"] = StageContext(
        Path(checkpoints), quiet=True, checkpoint_seconds=seconds, stop=stop, device=device
    )


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: GroupJob) -> None:
    for done in run_group(job, _worker["context"]):
        with _worker["counter"].get_lock():
            _worker["counter"].value += done
