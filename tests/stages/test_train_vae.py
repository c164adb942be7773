"""train-vae: files, resume bit-equal, divergence, interruption, and that it learns."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scripted_trials import write_scripted
from tape import TapeGraphs, do_as_on_a_gpu

import stages.train_vae
from algorithms.errors import AlgorithmError, DivergenceError
from datasets.checkpoints import load_tensors
from stages.config import VaeConfig
from stages.context import Interrupted, StageContext
from stages.errors import StageError
from stages.seeds import numpy_generator
from stages.train_vae import COLUMNS, Training, train_vae
from stages.trial_table import TrialTable

CELLS = {
    "encoder": {"gru_size": 16, "action_embedding": 0},
    "reward_decoder": {"likelihood": "bernoulli-per-cell"},
}
SCALAR = {"encoder": {"gru_size": 16}, "reward_decoder": {"likelihood": "bernoulli"}}
WIND = {"encoder": {"gru_size": 16}, "state_decoder": {"enabled": True}}
FILES = {
    "vae.safetensors",
    "vae.json",
    "metrics.csv",
    "diagnostics.safetensors",
    "diagnostics.json",
}


def make_config(model: dict[str, object] = CELLS, **settings: object) -> VaeConfig:
    """Twelve updates on small batches."""
    defaults: dict[str, object] = {
        "updates": 12,
        "log_every": 5,
        "validate_every": 6,
        "tasks_per_batch": 2,
        "trials_per_task": 3,
    }
    return VaeConfig.model_validate(defaults | {"model": model} | settings)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scripted gridworld trials of three tasks."""
    folder = tmp_path_factory.mktemp("trials")
    write_scripted(folder, "gridworld")
    return folder


def run(
    config: VaeConfig, trials: Path, folder: Path, context: StageContext | None = None
) -> dict[str, bytes]:
    """Train in `folder`; the output's files."""
    output = folder / "output"
    output.mkdir(parents=True, exist_ok=True)
    context = context or make_context(folder)
    train_vae(config, 3, {"trials": trials}, output, context)
    return {path.name: path.read_bytes() for path in output.iterdir()}


def make_context(folder: Path, **settings: object) -> StageContext:
    """A quiet context of one thread."""
    return replace(StageContext(folder / "checkpoints", threads=1, quiet=True), **settings)


def test_output_is_complete_and_the_same_twice(trials: Path, tmp_path: Path) -> None:
    first = run(make_config(), trials, tmp_path / "a")
    assert first.keys() == FILES
    assert run(make_config(), trials, tmp_path / "b") == first
    rows = list(csv.DictReader(first["metrics.csv"].decode().splitlines()))
    assert list(rows[0]) == list(COLUMNS)
    assert [int(row["step"]) for row in rows] == [5, 6, 10, 12]
    assert rows[0]["validation_kl"] == ""
    assert float(rows[-1]["validation_rec_reward"]) > 0
    assert float(rows[-1]["train_loss"]) > 0


@pytest.mark.parametrize(
    ("domain", "model", "relabelling"),
    [
        ("point_robot_sparse", SCALAR, True),
        ("escape_room", SCALAR | {"state_decoder": {"enabled": True}}, False),
        ("point_robot_wind", WIND, False),
        ("point_robot", {"encoder": {"sees_observation": True}}, True),
    ],
)
def test_every_domain_trains(
    domain: str, model: dict[str, object], relabelling: bool, tmp_path: Path
) -> None:
    write_scripted(tmp_path / "trials", domain, trials=4)
    config = make_config(model, updates=2, relabelling={"enabled": relabelling})
    assert run(config, tmp_path / "trials", tmp_path).keys() == FILES


