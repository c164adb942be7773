"""One run of a batch, in a process of its own: `run_job`, wherever it is called.

It is called by a thread of this machine, a Dask worker or a Ray worker, takes and gives plain JSON,
and never raises: a run that is killed by a signal or by the machine's want of memory is a result.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.batch.meeting import AT_ONCE, is_the_store, locks_reach, stop_wish
from pipeline.exits import INTERRUPTED
from pipeline.presets import config_root
from pipeline.records import find_record
from pipeline.scores import SCORES_STEP
from pipeline.store import Store

Status = Literal["complete", "failed", "stopped"]

_LOOK_SECONDS = 0.2
_GRACE_SECONDS = 8.0  # for a checkpoint; a stage saves one within a second or two
_SINGLE = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_CLUSTERS = {"distributed", "ray"}


@dataclass(frozen=True)
class Job:
    """One run, as plain as can be: it travels to other machines."""

    batch: str
    member: str
    seed: int
    run: str
    words: tuple[str, ...]  # of the command line, behind `omrl`
    store: str
    token: str
    folder: str  # the working folder, where a user's own family may lie


@dataclass(frozen=True)
class JobResult:
    """How a run ended, and where."""

    run: str
    member: str
    seed: int
    status: Status
    reason: str = ""
    cached: bool = False
    seconds: float = 0.0
    host: str = ""
    process: int = 0  # which called the run's own


def run_job(document: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out a `Job`, given and answered as JSON; any failure is an answer."""
    job = Job(**{**document, "words": tuple(document["words"])})
    begun = time.monotonic()
    try:
        status, reason, cached = _run(job)
    except Exception as error:
        text = str(error) or type(error).__name__
        status, reason, cached = "failed", " ".join(text.split()), False
    result = JobResult(
        run=job.run,
        member=job.member,
        seed=job.seed,
        status=status,
        reason=reason,
        cached=cached,
        seconds=time.monotonic() - begun,
        host=socket.gethostname(),
        process=os.getpid(),
    )
    return asdict(result)


def log_path(root: Path, run: str) -> Path:
    """What a run of a batch said, the last time."""
    return root / "logs" / "batches" / f"{run}.log"


def program() -> list[str]:
    """What runs `omrl`, and ends with this process; tests put another in its place."""
    return [sys.executable, "-m", "pipeline.batch.child", str(os.getpid())]


def _run(job: Job) -> tuple[Status, str, bool]:
    store = _find_store(job)
    if store is None:
        return "failed", _no_store(job), False
    if not locks_reach(store, job.batch):
        return "failed", _no_locks(store), False
    if stop_wish(store.root, job.batch) is not None:
        return "stopped", "", False
    before = set(store.all_keys())
    log = log_path(store.root, job.run)
    log.parent.mkdir(parents=True, exist_ok=True)
    code = _run_process(job, store, log)
    if code == INTERRUPTED:
        return "stopped", "", False
    if code != 0:
        return "failed", _reason(code, log), False
    record = find_record(store, job.run)
    if record is None or record.status != "complete" or SCORES_STEP not in record.artefacts:
        return "failed", f"ended without scores on record, see {log}", False
    return "complete", "", {store.parse(name) for name in record.artefacts.values()} <= before


def _find_store(job: Job) -> Store | None:
    """The driver's store: where it lies there, or where this machine's OMRL_HOME says."""
    for root in (job.store, os.environ.get("OMRL_HOME")):
        if root and is_the_store(Path(root), job.batch, job.token):
            return Store(Path(root))
    return None


def _run_process(job: Job, store: Store, log: Path) -> int:
    """Run the command to its end, or to its checkpoint if the driver wants to stop."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*program(), *job.words],
            cwd=job.folder if Path(job.folder).is_dir() else None,
            env=_environment(store),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,  # a terminal's Ctrl-C is the driver's, who passes it on
        )
    try:
        return _wait(process, store.root, job.batch)
    finally:
        if process.poll() is None:  # whoever called us was itself stopped
            process.terminate()


def _wait(process: subprocess.Popen[bytes], root: Path, batch: str) -> int:
    """The exit code. A stop is SIGTERM, once more if it takes long or is urgent, then SIGKILL."""
    sent, since = 0, 0.0
    while True:
        try:
            return process.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            wish = stop_wish(root, batch)
        if wish is None:
            continue
        waited = time.monotonic() - since
        if sent == 0 or (sent == 1 and (wish == AT_ONCE or waited > _GRACE_SECONDS)):
            process.terminate()
            sent, since = sent + 1, time.monotonic()
        elif sent == 2 and waited > _GRACE_SECONDS / 4:
            os.killpg(process.pid, signal.SIGKILL)
            sent, since = 3, time.monotonic()
            return process.wait() and INTERRUPTED


def _environment(store: Store) -> dict[str, str]:
    """Ours, with the store and the clone; without the single thread that a cluster asks for."""
    path = os.environ.get("PYTHONPATH")
    root = str(config_root())
    found = {**os.environ, "OMRL_HOME": str(store.root)}
    found["PYTHONPATH"] = root if not path else f"{root}{os.pathsep}{path}"
    if _CLUSTERS & set(sys.modules):  # --threads says how many there are
        for name in _SINGLE:
            found.pop(name, None)
    return found


def _reason(code: int, log: Path) -> str:
    """Why a run failed, in its own words: the last line that it wrote."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (often for want of memory)" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}"
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("omrl: ") if lines else f"ended with {code} and said nothing"


def _no_store(job: Job) -> str:
    return (
        f"{socket.gethostname()} does not see the store {job.store}; OMRL_HOME must be a folder "
        "that all machines share (set it where the worker starts if it lies elsewhere there)"
    )


def _no_locks(store: Store) -> str:
    return (
        f"locks in {store.root} do not reach {socket.gethostname()}; its file system needs flock "
        "between machines (Lustre: mount with -o flock; NFS: without nolock)"
    )
