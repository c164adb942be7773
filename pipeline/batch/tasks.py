"""A job as Prefect's task. A module of its own: workers import it by this name."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import Cancelled, Completed, Failed

from pipeline.batch.drive import Submit, Told
from pipeline.batch.job import Job, JobResult, run_job
from pipeline.batch.request import Where
from pipeline.batch.runners import task_runner

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State
    from prefect.futures import PrefectFuture


@task(
    name="family",
    task_run_name="{job[run]}",
    cache_policy=NO_CACHE,
    persist_result=False,
    result_serializer="json",
)
def family(job: dict[str, Any]) -> State[Any]:
    """One run; its state says how it ended, and carries the result as JSON."""
    answer = run_job(job)
    result = JobResult(**answer)
    data = json.dumps(answer)
    if result.status == "failed":
        return Failed(message=result.reason, data=data)
    if result.status == "stopped":
        return Cancelled(message="stopped at a checkpoint", data=data)
    took = f"{result.seconds:.1f} s on {result.host}, process {result.process}"
    return Completed(name="Cached" if result.cached else None, message=took, data=data)


@contextmanager
def prefect_pool(where: Where, limit: int) -> Iterator[Submit]:
    """Jobs as tasks of the flow that is running, by the runner that was asked for."""
    with task_runner(where, limit) as runner:
        if where.runner == "dask" and where.address is None:
            _start_deaf(runner)

        def submit(job: Job, told: Told) -> None:
            future = runner.submit(family, parameters={"job": asdict(job)})
            future.add_done_callback(lambda done: told(lambda: _result(job, done)))

        yield submit


def _start_deaf(runner: Any) -> None:
    """Start a local cluster whose workers inherit that Ctrl-C is not theirs: it is the driver's."""
    if threading.current_thread() is not threading.main_thread():
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        runner.client  # noqa: B018 (it is made when first asked for)
    finally:
        signal.signal(signal.SIGINT, handler)


def _result(job: Job, future: PrefectFuture[Any]) -> JobResult:
    """What the task's state carries; a worker that was lost carries nothing."""
    reason = ""
    try:
        future.wait()
        data = getattr(future.state.data, "result", future.state.data)
        if isinstance(data, str):
            return JobResult(**json.loads(data))
        future.result()  # raises what became of it
        reason = future.state.message or ""
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
    return JobResult(job.run, job.member, job.seed, "failed", f"its worker was lost: {reason}")
