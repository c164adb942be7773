"""A batch on a real Dask cluster of two workers beside a real Prefect server, all on loopback.

Slow (minutes): `pytest -m slow tests/pipeline/test_batch_dask.py`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from served import background, wait_for

from pipeline.records import list_records
from pipeline.store import Store

pytestmark = pytest.mark.slow
pytest.importorskip("prefect_dask")

REPOSITORY = Path(__file__).resolve().parents[2]
PRESETS = ("gridworld", "gridworld_five_held_out")
TINY = (
    *("collect.random_trials=3", "collect.iterations=2", "collect.updates_per_iteration=5"),
    *("vae.updates=20", "vae.log_every=5", "vae.validate_every=10"),
    *("offline.updates=40", "offline.log_every=10", "offline.evaluate_every=20"),
)


@dataclass(frozen=True)
class Cluster:
    """A Prefect server, a Dask scheduler with two workers, and a folder for stores."""

    api: str
    scheduler: str
    env: dict[str, str]
    folder: Path

    def batch(
        self, *words: str, home: str = "home", **env: str
    ) -> subprocess.CompletedProcess[str]:
        """`omrl batch` of the tiny presets, to its end."""
        settings = [word for text in TINY for word in ("--set", text)]
        return subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "batch", *PRESETS, *settings, *words],
            cwd=REPOSITORY,
            env={**self.env, "OMRL_HOME": str(self.folder / home), **env},
            capture_output=True,
            text=True,
            timeout=400,
        )

    def ask(self, path: str, **query: Any) -> Any:
        """Post a query to Prefect's API."""
        request = urllib.request.Request(
            f"{self.api}/{path}", json.dumps(query).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def last_states(self) -> tuple[str, dict[str, str], list[str]]:
        """Of the newest flow run: its state, its tasks' states, and the hosts of their messages."""
        (run,) = self.ask("flow_runs/filter", sort="EXPECTED_START_TIME_DESC", limit=1)
        for _ in range(50):  # task states travel as events, a moment behind
            tasks = self.ask("task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}})
            if all(t["state_type"] in ("COMPLETED", "FAILED", "CANCELLED") for t in tasks):
                break
            time.sleep(0.2)
        states = {t["name"]: t["state_name"] for t in tasks}
        return run["state_name"], states, [t["state"]["message"] for t in tasks]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """As docs/batches.md sets them up, but on one machine."""
    folder = tmp_path_factory.mktemp("cluster")
    api_port, dask_port = free_ports(2)
    api, scheduler = f"http://127.0.0.1:{api_port}/api", f"tcp://127.0.0.1:{dask_port}"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    env |= {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": str(REPOSITORY),
    }
    env.pop("OMRL_HOME", None)  # the workers learn where the store is from the jobs
    server = ("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(api_port))
    dask = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(dask_port))
    worker = ("distributed.cli.dask_worker", scheduler, "--nthreads", "1", "--no-dashboard")
    with ExitStack() as stack:
        stack.enter_context(background(server, env, folder / "server.log"))
        stack.enter_context(background((*dask, "--no-dashboard"), env, folder / "dask.log"))
        wait_for_port(dask_port)
        for name in ("first", "second"):
            local = ("--name", name, "--local-directory", str(folder / name))
            words = (*worker, "--host", "127.0.0.1", *local)
            stack.enter_context(background(words, env, folder / f"{name}.log"))
        wait_for(f"{api}/health")
        yield Cluster(api, scheduler, env, folder)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens at."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in found]


def wait_for_port(port: int) -> None:
    """Return once someone listens there."""
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"nobody listens at {port}")


def test_two_presets_on_two_workers(cluster: Cluster) -> None:
    words = ("--runner", "dask", "--address", cluster.scheduler, "--name", "two")
    first = cluster.batch(*words)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "batch two: 2 of 2 complete" in first.stdout
    state, tasks, messages = cluster.last_states()
    assert state == "Completed"
    assert list(tasks.values()) == ["Completed", "Completed"]
    workers = {message.partition("process ")[2] for message in messages}
    assert len(workers) == 2, messages  # each was one job's

    store = Store(cluster.folder / "home")
    records = sorted(list_records(store), key=lambda record: record.preset)
    assert {record.preset: record.status for record in records} == dict.fromkeys(
        PRESETS, "complete"
    )
    assert (store.root / "reports" / "batch-two" / "batch.csv").is_file()
    artifacts = {a["key"]: a for a in cluster.ask("artifacts/latest/filter")}
    assert '"family": "gridworld"' in artifacts["batch-two"]["data"]
    assert "# Batch two" in artifacts["batch-report-two"]["data"]

    again = cluster.batch(*words)
    assert again.returncode == 0, again.stdout + again.stderr
    assert cluster.last_states()[1] == dict.fromkeys(tasks, "Cached")

    here = cluster.batch("--runner", "process", "--no-prefect", home="here", OMP_NUM_THREADS="2")
    assert here.returncode == 0, here.stdout + here.stderr
    for record in list_records(Store(cluster.folder / "here")):
        (same,) = (r for r in records if r.name == record.name)
        for step, reference in record.artefacts.items():
            assert reference == same.artefacts[step], step  # the same bytes on a worker as here


def test_a_failing_preset_is_named_and_the_flow_fails(cluster: Cluster) -> None:
    words = ("--runner", "dask", "--address", cluster.scheduler, "--name", "bad")
    failed = cluster.batch(*words, "--device", "cuda:7")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "batch bad: 0 of 2 complete; failed: gridworld" in failed.stdout
    state, tasks, messages = cluster.last_states()
    assert state == "Failed"
    assert list(tasks.values()) == ["Failed", "Failed"]
    assert all("cuda" in message for message in messages)


def test_a_stop_reaches_the_workers(cluster: Cluster) -> None:
    settings = [word for text in (*TINY, "vae.updates=100000") for word in ("--set", text)]
    words = [*settings, "--runner", "dask", "--address", cluster.scheduler, "--name", "long"]
    home = cluster.folder / "home"
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "batch", *PRESETS, *words],
        cwd=REPOSITORY,
        env={**cluster.env, "OMRL_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as driver:
        for _ in range(400):
            if len(list((home / ".checkpoints").glob("vae-*"))) == 2:
                break
            time.sleep(0.5)
        time.sleep(2)
        begun = time.monotonic()
        driver.send_signal(signal.SIGINT)
        out, err = driver.communicate(timeout=60)
    assert driver.returncode == 130, out + err
    assert time.monotonic() - begun < 20
    assert "stopped. Go on with: omrl batch gridworld gridworld_five_held_out" in err
    assert "waiting: gridworld, gridworld_five_held_out" in out
    for folder in (home / ".checkpoints").glob("vae-*"):
        assert len(list(folder.iterdir())) > 1  # not only the clock
