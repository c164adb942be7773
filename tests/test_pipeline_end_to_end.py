"""The real stages in a chain: the same bytes twice, early cut-off, and killed at many points."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.checkpoints import load_tensors
from datasets.files import read_json
from datasets.hyper_states import HyperStates
from datasets.trial_store import read_meta
from pipeline.cli import main
from pipeline.config import RuntimeConfig
from pipeline.presets import load_config
from pipeline.run import RunRequest, RunResult, execute
from pipeline.scores import score_rows
from pipeline.store import Store

REPOSITORY = Path(__file__).resolve().parents[1]
STEPS = ["collect", "train-vae", "relabel", "train-offline", "train-blind", "evaluate"]
SMALL = {"critic_layers": [8], "actor_layers": [8]}
COLLECT: dict[str, Any] = {
    "tasks": {"train": 4, "test": 3},
    "random_trials": 2,
    "iterations": 2,
    "trials_per_iteration": 1,
    "updates_per_iteration": 3,
    "batch_size": 8,
    "group_size": 2,
}
VAE: dict[str, Any] = {
    "updates": 4,
    "tasks_per_batch": 2,
    "trials_per_task": 2,
    "log_every": 2,
    "validate_every": 2,
}
OFFLINE: dict[str, Any] = {"updates": 8, "batch_size": 8, "log_every": 2, "evaluate_every": 4}
CONFIGS: dict[str, dict[str, Any]] = {
    "gridworld": {
        "collect": COLLECT | {"domain": "gridworld", "learner": SMALL | {"rule": "dqn"}},
        "vae": VAE
        | {
            "model": {
                "encoder": {"gru_size": 8, "action_embedding": 0},
                "reward_decoder": {"likelihood": "bernoulli-per-cell"},
            }
        },
        "relabel": {"belief_rewards": True, "belief_reward_samples": 2},
        "offline": OFFLINE | {"learner": SMALL | {"rule": "dqn"}, "use_belief_rewards": True},
    },
    "point_robot_wind": {
        "collect": COLLECT
        | {
            "domain": "point_robot_wind",
            "learner": SMALL | {"rule": "sac"},
            "policy_replaying": 0.5,
            "start": "origin",
        },
        "vae": VAE
        | {
            "model": {
                "encoder": {"gru_size": 8},
                "reward_decoder": {"enabled": False},
                "state_decoder": {"enabled": True},
            },
            "relabelling": {"enabled": False},
        },
        "offline": OFFLINE | {"learner": SMALL | {"rule": "rebrac"}},
    },
}
DOMAINS = list(CONFIGS)


def write_config(folder: Path, domain: str) -> Path:
    """A user's own file; JSON is YAML."""
    path = folder / f"{domain}.yaml"
    path.write_text(json.dumps(CONFIGS[domain]))
    return path


def run(store: Store, file: Path, seed: int = 0, refresh: tuple[str, ...] = ()) -> RunResult:
    """The whole chain in this process."""
    loaded = load_config(str(file))
    runtime = RuntimeConfig(threads=1, workers=1, quiet=True, tensorboard=False)
    name = f"{file.stem}-seed{seed}"
    return execute(RunRequest(loaded, seed, name, frozenset(refresh), runtime), store)


def digests(result: RunResult) -> dict[str, str]:
    """Content digest of every artefact by step."""
    return {step: artefact.digest for step, artefact in result.artefacts.items()}


def cached(result: RunResult) -> dict[str, bool]:
    """Which steps were found."""
    return {step: artefact.cached for step, artefact in result.artefacts.items()}


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module", params=DOMAINS)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Store, Path, RunResult]:
    """A store with one run of each domain."""
    folder = tmp_path_factory.mktemp(request.param)
    file, store = write_config(folder, request.param), Store(folder / "home")
    return store, file, run(store, file)


