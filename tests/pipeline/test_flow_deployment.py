"""A real server and a real worker on loopback: deploy, run, rerun one stage, read what is left.

Slow (minutes): `pytest -m slow tests/pipeline/test_flow_deployment.py`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from served import background, wait_for

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOYMENT = "collect-vae-offline/gridworld"
TINY: dict[str, Any] = {
    "collect": {"random_trials": 3, "iterations": 2, "updates_per_iteration": 5},
    "vae": {"updates": 20, "log_every": 5, "validate_every": 10},
    "offline": {"updates": 40, "log_every": 10, "evaluate_every": 20},
    "runtime": {"threads": 1, "workers": 1, "quiet": True},
}
STAGES = ["collect", "train-vae", "relabel", "train-offline", "train-blind", "evaluate"]


@dataclass(frozen=True)
class Prefect:
    """A server with a worker, and how to talk to them."""

    api: str
    env: dict[str, str]
    home: Path

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`prefect WORDS`, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "prefect", *words],
            cwd=REPOSITORY,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=400,
        )

    def run(
        self, deployment: str = DEPLOYMENT, /, **parameters: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a deployment and watch it to its end."""
        words = ["deployment", "run", deployment, "--watch", "--watch-interval", "1"]
        for name, value in parameters.items():
            words += ["-p", f"{name}={json.dumps(value)}"]
        return self.command(*words)

    def ask(self, path: str, **query: Any) -> Any:
        """Post a query to the API."""
        request = urllib.request.Request(
            f"{self.api}/{path}",
            json.dumps(query).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def last_states(self) -> tuple[str, dict[str, str]]:
        """State names of the newest flow run and of its tasks."""
        (run,) = self.ask("flow_runs/filter", sort="EXPECTED_START_TIME_DESC", limit=1)
        tasks = self.ask("task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}})
        return run["state_name"], {t["name"].removesuffix("-seed0"): t["state_name"] for t in tasks}


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """Server, work pool, deployments and worker, as docs/prefect.md sets them up."""
    folder = tmp_path_factory.mktemp("served")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    env |= {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "OMRL_HOME": str(folder / "home"),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    served = Prefect(api, env, folder / "home")
    server = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with background(server, env, folder / "server.log"):
        wait_for(f"{api}/health", tries=800)
        assert served.command("work-pool", "create", "local", "--type", "process").returncode == 0
        deployed = served.command("--no-prompt", "deploy", "--all")
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        with background(
            ["prefect", "worker", "start", "--pool", "local"], env, folder / "worker.log"
        ):
            yield served


def test_deploy_run_and_rerun_one_stage(prefect: Prefect) -> None:
    first = prefect.run(**TINY)
    assert first.returncode == 0, first.stdout + first.stderr
    state, tasks = prefect.last_states()
    assert state == "Completed"
    assert tasks == dict.fromkeys([*STAGES, "report"], "Completed")

    again = prefect.run(**TINY, refresh=["train-offline"])
    assert again.returncode == 0, again.stdout + again.stderr
    _, tasks = prefect.last_states()
    assert tasks["train-offline"] == "Completed"
    assert {name for name, state in tasks.items() if state == "Cached"} >= {
        "collect",
        "train-vae",
        "relabel",
        "evaluate",  # its inputs have the same bytes again
    }

    artifacts = {a["key"]: a for a in prefect.ask("artifacts/latest/filter")}
    (table,) = (a for key, a in artifacts.items() if key.startswith("scores-gridworld"))
    assert '"policy": "agent"' in table["data"]
    (page,) = (a for key, a in artifacts.items() if key.startswith("report-gridworld"))
    assert page["data"].count("data:image/png;base64,") >= 3
    assert len(list((prefect.home / "reports").glob("*/index.html"))) == 1


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"vae": {"updates": -1}}, "vae.updates"),
        ({"vae": {"updats": 1}}, "updats"),
        ({"preset": "gridwrld"}, "gridwrld"),
        ({"refresh": ["train-ofline"]}, "train-ofline"),
    ],
)
def test_bad_parameters_are_refused_at_submission(
    prefect: Prefect, parameters: dict[str, Any], message: str
) -> None:
    refused = prefect.run(**parameters)
    assert refused.returncode == 1
    assert message in " ".join((refused.stdout + refused.stderr).split())


def test_a_failing_run_says_so(prefect: Prefect) -> None:
    failed = prefect.run(overrides=["vae.updats=1"])
    assert failed.returncode == 1
    assert prefect.last_states()[0] == "Failed"


def test_the_command_line_uses_the_server_and_the_same_store(prefect: Prefect) -> None:
    settings = ["vae.updates=20", "vae.log_every=5", "vae.validate_every=10"]
    settings += [f"collect.{key}={value}" for key, value in TINY["collect"].items()]
    settings += ["offline.updates=30", "offline.log_every=10", "offline.evaluate_every=20"]
    words = [word for text in settings for word in ("--set", text)]
    omrl = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "run", "gridworld", "--quiet", *words],
        cwd=REPOSITORY,
        env={**prefect.env, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert omrl.returncode == 0, omrl.stderr
    state, tasks = prefect.last_states()
    assert state == "Completed"
    assert tasks["collect"] == "Cached"
    assert tasks["train-offline"] == "Completed"


def test_a_batch_by_its_deployment(prefect: Prefect) -> None:
    settings = [
        f"{section}.{key}={value}"
        for section, values in TINY.items()
        if section != "runtime"
        for key, value in values.items()
    ]
    families = ["gridworld", "gridworld_five_held_out"]
    of_the_run = {
        "families": families,
        "seeds": [5],  # no other test's
        "overrides": settings,
        "name": "served",
    }
    for state in ("Completed", "Cached"):
        batch = prefect.run("metaworld-batch/eleven", **of_the_run, runtime=TINY["runtime"])
        assert batch.returncode == 0, batch.stdout + batch.stderr
        flow, tasks = prefect.last_states()
        assert flow == "Completed"
        assert list(tasks.values()) == [state, state]
    artifacts = {a["key"]: a for a in prefect.ask("artifacts/latest/filter")}
    assert '"family": "gridworld"' in artifacts["batch-served"]["data"]
    assert (prefect.home / "reports" / "batch-served" / "index.html").is_file()
    failed = prefect.run("metaworld-batch/eleven", families=["ml1/reech"])
    assert failed.returncode == 1
    (run,) = prefect.ask("flow_runs/filter", sort="EXPECTED_START_TIME_DESC", limit=1)
    assert "did you mean 'reach'" in run["state"]["message"]