def test_captured_updates_write_the_same_bytes(
    trials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("models.recurrence", "algorithms.pair_loss"):  # as on other devices
        monkeypatch.setattr(f"{part}.takes", lambda tensor: False)
    do_as_on_a_gpu(monkeypatch)
    config = make_config(elbo={"decoded_posteriors": 4}, learning_rate_decay=True, muon=2.0)
    straight = run(config, trials, tmp_path / "straight")
    graphs = TapeGraphs()
    monkeypatch.setattr("stages.train_vae.graphs_on", lambda device, generators: graphs)
    assert run(config, trials, tmp_path / "captured") == straight
    assert graphs.recorded == 1


class Killed(BaseException):
    """Stands for a SIGKILL."""


@pytest.mark.parametrize("when", [1, 4, 5, 7, 11])
@pytest.mark.parametrize(("decay", "muon"), [(False, None), (True, None), (True, 2.0)])
def test_a_killed_run_goes_on_to_the_same_bytes(
    when: int,
    decay: bool,
    muon: float | None,
    trials: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = make_config(learning_rate_decay=decay, muon=muon)
    straight = run(config, trials, tmp_path / "straight")
    update = Training.update

    def dying(self: Training) -> None:
        if self.step == when:
            raise Killed
        update(self)

    always = make_context(tmp_path / "killed", checkpoint_seconds=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "update", dying)
        with pytest.raises(Killed):
            run(config, trials, tmp_path / "killed", always)
    steps = []
    monkeypatch.setattr(Training, "update", lambda self: (steps.append(self.step), update(self)))
    assert run(config, trials, tmp_path / "killed") == straight
    assert steps[0] == when


def test_ctrl_c_saves_a_checkpoint(trials: Path, tmp_path: Path) -> None:
    context = make_context(tmp_path)
    context.stop.set()
    with pytest.raises(Interrupted):
        run(make_config(), trials, tmp_path, context)
    straight = run(make_config(), trials, tmp_path / "straight")
    assert run(make_config(), trials, tmp_path) == straight


def test_a_diverging_loss_stops_at_once_and_keeps_the_checkpoint(
    trials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context(tmp_path, checkpoint_seconds=0.0)
    elbo = stages.train_vae.elbo
    calls = []

    def diverging(*arguments: object) -> object:
        calls.append(1)
        terms = elbo(*arguments)
        return terms._replace(loss=terms.loss * float("nan")) if len(calls) == 4 else terms

    monkeypatch.setattr(stages.train_vae, "elbo", diverging)
    with pytest.raises(DivergenceError, match=r"by update 4; the checkpoint of update 3 is kept"):
        run(make_config(), trials, tmp_path, context)
    assert len(calls) == 4
    arrays, note = load_tensors(context.checkpoints / "training.safetensors")
    assert note["step"] == 3
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_weights_that_are_not_finite_are_never_saved(
    trials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Training.update

    def breaking(self: Training) -> None:
        update(self)
        if self.step == 2:
            self.vae.encoder.heads.bias.data[0] = float("inf")

    monkeypatch.setattr(Training, "update", breaking)
    with pytest.raises(DivergenceError, match="checkpoint of update 1"):
        run(make_config(), trials, tmp_path, make_context(tmp_path, checkpoint_seconds=0.0))


def test_tensorboard_events_lie_outside_the_output(trials: Path, tmp_path: Path) -> None:
    context = make_context(tmp_path, logs=tmp_path / "logs")
    assert run(make_config(), trials, tmp_path, context).keys() == FILES
    assert list((tmp_path / "logs").iterdir())


def test_relabelling_of_dynamics_and_odd_likelihoods_are_refused(tmp_path: Path) -> None:
    write_scripted(tmp_path / "wind", "point_robot_wind", trials=4)
    with pytest.raises(AlgorithmError, match="differ in dynamics"):
        run(make_config(WIND), tmp_path / "wind", tmp_path)
    write_scripted(tmp_path / "dense", "point_robot", trials=4)
    with pytest.raises(AlgorithmError, match="use squared-error"):
        run(make_config(SCALAR), tmp_path / "dense", tmp_path)


def test_a_single_trial_is_too_few(tmp_path: Path) -> None:
    write_scripted(tmp_path / "trials", "gridworld", trials=1)
    with pytest.raises(StageError, match="task 0 has one trial: at least two"):
        run(make_config(), tmp_path / "trials", tmp_path)


def test_held_out_trials_are_a_share_and_never_trained_on(trials: Path) -> None:
    from datasets.trial_store import read_meta

    table = TrialTable.load(trials, read_meta(trials), 0.34, np.random.default_rng(0))
    for task, (training, held) in enumerate(zip(table.training, table.validation, strict=True)):
        assert len(held) == 2
        assert sorted([*training, *held]) == list(range(6 * task, 6 * task + 6))
        assert (table.task_of_row[held] == task).all()
    rng = numpy_generator(0, "draw")
    drawn = np.concatenate([table.draw_rows(rng, 2, 3) for _ in range(30)])
    assert not set(drawn) & set(np.concatenate(table.validation))
    rows = table.draw_rows(rng, 9, 9)  # more than there are: everything, once
    assert sorted(rows) == sorted(np.concatenate(table.training))
    assert [len(rows) for rows in table.first_validation_rows(3)] == [1, 1, 1]


def test_it_learns(tmp_path: Path) -> None:
    """The validation loss falls, and predictions from the belief beat the mean reward by far."""
    write_scripted(tmp_path / "trials", "point_robot", tasks=6, trials=20, horizon=12)
    config = make_config(
        {"encoder": {"gru_size": 16}},
        updates=120,
        validate_every=40,
        log_every=40,
        tasks_per_batch=6,
        trials_per_task=2,
        learning_rate=5e-3,
    )
    files = run(config, tmp_path / "trials", tmp_path)
    rows = list(csv.DictReader(files["metrics.csv"].decode().splitlines()))
    losses = [float(row["validation_loss"]) for row in rows]
    assert losses[-1] < losses[0]
    summary = json.loads(files["diagnostics.json"])
    arrays, _ = load_tensors(tmp_path / "output" / "diagnostics.safetensors")
    rewards = arrays["rewards"]
    assert summary["prediction_error"] < 0.7 * np.abs(rewards - rewards.mean()).mean()
