"""What stages share: the seed tree, the context with its progress bars, TensorBoard."""

from __future__ import annotations

import re
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.context import StageContext
from stages.seeds import numpy_generator, seed_sequence, torch_generator, torch_seed
from stages.tensorboard import scalar_writer

PATHS = [(), ("collect",), ("collect", 0), ("collect", 1), ("collect", 0, "starts"), ("vae", 0)]


def test_every_node_of_the_seed_tree_is_another() -> None:
    nodes = [(seed, *path) for seed in (0, 1) for path in PATHS]
    states = [tuple(seed_sequence(*node).generate_state(4)) for node in nodes]
    assert len(set(states)) == len(nodes)
    seeds = [torch_seed(*node) for node in nodes]
    assert len(set(seeds)) == len(nodes)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_node_depends_on_its_path_alone() -> None:
    for path in PATHS:
        first, second = (numpy_generator(7, *path).random(5) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        draws = [torch.rand(5, generator=torch_generator(7, *path)) for _ in range(2)]
        assert torch.equal(*draws)
    for one, other in combinations(PATHS, 2):
        assert not np.array_equal(
            numpy_generator(7, *one).random(5), numpy_generator(7, *other).random(5)
        )


def test_names_are_hashed_the_same_on_every_machine() -> None:
    """A golden value: Python's own hash() would change from run to run."""
    assert torch_seed(3, "collect", 2, "batches") == 9039839178785658526


def test_a_progress_bar_counts_and_shows_its_note(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with StageContext(tmp_path).progress(10, "train-vae", "update", done=4) as bar:
        bar.advance(5, "loss 0.5")
        bar.advance()
    shown = capfd.readouterr().err
    assert "train-vae" in shown
    assert "10/10" in shown
    assert "loss 0.5" in shown
    with StageContext(tmp_path, quiet=True).progress(2, "relabel") as bar:
        bar.advance(2)
    assert capfd.readouterr().err == ""


def test_the_rate_of_a_resumed_bar_leaves_out_what_was_done_before(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with StageContext(tmp_path).progress(10_000, "train-vae", "update", done=9_000) as bar:
        time.sleep(0.05)
        bar.advance()
    last = capfd.readouterr().err.split("\r")[-1]
    assert "9001/10000" in last
    rate = re.search(r"([\d.]+) update/s", last)
    assert rate is not None
    assert float(rate[1]) < 25


def test_a_bar_is_closed_when_its_stage_fails(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        with StageContext(tmp_path).progress(10, "collect"):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail()
    assert capfd.readouterr().err.endswith("\n")


def test_contexts_share_no_stop_event(tmp_path: Path) -> None:
    first, second = StageContext(tmp_path), StageContext(tmp_path)
    first.stop.set()
    assert first.interrupted
    assert not second.interrupted


def test_scalars_are_written_by_step(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with scalar_writer(tmp_path) as write:
        write({"step": 5, "loss": 1.5, "q": 2.0})
        write({"step": 10, "loss": 0.5})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["loss", "q"]
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(5, 1.5), (10, 0.5)]


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    with scalar_writer(None) as write:
        write({"step": 5, "loss": 1.5})
    assert not list(tmp_path.iterdir())
