"""train-offline: it learns, the same bytes however it is run, divergence, best weights."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tape import TapeGraphs, do_as_on_a_gpu
from tiny_families import DRIFT, TWO_GOALS
from tiny_inputs import LATENT_DIM, make_inputs, save_untrained

import stages.train_offline
from algorithms.agent_files import BEST, FINAL, load_agent
from algorithms.errors import AlgorithmError, DivergenceError
from algorithms.filtering import OnlineFilter
from algorithms.learners.dqn import DQN
from algorithms.rollouts import roll_out
from algorithms.vae_files import load_vae
from datasets.checkpoints import load_tensors
from datasets.files import read_json
from datasets.trial_store import read_meta
from environments.registry import load_family
from stages.config import OfflineConfig
from stages.context import Interrupted, StageContext
from stages.errors import StageError
from stages.stored_tasks import StoredTasks
from stages.train_offline import Training, train_offline

Files = dict[str, bytes]
Inputs = dict[str, Path]


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def corridor(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Two goals, one on either side; half of the trials' steps go anywhere."""
    return make_inputs(
        tmp_path_factory.mktemp("corridor"), TWO_GOALS, 150, train=2, test=2, test_tasks_seen=True
    )


@pytest.fixture(scope="module")
def drift(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A continuous family."""
    return make_inputs(tmp_path_factory.mktemp("drift"), DRIFT, 5, train=3, test=4)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Two dozen tasks of a continuous family."""
    return make_inputs(tmp_path_factory.mktemp("many"), DRIFT, 8, train=24, test=4)


def make_config(rule: str = "dqn", learner: dict[str, Any] | None = None, **changes: Any) -> Any:
    """Thirty updates of a small learner."""
    sizes = {"rule": rule, "critic_layers": (8,), "actor_layers": (8,)}
    settings = {
        "learner": sizes | (learner or {}),
        "updates": 30,
        "batch_size": 16,
        "log_every": 7,
        "evaluate_every": 10,
    }
    return OfflineConfig.model_validate(settings | changes)


def make_context(folder: Path, **settings: Any) -> StageContext:
    """A quiet context of one thread."""
    return replace(StageContext(folder / "checkpoints", threads=1, quiet=True), **settings)


def run(
    config: OfflineConfig, inputs: Inputs, folder: Path, seed: int = 3, **settings: Any
) -> Files:
    """Train below `folder`; the output's files."""
    output = folder / "output"
    output.mkdir(parents=True, exist_ok=True)
    train_offline(config, seed, inputs, output, make_context(folder, **settings))
    return {path.name: path.read_bytes() for path in output.iterdir()}


def rows(files: Files, name: str) -> list[dict[str, float]]:
    """A curve's rows."""
    table = csv.DictReader(files[name].decode().splitlines())
    return [{key: float(value) for key, value in row.items()} for row in table]


# ---------------------------------------------------------------------- captured updates


@pytest.mark.parametrize("rule", ["dqn", "sac", "rebrac"])
def test_captured_updates_write_the_same_bytes(
    rule: str, corridor: Inputs, drift: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing the batch is part of what is repeated; averages and means are kept outside."""
    inputs = corridor if rule == "dqn" else drift
    config = make_config(rule, weight_averaging=0.05, learning_rate_decay=0.4)
    do_as_on_a_gpu(monkeypatch)
    straight = run(config, inputs, tmp_path / "straight")
    graphs = TapeGraphs()
    monkeypatch.setattr("stages.train_offline.graphs_on", lambda device, generators: graphs)
    assert run(config, inputs, tmp_path / "captured") == straight
    assert graphs.recorded == (2 if rule == "rebrac" else 1)


def test_a_captured_update_reads_the_tasks_of_its_turn(
    many: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do_as_on_a_gpu(monkeypatch)
    straight = run(quarter(many), many, tmp_path / "straight")
    graphs = TapeGraphs()
    monkeypatch.setattr("stages.train_offline.graphs_on", lambda device, generators: graphs)
    assert run(quarter(many), many, tmp_path / "captured") == straight
    assert graphs.recorded == 2


# ---------------------------------------------------------------------- what is written


@pytest.mark.parametrize("rule", ["sac", "cql", "iql", "td3bc", "rebrac"])
def test_every_rule_trains_and_writes_its_files(rule: str, drift: Inputs, tmp_path: Path) -> None:
    files = run(make_config(rule), drift, tmp_path)
    names = {"agent.json", FINAL, BEST, "metrics.csv", "evaluations.csv"}
    assert files.keys() == names
    assert [row["step"] for row in rows(files, "metrics.csv")] == [7, 14, 21, 28, 30]
    assert [row["step"] for row in rows(files, "evaluations.csv")] == [10, 20, 30]
    description = read_json(tmp_path / "output" / "agent.json")
    assert description["learner"]["rule"] == rule
    assert (description["state_dim"], description["family"]) == (1 + 2 * LATENT_DIM, "drift")
    assert load_tensors(tmp_path / "output" / FINAL)[1] == {"step": 30}


def test_metrics_are_means_since_the_last_log_point(
    corridor: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, losses = DQN.learn, []

    def noting(learner: DQN, batch: Any) -> dict[str, torch.Tensor]:
        metrics = learn(learner, batch)
        losses.append(float(metrics["loss"]))
        return metrics

    monkeypatch.setattr(DQN, "learn", noting)
    logged = [row["loss"] for row in rows(run(make_config(), corridor, tmp_path), "metrics.csv")]
    parts = [losses[0:7], losses[7:14], losses[14:21], losses[21:28], losses[28:30]]
    assert logged == pytest.approx([np.mean(part) for part in parts], rel=1e-5)


def test_evaluations_and_weights_are_those_of_their_steps(
    corridor: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Final and best weights, rolled out again, score what the curve says."""
    update = Training.update

    def forgetting(training: Training) -> None:
        update(training)
        if training.step == 75:
            for parameter in training.learner.parameters():
                parameter.data.zero_()

    monkeypatch.setattr(Training, "update", forgetting)
    config = make_config(learner={"learning_rate": 0.02}, updates=80, evaluate_every=10)
    curve = rows(run(config, corridor, tmp_path), "evaluations.csv")
    scores = [row["return_mean"] for row in curve]
    best = curve[int(np.argmax(scores))]  # the first of equals
    assert scores[-1] < max(scores)
    meta, family = read_meta(corridor["trials"]), load_family(TWO_GOALS)
    for name, row in ((FINAL, curve[-1]), (BEST, best)):
        assert load_tensors(tmp_path / "output" / name)[1] == {"step": row["step"]}
        returns = roll_out(
            family, meta.tasks_test, load_agent(tmp_path / "output", name),
            OnlineFilter(load_vae(corridor["vae"])), 2, "origin", np.random.default_rng(0),
        ).returns  # fmt: skip
        assert row["return_mean"] == pytest.approx(returns.sum(1).mean())
        assert [row["episode_1"], row["episode_2"]] == pytest.approx(returns.mean(0).tolist())
        assert (row["return_min"], row["return_max"]) == (
            returns.sum(1).min(), returns.sum(1).max(),
        )  # fmt: skip


def test_tasks_are_evaluated_in_their_order(corridor: Inputs) -> None:
    meta = read_json(corridor["hyper-states"] / "meta.json")
    evaluator = stages.train_offline.Evaluator(corridor["vae"], meta, 0, "cpu")

    class GoRight:
        """Right, then stay at 1."""

        def act(self, observations: torch.Tensor, belief: torch.Tensor) -> torch.Tensor:
            return torch.where(observations < 1, 2, 1)

    returns = evaluator.returns(GoRight())  # type: ignore[arg-type]
    goals = np.array(meta["tasks_test"])[:, 0]
    np.testing.assert_array_equal(returns, np.where(goals[:, None] == 1, 4.0, 0.0).repeat(2, 1))


# ---------------------------------------------------------------------- learning


def test_it_learns_to_look_and_to_remember_and_a_blind_agent_cannot(
    corridor: Inputs, tmp_path: Path
) -> None:
    """The Bayes-optimal agent looks on one side: 4 or 2, then 4, so 7 in the mean of both tasks.

    Without a belief 4 + 4 on one side and nothing on the other is the best.
    """
    learner = {"critic_layers": (64, 64), "learning_rate": 3e-3, "discount": 0.7, "polyak": 0.1}
    config = make_config(learner=learner, updates=500, batch_size=128, evaluate_every=250)
    seeing = rows(run(config, corridor, tmp_path / "seeing"), "evaluations.csv")
    assert seeing[-1]["return_mean"] == pytest.approx(7.0)
    assert seeing[-1]["episode_2"] == pytest.approx(4.0)
    blind_config = config.model_copy(update={"beliefs": False, "updates": 200})
    blind = rows(run(blind_config, corridor, tmp_path / "blind"), "evaluations.csv")
    assert blind[-1]["return_mean"] == pytest.approx(4.0)


def test_a_blind_agent_never_reads_beliefs(
    corridor: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(beliefs=False)
    first = run(config, corridor, tmp_path / "a")
    assert read_json(tmp_path / "a" / "output" / "agent.json")["state_dim"] == 1
    monkeypatch.setattr(OnlineFilter, "update", lambda self, *step: torch.zeros(2, 2 * LATENT_DIM))
    assert run(config, corridor, tmp_path / "b") == first
    seeing = run(make_config(), corridor, tmp_path / "c")
    assert seeing["metrics.csv"] != first["metrics.csv"]  # other weights, other batches


# ---------------------------------------------------------------------- the same bytes


@pytest.mark.parametrize("rule", ["dqn", "sac"])
def test_a_seed_gives_the_same_bytes_and_another_does_not(
    rule: str, corridor: Inputs, drift: Inputs, tmp_path: Path
) -> None:
    inputs = corridor if rule == "dqn" else drift
    config = make_config(rule)
    first = run(config, inputs, tmp_path / "a")
    assert run(config, inputs, tmp_path / "b") == first
    assert run(config, inputs, tmp_path / "c", seed=4)[FINAL] != first[FINAL]


@pytest.mark.parametrize("when", [0, 1, 7, 10, 16, 29])
@pytest.mark.parametrize(
    ("rule", "averaging", "noise"),
    [("dqn", 0.0, 0.0), ("dqn", 0.1, 0.0), ("td3bc", 0.0, 0.0), ("td3bc", 0.0, 0.3)],
)
def test_a_killed_run_goes_on_to_the_same_bytes(
    rule: str,
    averaging: float,
    noise: float,
    when: int,
    corridor: Inputs,
    drift: Inputs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = corridor if rule == "dqn" else drift
    config = make_config(rule, weight_averaging=averaging, belief_noise=noise)
    straight = run(config, inputs, tmp_path / "straight")
    update, steps = Training.update, []

    class Killed(BaseException):
        """Stands for a SIGKILL."""

    def dying(training: Training) -> None:
        steps.append(training.step)
        if training.step == when and steps.count(when) == 1:
            raise Killed
        update(training)

    monkeypatch.setattr(Training, "update", dying)
    with pytest.raises(Killed):
        run(config, inputs, tmp_path / "killed", checkpoint_seconds=0.0)
    assert run(config, inputs, tmp_path / "killed") == straight
    assert steps[when + 1] == when  # nothing is done twice but what was under way


def test_a_finished_run_is_only_written_again(
    corridor: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = run(make_config(), corridor, tmp_path)
    monkeypatch.delattr(Training, "update")
    assert run(make_config(), corridor, tmp_path) == straight


def test_ctrl_c_saves_a_checkpoint_within_an_update(corridor: Inputs, tmp_path: Path) -> None:
    straight = run(make_config(), corridor, tmp_path / "straight")
    context = make_context(tmp_path)
    context.stop.set()
    for step in (1, 2, 3):
        with pytest.raises(Interrupted):
            run(make_config(), corridor, tmp_path, stop=context.stop)
        note = load_tensors(context.checkpoints / "training.safetensors")[1]
        assert note["step"] == step
    assert run(make_config(), corridor, tmp_path) == straight


def test_learning_rates_decay_over_the_last_updates(
    corridor: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, rates = DQN.learn, []

    def noting(learner: DQN, batch: Any) -> dict[str, torch.Tensor]:
        critic = learner.optimisers["critic"]
        rates.append(critic.learning_rate * critic.decay)
        return learn(learner, batch)

    monkeypatch.setattr(DQN, "learn", noting)
    settings = {"updates": 10, "learner": {"learning_rate": 0.1}}
    run(make_config(learning_rate_decay=0.4, **settings), corridor, tmp_path / "a")
    assert rates == pytest.approx([0.1] * 7 + [0.075, 0.05, 0.025])
    rates.clear()
    run(make_config(learning_rate_decay=0.0, **settings), corridor, tmp_path / "b")
    assert rates == [0.1] * 10


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.3])
def test_the_weights_that_act_are_a_moving_average(
    rate: float, corridor: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, seen = DQN.learn, []

    def noting(learner: DQN, batch: Any) -> dict[str, torch.Tensor]:
        if not seen:
            seen.append({k: v.clone() for k, v in learner.weights().items()})
        metrics = learn(learner, batch)
        seen.append({k: v.clone() for k, v in learner.weights().items()})
        return metrics

    monkeypatch.setattr(DQN, "learn", noting)
    run(make_config(weight_averaging=rate), corridor, tmp_path)
    found, _ = load_tensors(tmp_path / "output" / FINAL)
    expected = seen[0]
    for step, newest in enumerate(seen[1:], start=1):
        share = max(rate, 1 / (step + 1)) if rate else 1.0
        expected = {k: (1 - share) * v + share * newest[k] for k, v in expected.items()}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalise", [True, False])
def test_belief_noise_is_for_agents_with_beliefs(
    normalise: bool, drift: Inputs, tmp_path: Path
) -> None:
    quiet, noisy = (
        make_config("td3bc", belief_noise=noise, normalise=normalise) for noise in (0.0, 0.5)
    )
    assert run(noisy, drift, tmp_path / "a")[FINAL] != run(quiet, drift, tmp_path / "b")[FINAL]
    blind = {"beliefs": False}
    same = [
        run(config.model_copy(update=blind), drift, tmp_path / f"blind-{index}")[FINAL]
        for index, config in enumerate((quiet, noisy))
    ]
    assert same[0] == same[1]
    assert "belief_noise" not in quiet.model_dump(mode="json")


def test_no_averaging_leaves_fingerprints_alone() -> None:
    assert "weight_averaging" not in make_config().model_dump(mode="json")
    assert make_config(weight_averaging=0.1).model_dump(mode="json")["weight_averaging"] == 0.1


# ---------------------------------------------------------------------- tasks that take turns


def quarter(inputs: Inputs, **changes: Any) -> OfflineConfig:
    """A table's memory is a fourth of what all tasks take in it."""
    config = make_config("td3bc", **{"rotation_updates": 3, **changes})
    room = StoredTasks(inputs["hyper-states"], config).room(24, "meta")
    nbytes = sum(tensor.nbytes for tensor in room.tensors)
    return config.model_copy(update={"memory_gb": nbytes / 4 / 2**30})


def test_turns_give_the_same_bytes_and_other_ones_than_all_at_once(
    many: Inputs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = quarter(many)
    first = run(config, many, tmp_path / "a")
    assert "of 24 tasks are in memory at a time" in caplog.text
    assert run(config, many, tmp_path / "b") == first
    assert run(config, many, tmp_path / "c", seed=4)[FINAL] != first[FINAL]
    whole = config.model_copy(update={"memory_gb": 1.0})
    assert run(whole, many, tmp_path / "d")[FINAL] != first[FINAL]


@pytest.mark.parametrize("when", [1, 3, 16, 29])
def test_a_training_killed_between_turns_goes_on_to_the_same_bytes(
    when: int, many: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = quarter(many)
    straight = run(config, many, tmp_path / "straight")
    update = Training.update

    class Killed(BaseException):
        """Stands for a SIGKILL."""

    def dying(training: Training) -> None:
        if training.step == when:
            raise Killed
        update(training)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "update", dying)
        with pytest.raises(Killed):
            run(config, many, tmp_path / "killed", checkpoint_seconds=0.0)
    assert run(config, many, tmp_path / "killed") == straight


def test_a_quarter_of_the_memory_learns_alike(many: Inputs, tmp_path: Path) -> None:
    learner = {"critic_layers": (32,), "actor_layers": (32,), "learning_rate": 3e-3}
    config = quarter(many, learner=learner, updates=400, log_every=100, rotation_updates=None)
    config = config.model_copy(update={"batch_size": 64})
    turns = rows(run(config, many, tmp_path / "turns"), "metrics.csv")
    whole = config.model_copy(update={"memory_gb": 1.0})
    once = rows(run(whole, many, tmp_path / "once"), "metrics.csv")
    assert turns[-1]["critic_loss"] < turns[0]["critic_loss"] / 4
    assert turns[-1]["critic_loss"] == pytest.approx(once[-1]["critic_loss"], rel=0.5)


def test_memory_for_too_few_tasks_is_refused(many: Inputs, tmp_path: Path) -> None:
    config = make_config("td3bc", memory_gb=1e-6)
    with pytest.raises(StageError, match=r"memory_gb is 1e-06, too little for 2 of the 24 tasks"):
        run(config, many, tmp_path)
    assert not list((tmp_path / "output").iterdir())


# ---------------------------------------------------------------------- divergence


def diverge(monkeypatch: pytest.MonkeyPatch, at: int) -> list[int]:
    """DQN's loss is NaN at update `at`; returns the list of updates made."""
    learn, calls = DQN.learn, []

    def diverging(learner: DQN, batch: Any) -> dict[str, torch.Tensor]:
        calls.append(len(calls) + 1)
        metrics = learn(learner, batch)
        return {**metrics, "loss": metrics["loss"] * (float("nan") if len(calls) == at else 1)}

    monkeypatch.setattr(DQN, "learn", diverging)
    return calls


def test_a_diverging_loss_stops_at_once_and_keeps_the_checkpoint(
    corridor: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = run(make_config(), corridor, tmp_path / "straight")
    with monkeypatch.context() as patch:
        calls = diverge(patch, 12)
        with pytest.raises(DivergenceError, match=r"loss became NaN .* by update 12; the checkpoint"
                           r" of update 11 is kept in .*training\.safetensors"):  # fmt: skip
            run(make_config(), corridor, tmp_path, checkpoint_seconds=0.0)
    assert calls[-1] == 12
    arrays, note = load_tensors(tmp_path / "checkpoints" / "training.safetensors")
    assert note["step"] == 11
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert run(make_config(), corridor, tmp_path) == straight


def test_without_a_checkpoint_it_says_so(
    corridor: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverge(monkeypatch, 2)
    with pytest.raises(DivergenceError, match="no checkpoint was saved before"):
        run(make_config(), corridor, tmp_path)


@pytest.mark.parametrize(("at", "settings"), [(9, {}), (9, {"checkpoint_seconds": 0.0})])
def test_weights_that_are_not_finite_are_neither_saved_nor_evaluated(
    at: int,
    settings: dict[str, float],
    corridor: Inputs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loss before a step can be finite, and the weights after it not."""
    update = Training.update

    def breaking(training: Training) -> None:
        update(training)
        if training.step > at:
            next(training.learner.parameters()).data[0] = float("inf")

    monkeypatch.setattr(Training, "update", breaking)
    with pytest.raises(DivergenceError, match="became NaN or infinite by update 10"):
        run(make_config(), corridor, tmp_path, **settings)


# ---------------------------------------------------------------------- logs and errors


def test_tensorboard_events_lie_outside_the_output(corridor: Inputs, tmp_path: Path) -> None:
    plain = run(make_config(), corridor, tmp_path / "plain")
    assert run(make_config(), corridor, tmp_path, logs=tmp_path / "logs") == plain
    assert list((tmp_path / "logs").iterdir())


def test_settings_that_do_not_fit_are_refused(corridor: Inputs, tmp_path: Path) -> None:
    with pytest.raises(AlgorithmError, match="rule is 'sac', but actions are discrete"):
        run(make_config("sac"), corridor, tmp_path)
    with pytest.raises(StageError, match=r"hold no R\+"):
        run(make_config(use_belief_rewards=True), corridor, tmp_path)
    (tmp_path / "vae").mkdir()
    save_untrained(tmp_path / "vae", TWO_GOALS, latent_dim=3)
    with pytest.raises(StageError, match="latent_dim 8, the model has 3; relabel with this model"):
        run(make_config(), corridor | {"vae": tmp_path / "vae"}, tmp_path)
    assert not list((tmp_path / "output").iterdir())
