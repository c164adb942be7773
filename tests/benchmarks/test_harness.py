"""The harness: what it says of two sides is what they did."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
import torch

from benchmarks import cases, duels, floor
from benchmarks.__main__ import main
from benchmarks.cases import CASES, load_case
from benchmarks.duels import DUELS, TARGETS, Duel
from benchmarks.machine import Machine
from benchmarks.measure import Measured, measure
from benchmarks.page import page, row_of, times
from pipeline.cli import main as omrl

MACHINE = Machine("a machine", 2, "2", operations=1e9, copied=1e9)


def sleeping(seconds: float) -> Duel:
    """A plain side that takes three times as long."""

    def ours() -> float:
        time.sleep(seconds)
        return 2

    def plain() -> float:
        time.sleep(3 * seconds)
        return 2

    return Duel("collection", "gridworld", "nap", ours, plain, operations=1e6, moved=2e6)


def test_a_ratio_is_that_of_the_time_taken() -> None:
    measured = measure(sleeping(0.05), rounds=2)
    assert len(measured.ours) == len(measured.plain) == len(measured.plain_best) == 2
    assert measured.ratio(measured.plain)[0] == pytest.approx(3, rel=0.4)


def test_the_floor_counts_operations_and_bytes() -> None:
    measured = Measured(sleeping(1), ours=[100, 100, 120], plain=[10, 5, 12], plain_best=[20] * 3)
    assert measured.ratio(measured.plain) == (10.0, 10.0, 15.0)
    row = row_of(measured, "collection", MACHINE)
    assert row["floor_share"] == pytest.approx(100 * (1e6 + 2e6) / 1e9)
    assert row["equal_settings"] == 5
    assert row["target"] == 30
    text = page([row], MACHINE, "python -m benchmarks")
    assert (
        "| collection | gridworld | 100 naps | **10.0** | 10.0 to 15.0 | 5.0 | 30 | 30% |" in text
    )


def test_shares_of_one_have_two_digits() -> None:
    assert [times(ratio) for ratio in (0.704, 1.04, 30)] == ["0.70", "1.0", "30.0"]


@pytest.mark.parametrize(
    ("name", "batch", "elbo", "agent"),
    [
        ("gridworld", (64, 60), 0.523, 0.206),
        ("point_robot_sparse", (64, 120), 9.41, 2.35),
        ("cheetah_vel", (32, 400), 38.6, 9.56),
    ],
)
def test_operations_of_published_updates(
    name: str, batch: tuple[int, int], elbo: float, agent: float
) -> None:
    """In 10^9, counted by hand from the layers' widths."""
    case = load_case(name)
    spec, offline = case.family.spec, case.config.offline
    assert floor.elbo_update(cases.make_vae(case), *batch) / 1e9 == pytest.approx(elbo, rel=0.01)
    each = floor.agent_update(offline.learner, case.state_dim, spec.action_dim, spec.n_actions)
    assert offline.batch_size * each / 1e9 == pytest.approx(agent, rel=0.02)


@pytest.mark.parametrize("name", CASES[:2])
@pytest.mark.parametrize("stage", DUELS)
def test_both_sides_of_every_duel_work(
    stage: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duels, "ROTATED_BYTES", 32 << 20)
    duel = DUELS[stage](load_case(name))
    assert duel.ours() > 0
    assert duel.plain() > 0
    assert duel.operations or duel.moved
    assert len(TARGETS[stage]) >= 2


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        words = ["rewards", "--case", "gridworld", "--rounds", "1", "--threads", "1", "--no-memory"]
        assert main(words) == 0
    finally:
        torch.set_num_threads(threads)
    assert "| reward relabelling | gridworld |" in capsys.readouterr().out
    for wrong, message in (
        (["colection"], "unknown stage 'colection'; did you mean 'collection'?"),
        (["vae", "--case", "gridwold"], "unknown case 'gridwold'; did you mean 'gridworld'?"),
        (["--rounds", "0"], "--rounds 0: must be a count of at least 1"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(wrong)
        assert caught.value.code == 2
        assert message in capsys.readouterr().err


def test_omrl_bench_hands_over(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def note(command: list[str], cwd: Path, check: bool) -> subprocess.CompletedProcess[str]:
        called.append((command[1:], (cwd / "benchmarks").is_dir()))
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr("pipeline.commands.bench.subprocess.run", note)
    assert omrl(["bench", "vae", "--case", "gridworld", "--no-memory", "--write"]) == 3
    words = "-m benchmarks vae --rounds 7 --threads 2 --case gridworld --no-memory --write"
    assert called == [(words.split(), True)]
    monkeypatch.setattr("pipeline.commands.bench.CHECKOUT", Path("nowhere"))
    assert omrl(["bench"]) == 2
