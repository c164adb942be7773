"""Drives a batch: hands out jobs, never more than the limit at once, and gathers how they ended."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from queue import Empty, SimpleQueue

from pipeline.batch.job import Job, JobResult, run_job
from pipeline.batch.meeting import Meeting, meeting
from pipeline.batch.request import BatchRequest
from pipeline.batch.summary import is_there
from pipeline.store import Store

Told = Callable[[Callable[[], JobResult]], None]
"""Told once when a job has ended; what it gets, when called, gives the result."""
Submit = Callable[[Job, Told], None]
Pool = Callable[[int], AbstractContextManager[Submit]]
"""From a limit to something that runs jobs while it is entered, and waits for them at the end."""
OnResult = Callable[[JobResult], None]
OnLook = Callable[[Collection[str]], None]

_LOOK_SECONDS = 0.2
_STOP_SECONDS = 15.0  # then a worker that does not answer has died of the same Ctrl-C
_MOST_RETURNS = 3  # of a run to whom a cluster's time limit came before its end


@contextmanager
def plain_pool(limit: int) -> Iterator[Submit]:
    """Threads of this process, each waiting for a job's own process."""
    with ThreadPoolExecutor(limit) as threads:

        def submit(job: Job, told: Told) -> None:
            future = threads.submit(run_job, asdict(job))
            future.add_done_callback(lambda done: told(lambda: JobResult(**done.result())))

        yield submit


def drive(
    request: BatchRequest,
    store: Store,
    pool: Pool = plain_pool,
    stop: threading.Event | None = None,
    on_result: OnResult | None = None,
    on_look: OnLook | None = None,
) -> list[JobResult]:
    """Run all jobs of a batch; a failing one is a result like any other.

    Args:
        stop: set it to have every running job save a checkpoint and stop.
        on_result: told of each job as it ends.
        on_look: told several times a second which runs were handed out and have not ended.

    Raises:
        StoreError: another process is running this batch.
    """
    with meeting(store, request.name) as place:
        jobs = request.jobs(store, place.token)
        limit = request.where.limit(request.runtime.threads, len(jobs))
        with pool(limit) as submit:
            work = _Work(store, place, stop or threading.Event(), on_result, on_look)
            try:
                return work.all(deque(jobs), submit, limit)
            except BaseException as error:  # the second Ctrl-C, or Prefect's cancellation
                place.ask_to_stop(at_once=isinstance(error, KeyboardInterrupt))
                raise


class _Work:
    """The driver's loop."""

    def __init__(
        self,
        store: Store,
        place: Meeting,
        stop: threading.Event,
        on_result: OnResult | None,
        on_look: OnLook | None,
    ) -> None:
        self.store, self.place, self.stop = store, place, stop
        self.on_result, self.on_look = on_result, on_look
        self.ended: SimpleQueue[Callable[[], JobResult]] = SimpleQueue()
        self.results: list[JobResult] = []
        self.returns: Counter[str] = Counter()

    def all(self, waiting: deque[Job], submit: Submit, limit: int) -> list[JobResult]:
        """Every job, or those begun before `stop` was set."""
        running: set[str] = set()
        asked = 0.0
        jobs = {job.run: job for job in waiting}
        while running or (waiting and not self.stop.is_set()):
            while waiting and len(running) < limit and not self.stop.is_set():
                job = waiting.popleft()
                running.add(job.run)
                submit(job, self.ended.put)
            if self.on_look is not None:
                self.on_look(running)
            if self.stop.is_set() and not asked:
                self.place.ask_to_stop()
                asked = time.monotonic()
            if asked and time.monotonic() - asked > _STOP_SECONDS:
                break
            try:
                outcome = self.ended.get(timeout=_LOOK_SECONDS)
            except Empty:
                continue
            result = outcome()
            running.discard(result.run)
            if self._returns(result):
                waiting.append(jobs[result.run])
            else:
                self._note(result)
        return self.results

    def _returns(self, result: JobResult) -> bool:
        """Whether a run was stopped by somebody else, at a checkpoint to go on from."""
        if result.status != "stopped" or self.stop.is_set():
            return False
        self.returns[result.run] += 1
        return self.returns[result.run] <= _MOST_RETURNS

    def _note(self, result: JobResult) -> None:
        if result.status == "complete" and not is_there(self.store, result.run):
            text = f"ended on {result.host}, but {self.store.root} does not hold its scores"
            result = replace(result, status="failed", reason=text)
        if result.status == "failed" and not result.host and self.stop.is_set():
            result = replace(result, status="stopped")  # its worker heard the Ctrl-C too
        self.results.append(result)
        if self.on_result is not None:
            self.on_result(result)
