"""The harness: what it says of two sides is what they did."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
import torch
from tape import TapeGraphs

from benchmarks import cases, duels, floor, on_device
from benchmarks.__main__ import main
from benchmarks.cases import CASES, load_case
from benchmarks.duels import DUELS, TARGETS, Duel
from benchmarks.machine import Machine
from benchmarks.measure import Measured, measure
from benchmarks.page import merged, page, read_document, row_of, times, write_document
from benchmarks.schedule import schedule_rows, schedule_table, work
from benchmarks.startup import measure_startup, startup_table
from benchmarks.to_loss import loss_table, race
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
    row = row_of(measured, "collection", MACHINE, "python -m benchmarks")
    assert row["floor_share"] == pytest.approx(100 * (1e6 + 2e6) / 1e9)
    assert row["equal_settings"] == 5
    assert row["target"] == 30
    text = page({"duels": [row]})
    assert (
        "| collection | gridworld | 100 naps | **10.0** | 10.0 to 15.0 | 5.0 | 30 | 30% |" in text
    )


def test_rows_measured_again_replace_their_own_alone(tmp_path: Path) -> None:
    old = Measured(sleeping(1), ours=[10.0], plain=[1.0], plain_best=[1.0])
    new = Measured(sleeping(1), ours=[30.0], plain=[2.0], plain_best=[2.0])
    first, second = (row_of(old, stage, MACHINE, "before") for stage in ("collection", "vae"))
    again = row_of(new, "collection", MACHINE, "after")
    write_document({"duels": merged([second, first], [again])}, tmp_path)
    assert read_document(tmp_path) == {"duels": [again, second]}
    text = (tmp_path / "performance.md").read_text()
    assert "**15.0**" in text
    assert "`after` on a machine" in text
    assert "`before` on a machine" in text


def test_hours_of_the_published_schedule() -> None:
    """Gridworld, counted by hand: 21 tasks x 510 trials x 60 steps, 19,200 updates of 64 x 30."""
    units = work(load_case("gridworld"))
    assert units == {
        "collection": 21 * 1000 * 20,
        "acting": 21 * 510 * 60,
        "rewards": 19_200 * 64 * 30,
        "vae": 19_200,
        "relabel": 21 * 510 * 60,
        "offline": 250_000,
        "evaluation": 101 * 21 * 60,
    }
    duels = [
        {
            "key": key,
            "case": "gridworld",
            "units_per_second": count / 7200,
            "plain_units_per_second": count / 36_000,
        }
        for key, count in units.items()
    ]
    (row,) = schedule_rows(duels)
    assert (row["hours"], row["plain_hours"], row["ratio"]) == pytest.approx((14, 70, 5))
    assert "| gridworld | plain | 10 h | 10 h |" in schedule_table([row])
    assert schedule_rows(duels[1:]) == []


def test_the_race_to_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"EPOCHS": 1, "_TRIALS": {"gridworld": 20}, "_PLAIN_UPDATES": 1}.items():
        monkeypatch.setattr(f"benchmarks.to_loss.{name}", value)
    monkeypatch.setattr("benchmarks.to_loss._CHECK_EVERY", 1)
    row = race("gridworld", torch.get_num_threads())
    assert row["plain_updates"] == 3 * 3  # 18 of 20 trials by 8, 21 tasks by 8
    assert row["reached"] <= row["level"]
    assert row["ratio"] == pytest.approx(row["plain_seconds"] / row["seconds"])
    assert "| gridworld |" in loss_table([row])
    assert "not reached" in loss_table([row | {"ratio": None}])


def test_updates_on_a_device(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {"_SECONDS": 0.0, "_FIRST_UPDATES": 1, "_BYTES": 4 << 20}.items():
        monkeypatch.setattr(on_device, name, value)
    monkeypatch.setattr(on_device, "graphs_on", lambda device, generators: TapeGraphs())
    threads = torch.get_num_threads()
    try:
        assert main(["device", "--case", "gridworld", "--threads", str(threads)]) == 0
    finally:
        torch.set_num_threads(threads)
    table = capsys.readouterr().out
    assert table.count("| gridworld |") == 2
    row = {
        "what": "offline RL update",
        "case": "cheetah_vel",
        "device": "a GPU",
        "precision": "tf32",
        "eager": 0.002,
        "captured": 0.0005,
        "operations": 10_000_000_000,
        "target": on_device.TARGETS["offline RL update", "cheetah_vel"],
        "torch_version": "2",
        "command": "python -m benchmarks device --device cuda",
    }
    other, again = row | {"precision": "float32"}, row | {"eager": 0.003}
    merged = on_device.merged_updates([row, other], [again])
    assert merged == [again, other]
    write_document({"device": merged}, tmp_path)
    text = (tmp_path / "performance.md").read_text()
    assert "| a GPU | tf32 | 3 ms | 0.5 ms | 20 T | 0.7 ms |" in " ".join(text.split())
    assert text.count("- `python -m benchmarks device --device cuda`, torch 2.") == 1
    assert "## On a GPU" not in page({})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_updates_on_a_gpu() -> None:
    rows = on_device.measure_updates(["gridworld"], "cuda", "")
    assert [row["precision"] for row in rows] == ["float32", "tf32"] * 2
    assert all(row["captured"] < row["eager"] for row in rows)


def test_startup_is_measured() -> None:
    rows = measure_startup(1)
    assert [row["target"] for row in rows] == [0.5, 3.0, 12.0]
    assert all(0 < row["seconds"] == row["largest"] < 60 for row in rows)
    assert startup_table(rows).count("omrl run") == 2


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
    assert len(TARGETS[stage]) in (0, 2, 3)


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
        (["device", "--device", "cuda:99"], "--device cuda:99: this machine has "),
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
