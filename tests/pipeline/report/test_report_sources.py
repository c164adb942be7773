"""Reading the stages' outputs: what is absent is left out, what is wrong is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from report_data import MakeSeed, seed_maker

from datasets.errors import DataError
from datasets.files import read_json, write_json
from pipeline.report.sources import Curves, Scores, SeedFolders, SeedOutputs


@pytest.fixture
def make_seed(tmp_path: Path) -> MakeSeed:
    """Writes made-up artefacts of one seed."""
    return seed_maker(tmp_path / "made")


def test_curves_keep_gaps_as_nan(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss,kl\n1,2.5,\n2,1.5,0.25\n")
    curves = Curves.read(path)
    assert curves is not None
    np.testing.assert_array_equal(curves.step, [1, 2])
    np.testing.assert_array_equal(curves.columns["kl"], [np.nan, 0.25])


@pytest.mark.parametrize("text", ["", "step\n", "step,loss\n"])
def test_curves_without_rows_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "metrics.csv"
    assert Curves.read(path) is None
    path.write_text(text)
    assert Curves.read(path) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step,loss\n1,2\n2,x\n", "line 3: could not convert"),
        ("step,loss\n1\n", "line 2"),
        ("time,loss\n1,2\n", "the first column is not 'step'"),
    ],
)
def test_broken_curves_name_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        Curves.read(path)


def test_scores_have_the_shapes_of_the_contract(make_seed) -> None:
    scores = Scores.read(make_seed("gridworld").folders["scores"] / "scores.json")
    assert scores.domain == "gridworld"
    assert scores.returns["agent"].shape == (6, 4)
    assert scores.success["agent"].shape == (6,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["returns"].pop("agent"), "no returns of 'agent'"),
        (lambda c: c["returns"]["oracle"].pop(), "returns of 'oracle'"),
        (lambda c: c.pop("tasks"), "not a scores file"),
        (lambda c: c["returns"].update(agent="high"), "not a scores file"),
    ],
)
def test_wrong_scores_are_refused(make_seed, change, message: str) -> None:
    path = make_seed("gridworld").folders["scores"] / "scores.json"
    content = read_json(path)
    change(content)
    write_json(path, content)
    with pytest.raises(DataError, match=message):
        Scores.read(path)


def test_everything_but_scores_may_be_absent(make_seed) -> None:
    whole = make_seed("gridworld")
    alone = SeedOutputs.read(SeedFolders(0, {"scores": whole.folders["scores"]}))
    assert alone.collection is None
    assert alone.diagnostics == {}
    with pytest.raises(DataError, match="seed 3 has no scores"):
        SeedOutputs.read(SeedFolders(3, {"vae": whole.folders["vae"]}))


def test_a_damaged_tensor_file_is_refused(make_seed) -> None:
    folders = make_seed("gridworld")
    path = folders.folders["scores"] / "rollouts.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"rollouts\.safetensors"):
        SeedOutputs.read(folders)
