"""Whole processes killed, stopped and racing: a run goes on from there, to the same final bytes."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import omrl_process

from pipeline.store import KINDS, Store

RUN = ("run", "ant_dir", "--no-prefect", "--no-report", "--quiet")
POINTS = ("before-write", "data-done", "before-manifest", "before-rename", "after-rename")
STAGES = ("collect", "plan_donors", "train_vae", "relabel", "train_offline", "evaluate")
LEFT_OVERS = (".tmp", ".trash", ".checkpoints")


def finish(process: subprocess.Popen[str], timeout: float = 60) -> tuple[int, str]:
    """Exit code and standard error."""
    _, errors = process.communicate(timeout=timeout)
    return process.returncode, errors


def omrl(home: Path, *words: str, **env: str) -> tuple[int, str]:
    """Run a command to its end."""
    return finish(omrl_process(home, *words, env=env))


def digests(home: Path) -> dict[str, str]:
    """Content digest of every artefact by id; all must be whole."""
    store = Store(home)
    found = {}
    for kind, name in store.all_keys():
        artefact = store.find(kind, name)
        assert artefact is not None, f"{kind}/{name} is damaged"
        found[artefact.reference] = artefact.digest
    return found


def left_overs(home: Path) -> list[str]:
    """What lies in the folders that are empty between runs."""
    return [path.name for name in LEFT_OVERS for path in (home / name).glob("*")]


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of an uninterrupted run."""
    home = tmp_path_factory.mktemp("straight")
    assert omrl(home, *RUN)[0] == 0
    found = digests(home)
    assert {kind for kind, _, _ in (name.partition("/") for name in found)} == set(KINDS)
    return found


def kill_and_go_on(home: Path, point: str, straight: dict[str, str]) -> None:
    """Die at a fail point; whatever is left is whole; the next run ends like the straight one."""
    code, errors = omrl(home, *RUN, OMRL_FAIL=point)
    assert code == -signal.SIGKILL, errors
    before = digests(home)
    assert before.items() <= straight.items()
    code, errors = omrl(home, *RUN)
    assert code == 0, errors
    assert digests(home) == straight
    assert left_overs(home) == []
    assert errors.count(" cached ") >= len(before)


@pytest.mark.parametrize("point", ["trials/after-rename", "vae/before-manifest", "relabel-mid:3"])
def test_killed_at_a_few_points(point: str, tmp_path: Path, straight: dict[str, str]) -> None:
    kill_and_go_on(tmp_path, point, straight)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_every_point_of_a_commit(
    kind: str, point: str, tmp_path: Path, straight: dict[str, str]
) -> None:
    kill_and_go_on(tmp_path, f"{kind}/{point}", straight)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_killed_in_the_middle_of_every_stage(
    stage: str, tmp_path: Path, straight: dict[str, str]
) -> None:
    kill_and_go_on(tmp_path, f"{stage}-mid:2", straight)


def test_a_killed_stage_loses_one_chunk_at_most(tmp_path: Path) -> None:
    log = tmp_path / "calls.log"
    home = tmp_path / "home"
    omrl(home, *RUN, OMRL_FAIL="train_vae-mid:3", OMRL_FAKE_LOG=str(log))
    assert omrl(home, *RUN, OMRL_FAKE_LOG=str(log))[0] == 0
    chunks = [line for line in log.read_text().splitlines() if line.startswith("train_vae chunk")]
    assert chunks == [f"train_vae chunk {n}" for n in (0, 1, 2, 2, 3)]