def test_every_stage_writes_what_the_next_one_reads(made: tuple[Store, Path, RunResult]) -> None:
    store, file, result = made
    assert list(result.artefacts) == STEPS
    assert not any(cached(result).values())
    folders = {step: artefact.folder for step, artefact in result.artefacts.items()}
    meta = read_meta(folders["collect"])
    assert (len(meta.tasks_train), len(meta.tasks_test)) == (4, 3)
    layout = HyperStates.open(folders["relabel"] / "hyper_states.zarr").layout
    assert (layout.tasks, layout.trials, layout.belief_rewards) == (4, 4, file.stem == "gridworld")
    scores = read_json(folders["evaluate"] / "scores.json")
    assert scores["domain"] == file.stem
    assert scores["tasks"] == meta.tasks_test.tolist()
    assert scores["protocol"]["start"] == "origin"
    assert scores["protocol"]["collection_start"] == meta.start
    rollouts, _ = load_tensors(folders["evaluate"] / "rollouts.safetensors")
    sums = rollouts["rewards"].astype(np.float64).sum(-1)
    np.testing.assert_allclose(sums, scores["returns"]["agent"])
    evaluations = (folders["train-offline"] / "evaluations.csv").read_text().splitlines()
    final = dict(zip(evaluations[0].split(","), evaluations[-1].split(","), strict=True))
    assert float(final["return_mean"]) == pytest.approx(sums.sum(1).mean(), rel=1e-6)
    row = score_rows(store, file.stem)[0]
    assert row["return_sum"]["mean"] == pytest.approx(sums.sum(1).mean())


def test_a_second_run_finds_everything(made: tuple[Store, Path, RunResult]) -> None:
    store, file, result = made
    again = run(store, file)
    assert all(cached(again).values())
    assert digests(again) == digests(result)


def test_a_seed_gives_the_same_bytes_in_another_store(
    made: tuple[Store, Path, RunResult], tmp_path: Path
) -> None:
    _, file, result = made
    assert digests(run(Store(tmp_path / "home"), file)) == digests(result)


