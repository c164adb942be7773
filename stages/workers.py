"""Running independent jobs of a stage: one after the other, or several at once in processes.

A job computes with one thread wherever it runs, so its bytes do not depend on how many workers
there are. It leaves its result in a checkpoint and reports only how far it has come. A worker stops
where its job looks for its parent's wish, and dies with its parent: otherwise it would go on
writing checkpoints beside the run that takes over.
"""

from __future__ import annotations

import copyreg
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from algorithms.memory import keep_freed_memory
from datasets.errors import DiskFullError
from stages.context import Interrupted, StageContext

_POLL_SECONDS = 0.25

Job = TypeVar("Job", contravariant=True)

# An OSError is rebuilt from its errno and text alone, which this one cannot be.
copyreg.pickle(
    DiskFullError,
    lambda error: (DiskFullError, (error.path, error.bytes_needed, error.errno)),
)


class Work(Protocol[Job]):
    """What is done for a job, a function of a module so that a worker can import it.

    It yields how many units of progress were made, at least once a job, and raises `Interrupted`
    with its checkpoint saved where `context.interrupted` becomes true.
    """

    def __call__(self, job: Job, context: StageContext, /) -> Iterator[int]: ...


def run_jobs(
    stage: str, work: Work[Job], jobs: Sequence[Job], context: StageContext
) -> Iterator[int]:
    """Do the work of all jobs, yielding progress as it is made; in processes where that helps.

    Raises:
        Interrupted: the user asked to stop; checkpoints hold what was done.
        ChildProcessError: a worker was killed from outside.
    """
    if context.workers > 1 and len(jobs) > 1:
        yield from _run_in_processes(stage, work, jobs, context)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    keep_freed_memory()
    try:
        for job in jobs:
            yield from work(job, context)
    finally:
        torch.set_num_threads(threads)


def _run_in_processes(
    stage: str, work: Work[Job], jobs: Sequence[Job], context: StageContext
) -> Iterator[int]:
    spawn = multiprocessing.get_context("spawn")
    stop, counter = spawn.Event(), spawn.Value("q", 0)
    runtime = (str(context.checkpoints), context.checkpoint_seconds, context.device)
    settings = (stop, counter, *runtime)
    workers = min(context.workers, len(jobs))
    with ProcessPoolExecutor(workers, spawn, _start_worker, settings) as pool:
        futures = [pool.submit(_work, work, job) for job in jobs]
        yield from _watch(stage, futures, counter, stop, context)


def _watch(
    stage: str, futures: list[Future[None]], counter: Any, stop: Any, context: StageContext
) -> Iterator[int]:
    """Yield the progress that workers report until all are done, and pass on a wish to stop."""
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
            raise Interrupted(f"{stage}: the workers were stopped") from error
        raise ChildProcessError(
            f"{stage}: a worker process was killed, perhaps for want of memory; what was done is "
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


def _work(work: Work[Job], job: Job) -> None:
    for done in work(job, _worker["context"]):
        with _worker["counter"].get_lock():
            _worker["counter"].value += done