def wait_for_line(log: Path, line: str) -> None:
    """Until a fake stage has got there."""
    begun = time.monotonic()
    while not log.exists() or line not in log.read_text().splitlines():
        assert time.monotonic() - begun < 30
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_within_seconds_and_goes_on(
    number: signal.Signals, tmp_path: Path, straight: dict[str, str]
) -> None:
    home, log = tmp_path / "home", tmp_path / "calls.log"
    process = omrl_process(home, *RUN, env={"OMRL_FAKE_LOG": str(log), "OMRL_FAKE_SLEEP": "0.3"})
    wait_for_line(log, "relabel chunk 1")
    begun = time.monotonic()
    process.send_signal(number)
    code, errors = finish(process)
    assert time.monotonic() - begun < 10
    assert code == 130
    assert "Go on with: omrl run ant_dir --seed 0 --no-prefect --no-report --quiet" in errors
    assert "Traceback" not in errors
    log.write_text("")
    assert omrl(home, *RUN, OMRL_FAKE_LOG=str(log))[0] == 0
    assert log.read_text().splitlines()[:2] == ["relabel", "relabel chunk 2"]
    assert digests(home) == straight


def test_eight_processes_make_each_artefact_once(tmp_path: Path, straight: dict[str, str]) -> None:
    home, log = tmp_path / "home", tmp_path / "calls.log"
    env = {"OMRL_FAKE_LOG": str(log), "OMRL_FAKE_SLEEP": "0.05"}
    processes = [omrl_process(home, *RUN, env=env) for _ in range(8)]
    ends = [finish(process, 120) for process in processes]
    assert [code for code, _ in ends] == [0] * 8, [errors for code, errors in ends if code]
    calls = [line for line in log.read_text().splitlines() if " " not in line]
    assert sorted(calls) == sorted([*STAGES, "train_offline"])
    assert digests(home) == straight
    assert left_overs(home) == []


def test_the_work_of_a_killed_holder_is_taken_over(
    tmp_path: Path, straight: dict[str, str]
) -> None:
    home, log = tmp_path / "home", tmp_path / "calls.log"
    first = omrl_process(home, *RUN, env={"OMRL_FAKE_LOG": str(log), "OMRL_FAKE_SLEEP": "60"})
    wait_for_line(log, "collect chunk 0")
    second = omrl_process(home, *RUN)
    time.sleep(1.5)
    assert second.poll() is None  # waits for the holder
    first.kill()
    first.communicate()
    begun = time.monotonic()
    code, errors = finish(second)
    assert code == 0, errors
    assert time.monotonic() - begun < 15
    assert "waiting for another run" in errors  # also with --quiet: why nothing seems to happen
    assert digests(home) == straight


def test_garbage_collectors_remove_nothing_in_use(tmp_path: Path, straight: dict[str, str]) -> None:
    home = tmp_path / "home"
    running = omrl_process(home, *RUN, env={"OMRL_FAKE_SLEEP": "0.1"})
    while running.poll() is None:
        collectors = [omrl_process(home, "gc") for _ in range(2)]
        assert [finish(process)[0] for process in collectors] == [0, 0]
    assert finish(running)[0] == 0
    assert digests(home) == straight


@pytest.mark.slow
def test_killed_at_random_times(tmp_path: Path, straight: dict[str, str]) -> None:
    rng = random.Random(0)
    kills = attempts = 0
    while kills < 40:
        home = tmp_path / str(attempts)
        attempts += 1
        while True:
            process = omrl_process(home, *RUN, env={"OMRL_FAKE_SLEEP": "0.02"})
            try:
                code, errors = finish(process, rng.uniform(0.3, 1.6))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
                assert digests(home).items() <= straight.items()
                continue
            assert code == 0, errors
            break
        assert digests(home) == straight
        assert left_overs(home) == []


def test_a_file_size_limit_ends_a_run_whole(tmp_path: Path) -> None:
    """A real refusal by the system, not a mock: files of 2000 bytes at most."""
    home = tmp_path / "home"
    process = omrl_process(home, *RUN, env={"OMRL_FAKE_LIMIT": "2000"})
    code, errors = finish(process)
    assert code == 1
    assert f"no room to write {home}" in errors
    assert "bytes are needed" in errors
    assert digests(home) == {}
    assert omrl(home, *RUN)[0] == 0