def test_trials_that_went_out_and_came_back_train_the_same_agents(
    made: tuple[Store, Path, RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, file, result = made
    monkeypatch.setenv("OMRL_HOME", str(store.root))
    out = tmp_path / "out"
    assert main(["export", result.record.name, "--to", str(out), "--quiet"]) == 0
    words = ["import", str(out), "--domain", file.stem, "--tasks", str(out / "tasks.csv")]
    episodes = read_meta(result.artefacts["collect"].folder).episodes
    assert main([*words, "--name", "back", "--episodes", str(episodes), "--quiet"]) == 0
    loaded = load_config(str(file), ["collect.imported=back"])
    runtime = RuntimeConfig(threads=1, workers=1, quiet=True, tensorboard=False)
    again = execute(RunRequest(loaded, 0, "back-seed0", runtime=runtime), store)
    assert again.artefacts["collect"].manifest.stage == "import"
    for step, name in (
        ("train-vae", "vae.safetensors"),
        ("train-offline", "agent.safetensors"),
        ("train-blind", "agent.safetensors"),
        ("evaluate", "rollouts.safetensors"),
    ):
        first, second = (r.artefacts[step].folder / name for r in (result, again))
        assert first.read_bytes() == second.read_bytes(), step


def test_another_seed_gives_other_bytes(
    made: tuple[Store, Path, RunResult], tmp_path: Path
) -> None:
    _, file, result = made
    other = digests(run(Store(tmp_path / "home"), file, seed=1))
    assert all(other[step] != digest for step, digest in digests(result).items())


@pytest.mark.parametrize("stage", ["collect", "train-vae", "relabel", "train-offline"])
def test_a_refreshed_stage_has_the_same_bytes_and_later_ones_stay_cached(
    stage: str, made: tuple[Store, Path, RunResult]
) -> None:
    store, file, result = made
    again = run(store, file, refresh=(stage,))
    assert digests(again) == digests(result)
    blind = {"train-blind"} if stage == "train-offline" else set()
    anew = {step for step, found in cached(again).items() if not found}
    assert anew == {stage} | blind


# ---------------------------------------------------------------------- killed

POINTS = [
    "collect-round:2",
    "collect-round:4",  # the first group is done and its checkpoint kept
    "checkpoint-written:1",
    "trials-written:2",
    "trials/before-manifest",
    "checkpoint-before:1",
    "checkpoint-moved:1",
    "vae/before-rename",
    "hyper-states-field:7",
    "hyper-states-close",
    "hyper-states/after-rename",
    "train-offline-log:3",
    "checkpoint-renamed:1",
    "agent/data-done",
    "train-offline-log:1",
    "file-written:9",
    "scores/before-manifest",
]


def omrl(home: Path, file: Path, workers: int = 1, **env: str) -> tuple[int, str]:
    """`omrl run` as a process of its own: exit code and standard error."""
    words = ["run", str(file), "--no-prefect", "--no-report", "--quiet", "--threads", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *words, "--workers", str(workers)],
        cwd=REPOSITORY,
        env={**os.environ, "OMRL_HOME": str(home), "OMP_NUM_THREADS": "1", **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stderr


def whole(home: Path) -> dict[str, str]:
    """Content digest of every artefact by reference; all must be whole."""
    store, found = Store(home), {}
    for kind, name in store.all_keys():
        artefact = store.find(kind, name)
        assert artefact is not None, f"{kind}/{name} is damaged"
        found[artefact.reference] = artefact.digest
    return found


@pytest.mark.slow
@pytest.mark.parametrize("domain", DOMAINS)
def test_killed_again_and_again_it_ends_with_the_same_bytes(domain: str, tmp_path: Path) -> None:
    file = write_config(tmp_path, domain)
    assert omrl(tmp_path / "straight", file)[0] == 0
    straight, home = whole(tmp_path / "straight"), tmp_path / "home"
    assert len(straight) == 6
    missed = []
    for point in POINTS:
        code, errors = omrl(home, file, OMRL_FAIL=point)
        if code == 0:
            missed.append(point)
        else:
            assert code == -signal.SIGKILL, errors
        assert whole(home).items() <= straight.items()
    code, errors = omrl(home, file)
    assert code == 0, errors
    assert whole(home) == straight
    assert missed == []
    assert [p for name in (".tmp", ".trash", ".checkpoints") for p in (home / name).glob("*")] == []


@pytest.mark.slow
def test_a_killed_worker_is_told_and_the_next_run_goes_on(tmp_path: Path) -> None:
    file = write_config(tmp_path, "gridworld")
    assert omrl(tmp_path / "straight", file)[0] == 0
    home = tmp_path / "home"
    code, errors = omrl(home, file, workers=2, OMRL_FAIL="collect-round:2")
    assert code == 1
    assert "a worker process was killed" in errors
    assert "Traceback" not in errors
    assert omrl(home, file, workers=2)[0] == 0
    assert whole(home) == whole(tmp_path / "straight")


def is_running(pid: int) -> bool:
    """Whether the process lives; a zombie does not."""
    try:
        os.kill(pid, 0)
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
def test_workers_die_with_a_killed_parent(tmp_path: Path) -> None:
    """Or they would write checkpoints beside those of the run that takes over."""
    endless = CONFIGS["gridworld"]["collect"] | {"iterations": 100_000}
    file = tmp_path / "endless.yaml"
    file.write_text(json.dumps(CONFIGS["gridworld"] | {"collect": endless}))
    words = ["run", str(file), "--no-prefect", "--no-report", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *words],
        cwd=REPOSITORY,
        env={**os.environ, "OMRL_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        until(lambda: len(workers(children)) == 2, 120)
        pids = workers(children)
        time.sleep(1.0)
        assert all(is_running(pid) for pid in pids)
    finally:
        process.kill()
        process.wait()
    until(lambda: not any(is_running(pid) for pid in pids), 30)


def workers(children: Path) -> list[int]:
    """Processes that multiprocessing has spawned, but for the one that tracks resources."""
    found = []
    for pid in map(int, children.read_text().split()):
        if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text():
            found.append(pid)
    return found


def until(condition: Any, seconds: float) -> None:
    """Wait for a condition."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_stops_workers_with_their_parent(
    number: signal.Signals, tmp_path: Path
) -> None:
    """As a terminal's Ctrl-C or a supervisor sends it: exit 130 in seconds, and on from there."""
    endless = CONFIGS["gridworld"]["collect"] | {"iterations": 2000}
    file = tmp_path / "long.yaml"
    file.write_text(json.dumps(CONFIGS["gridworld"] | {"collect": endless}))
    words = ["run", str(file), "--no-prefect", "--no-report", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *words],
        cwd=REPOSITORY,
        env={**os.environ, "OMRL_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: len(workers(children)) == 2, 120)
    time.sleep(6.0)  # past the imports
    begun = time.monotonic()
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - begun < 10
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "Go on with: omrl run" in errors
    checkpoints = list((tmp_path / "home" / ".checkpoints").glob("*/group-*.safetensors"))
    assert len(checkpoints) == 2 or number == signal.SIGTERM  # which workers do not survive
