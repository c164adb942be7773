"""Batches: what they fall into, what stops what, and what they say, with stages that take no time.

A preset here is a file of one line, since the processes of the jobs see the clone's presets only.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import FAKE_PROGRAM, REPOSITORY, called
from served import ends_soon

from pipeline.batch import job as jobs
from pipeline.batch import request as requests
from pipeline.batch import runners
from pipeline.batch.drive import Submit, Told, drive
from pipeline.batch.job import Job, JobResult, log_path, run_job
from pipeline.batch.meeting import is_the_store, locks_reach, meeting
from pipeline.batch.request import BatchRequest, Where, batch_request, expand
from pipeline.batch.runners import check_where
from pipeline.batch.watch import progress_note
from pipeline.cli import main
from pipeline.errors import ConfigError, StoreError
from pipeline.garbage import sweep
from pipeline.store import Store

Capture = pytest.CaptureFixture[str]

PROGRAM = f"""
import os, runpy, signal, sys
from pathlib import Path
if "b.yaml" in sys.argv[2] and Path("broken").exists():
    os.kill(os.getpid(), signal.SIGKILL)
sys.path.insert(0, {str(FAKE_PROGRAM.parent)!r})
sys.argv[0] = {str(FAKE_PROGRAM)!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def folder(tmp_path: Path, store: Store, call_log: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with presets a.yaml and b.yaml; b's runs are killed while `broken` lies
    there. `omrl` there has fake stages.
    """
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text("extends: gridworld\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "program", lambda: [sys.executable, str(tmp_path / "program.py")])
    return tmp_path


def batch(*words: str) -> int:
    """`omrl batch` in plain Python."""
    return main(["batch", *words, "--no-prefect"])


# ---------------------------------------------------------------------- what runs, and what not


def test_one_that_dies_leaves_the_others_and_is_taken_up_again(
    folder: Path, store: Store, call_log: Path, capsys: Capture
) -> None:
    (folder / "broken").touch()
    assert batch("b.yaml", "a.yaml", "--name", "two", "--concurrency", "2") == 1
    first = capsys.readouterr()
    assert "b: seed 0: killed by SIGKILL (often for want of memory)" in first.out
    assert "batch two: 1 of 2 complete; failed: b" in first.out
    page = store.root / "reports" / "batch-two"
    assert "failed: seed 0: killed by SIGKILL" in (page / "batch.csv").read_text()
    assert "killed by SIGKILL" in (page / "index.html").read_text()
    assert called(call_log).count("collect") == 1

    (folder / "broken").unlink()
    assert batch("b.yaml", "a.yaml", "--name", "two", "--concurrency", "2") == 0
    second = capsys.readouterr()
    assert "a-seed0: cached" in second.err
    assert "b-seed0: complete" in second.err or "b-seed0: cached" in second.err
    assert "batch two: 2 of 2 complete" in second.out
    assert not (page / "failures.csv").exists()
    assert sorted(path.name for path in (store.root / ".tmp").iterdir()) == []


def test_settings_that_fit_one_only_fail_the_other(folder: Path, capsys: Capture) -> None:
    (folder / "b.yaml").write_text("extends: point_robot\n")
    words = ("a.yaml", "b.yaml", "--set", "offline.learner.rule=dqn", "--name", "x")
    assert batch(*words, "--dry-run") == 0
    assert "b-seed0" not in capsys.readouterr().out.replace("failed", "")
    assert batch(*words) == 1
    said = capsys.readouterr()
    assert "b: --set offline.learner.rule=dqn" in said.out
    assert "batch x: 1 of 2 complete; failed: b" in said.out


def test_a_stop_saves_checkpoints_and_says_how_to_go_on(
    folder: Path, call_log: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMRL_FAKE_SLEEP", "0.4")

    def stop_when_it_runs() -> None:
        while "chunk 0" not in call_log.read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_when_it_runs, daemon=True).start()
    begun = time.monotonic()
    assert batch("a.yaml", "b.yaml", "--concurrency", "1", "--name", "x") == 130
    assert time.monotonic() - begun < 20
    said = capsys.readouterr()
    assert f"stopped. Go on with: omrl batch {folder / 'a.yaml'} {folder / 'b.yaml'}" in said.err
    assert "waiting: a, b" in said.out
    done = len(set(call_log.read_text().splitlines()))
    assert done < 4  # of collect's chunks

    monkeypatch.setenv("OMRL_FAKE_SLEEP", "0")
    assert batch("a.yaml", "--name", "x") == 0
    assert call_log.read_text().count("collect chunk 0") == 1  # it went on


def test_no_more_than_the_limit_at_once(folder: Path, store: Store) -> None:
    running, most = 0, 0
    open_jobs: deque[tuple[Job, Told]] = deque()

    @contextmanager
    def pool(limit: int) -> Iterator[Submit]:
        assert limit == 2

        def submit(job: Job, told: Told) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            open_jobs.append((job, told))
            if len(open_jobs) == limit or job.run == last:
                for one, tell in list(open_jobs):
                    tell(lambda one=one: end(one))
                open_jobs.clear()

        yield submit

    def end(job: Job) -> JobResult:
        nonlocal running
        running -= 1
        return JobResult(job.run, job.member, job.seed, "failed", "no", host="here")

    request = batch_request(["a.yaml", "b.yaml"], [0, 1, 2], where=Where(concurrency=2))
    last = request.jobs(store, "")[-1].run
    results = drive(request, store, pool)
    assert [result.run for result in results][:4] == ["a-seed0", "b-seed0", "a-seed1", "b-seed1"]
    assert (len(results), most) == (6, 2)


def test_a_run_that_the_cluster_stops_is_handed_out_again(folder: Path, store: Store) -> None:
    handed = 0

    @contextmanager
    def pool(limit: int) -> Iterator[Submit]:
        def submit(job: Job, told: Told) -> None:
            nonlocal handed
            handed += 1
            status: jobs.Status = "stopped" if handed < 3 or job.member == "b" else "failed"
            result = JobResult(job.run, job.member, job.seed, status, host="here")
            told(lambda: result)

        yield submit

    ended = {one.member: one.status for one in drive(batch_request(["a.yaml"], [0]), store, pool)}
    assert (ended, handed) == ({"a": "failed"}, 3)
    ended = {one.member: one.status for one in drive(batch_request(["b.yaml"], [0]), store, pool)}
    assert (ended, handed) == ({"b": "stopped"}, 3 + 4)  # not for ever


def test_what_runs_is_read_from_the_ends_of_logs(tmp_path: Path) -> None:
    for run, text in {
        "a-seed0": "run a\ncollect       :   2%|  | 1/60\rcollect       :  40%|####  | 24/60",
        "b-seed0": "run b-seed0 in here\n",
        "old-seed0": "relabel       :  99%|####  | 99/100",
        "c-seed0": "x" * 5000 + "\ntrain-vae     : 100%|#####| 7/7\n  train-vae   2 s\n",
        "d-seed0": "",
    }.items():
        path = log_path(tmp_path, run)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    os.utime(log_path(tmp_path, "old-seed0"), (50.0, 50.0))
    runs = ["c-seed0", "a-seed0", "b-seed0", "old-seed0", "waiting-seed0"]
    expected = "a-seed0 collect 40 %, b-seed0, c-seed0 train-vae 100 %"
    assert progress_note(tmp_path, runs, since=100.0) == expected
    assert progress_note(tmp_path, [*runs, "d-seed0"], since=100.0) == f"{expected}, 1 more"


def test_a_bar_says_what_the_runs_are_at(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.commands.batch._LOOK_SECONDS", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # drawn every half second
    monkeypatch.setenv("OMRL_FAKE_SLEEP", "0.4")
    assert batch("a.yaml", "--name", "x") == 0
    said = capsys.readouterr().err
    assert re.search(r"batch +: +0%.* 0/1 .*a-seed0", said)
    assert re.search(r"batch +: 100%.* 1/1 ", said)
    assert batch("a.yaml", "--name", "x", "--quiet") == 0
    assert "%" not in capsys.readouterr().err


def test_dry_run_changes_nothing(folder: Path, store: Store, capsys: Capture) -> None:
    assert batch("a.yaml", "b.yaml", "--seeds", "0..1", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "batch a-b: 4 runs, process" in lines[0]
    assert [line.split()[0] for line in lines[2:]] == ["a-seed0", "b-seed0", "a-seed1", "b-seed1"]
    assert not store.root.exists()


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.yaml"], "nothing.yaml"),
        (["gridwrld"], "did you mean 'gridworld'"),
        (["a.yaml", "a.yaml"], "two presets of the batch are called 'a'"),
        (["a.yaml", "--runner", "slurm"], "unknown runner 'slurm'"),
        (["a.yaml", "--concurrency", "0"], "--concurrency '0'"),
        (["a.yaml", "--seeds", "1..0"], "--seeds 1..0"),
        (["a.yaml", "--set", "vae.updats=1"], "updats"),
        (["a.yaml", "--address", "tcp://127.0.0.1:1"], "--runner dask"),
        (["a.yaml", "--runner", "dask"], "leave --no-prefect out"),
        (["a.yaml", "--name", "../x"], "batch name"),
        (["a.yaml", "--threads", "none"], "--threads none"),
    ],
)
def test_bad_input_is_one_sentence(
    folder: Path, store: Store, capsys: Capture, words: list[str], message: str
) -> None:
    assert batch(*words) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert len(said.err.splitlines()) == 1
    assert not store.root.exists()


def test_runners_that_cannot_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(runners.importlib.util, "find_spec", lambda name: None)
    for name in ("dask", "ray"):
        with pytest.raises(ConfigError, match=rf"pip install -e '\.\[{name}\]'"):
            check_where(Where(name))  # type: ignore[arg-type]
    monkeypatch.setattr(runners.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match="PREFECT_API_URL"):
        check_where(Where("dask", "tcp://192.0.2.1:8786"))
    with pytest.raises(ConfigError, match="tcp://HOST:8786"):
        check_where(Where("dask", "somewhere"))
    with pytest.raises(ConfigError, match="no scheduler answers there"):
        check_where(Where("dask", "tcp://127.0.0.1:1"))
    check_where(Where("ray", "auto"))


# ---------------------------------------------------------------------- names and jobs


def test_groups_are_their_families(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = SimpleNamespace(ELEVEN=("reach-wall", "push-wall"), ALL=("a", "b", "c"))
    monkeypatch.setitem(sys.modules, requests._FACTS, facts)
    assert expand(["ml1/eleven"]) == ["ml1/reach-wall", "ml1/push-wall"]
    assert expand(["gridworld", "ml1/all"]) == ["gridworld", "ml1/a", "ml1/b", "ml1/c"]
    monkeypatch.setitem(sys.modules, requests._FACTS, None)
    with pytest.raises(ConfigError, match="ml1/all: there is no list"):
        expand(["ml1/all"])


def test_names_and_the_command(folder: Path) -> None:
    request = batch_request(
        ["a.yaml", "gridworld"], [0, 1], ["vae.updates=7"], where=Where("dask", "tcp://h:1", 3)
    )
    assert request.name.startswith("a-gridworld-")
    assert request.members[1].run(1).startswith("gridworld-")  # as `omrl run` calls it
    assert request.command == (
        f"omrl batch {folder / 'a.yaml'} gridworld --set vae.updates=7 --seeds 0..1 "
        "--address tcp://h:1 --concurrency 3 --runner dask"
    )
    assert request.where.limit(2, 99) == 3
    assert Where("dask", "tcp://h:1").limit(2, 99) == 99


# ---------------------------------------------------------------------- the driver and its jobs


def the_job(request: BatchRequest, store: Store, token: str) -> dict[str, object]:
    return asdict(request.jobs(store, token)[0])


def test_a_job_knows_the_drivers_store(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = batch_request(["a.yaml"], [0])
    answer = run_job(the_job(request, store, "abc"))
    assert answer["status"] == "failed"
    assert "does not see the store" in answer["reason"]
    with meeting(store, request.name) as place:
        assert is_the_store(store.root, request.name, place.token)
        assert locks_reach(store, request.name)
        sweep(store)  # as every run does
        assert place.folder.is_dir()
        with pytest.raises(StoreError, match="being run by another process"), meeting(store, "a"):
            pass
        elsewhere = the_job(request, store, place.token) | {"store": "/nowhere"}
        place.ask_to_stop()
        assert run_job(elsewhere)["status"] == "stopped"  # found by OMRL_HOME
        monkeypatch.setattr(jobs, "locks_reach", lambda store, name: False)
        assert "needs flock" in run_job(elsewhere)["reason"]
    assert not place.folder.exists()


ORPHAN = """
import os, subprocess, sys, time
child = "import sys, time; from pipeline.batch.child import end_with\\n"
child += "end_with(int(sys.argv[1])); print('ready', flush=True); time.sleep(60)"
one = subprocess.Popen([sys.executable, "-c", child, str(os.getpid())], stdout=subprocess.PIPE)
one.stdout.readline()
print(one.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_killed_driver_leaves_no_run_behind() -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN], env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    assert ends_soon(child), "the run outlived its driver"


# ---------------------------------------------------------------------- Prefect's side, no server


@pytest.mark.parametrize("load", ["import", "path"])
def test_the_flow_can_travel_to_workers(load: str) -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    from prefect import Flow
    from prefect.flows import load_flow_from_entrypoint

    from pipeline.batch.tasks import family

    flow: Flow[..., object] | Callable[..., object]
    if load == "import":
        from pipeline.batch.flow import metaworld_batch as flow
    else:
        flow = load_flow_from_entrypoint(f"{REPOSITORY}/pipeline/batch/flow.py:metaworld_batch")
    assert len(cloudpickle.dumps([flow, family])) < 100_000


def test_deployments_are_batches_that_the_flow_accepts() -> None:
    import yaml

    from pipeline.batch.flow import metaworld_batch

    document = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    ours = [d for d in document["deployments"] if "batch" in d["entrypoint"]]
    assert [d["name"] for d in ours] == ["eleven", "all"]
    for deployment in ours:
        path, _, name = deployment["entrypoint"].partition(":")
        assert (REPOSITORY / path).is_file()
        assert metaworld_batch.fn.__name__ == name
        metaworld_batch.validate_parameters(deployment["parameters"])
    with pytest.raises(Exception, match="runner"):
        metaworld_batch.validate_parameters({"families": ["a"], "runner": "slurm"})
