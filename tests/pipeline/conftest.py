"""A store in a temporary folder, presets of our own, and stages that take no time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from fake_stages import fake_stage

import pipeline.presets
import pipeline.run
from pipeline.presets import load_config
from pipeline.records import run_name
from pipeline.run import RunRequest, RunResult, execute
from pipeline.store import Store

REPOSITORY = Path(__file__).resolve().parents[2]
FAKE_PROGRAM = Path(__file__).with_name("fake_stages.py")


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power, and a run flushes a hundred times."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store; commands find it too."""
    monkeypatch.setenv("OMRL_HOME", str(tmp_path / "home"))
    return Store(tmp_path / "home")


@pytest.fixture
def call_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file to which fake stages write a line a call."""
    path = tmp_path / "calls.log"
    path.touch()
    monkeypatch.setenv("OMRL_FAKE_LOG", str(path))
    return path


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage is its fake."""
    monkeypatch.setattr(pipeline.run, "load_stage", fake_stage)


@pytest.fixture
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with a preset `toy` on the gridworld; commands find it too."""
    root = tmp_path / "clone"
    for folder in pipeline.presets.FOLDERS:
        (root / folder).mkdir(parents=True)
    (root / "data_collection_config" / "toy.yaml").write_text(
        "# a toy\ncollect:\n  domain: gridworld\n  learner:\n    rule: dqn\n"
        "  tasks:\n    train: 21\n    test_tasks_seen: true\n"
    )
    (root / "vae_config" / "toy.yaml").write_text(
        "vae:\n  updates: 10\n  elbo:\n    kl_weight: 0.05\n"
    )
    (root / "offline_config" / "toy.yaml").write_text("offline:\n  learner:\n    rule: dqn\n")
    monkeypatch.setattr(pipeline.presets, "config_root", lambda: root)
    return root


RunToy = Callable[..., RunResult]


@pytest.fixture
def run_toy(store: Store, presets: Path, fake: None, call_log: Path) -> RunToy:
    """Runs the preset `toy` with fake stages in plain Python."""

    def run(
        overrides: Sequence[str] = (), seed: int = 0, refresh: Sequence[str] = (), **options: object
    ) -> RunResult:
        request = toy_request(overrides, seed, refresh)
        return execute(request, store, **options)  # type: ignore[arg-type]

    return run


def toy_request(
    overrides: Sequence[str] = (), seed: int = 0, refresh: Sequence[str] = ()
) -> RunRequest:
    """A request for the preset `toy`."""
    loaded = load_config("toy", overrides)
    name = run_name("toy", loaded.overrides, seed)
    return RunRequest(loaded, seed, name, frozenset(refresh), command=f"omrl run toy --seed {seed}")


def called(log: Path) -> list[str]:
    """The stages called since the last look, in order."""
    lines = log.read_text().splitlines()
    log.write_text("")
    return [line for line in lines if " " not in line]


def omrl_process(
    home: Path, *words: str, env: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """`omrl` with fake stages as a process of its own; it starts in the clone."""
    return subprocess.Popen(
        [sys.executable, str(FAKE_PROGRAM), *words],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "OMRL_HOME": str(home),
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(FAKE_PROGRAM.parent)]),
            **(env or {}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
