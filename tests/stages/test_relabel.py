"""relabel: hyper-states equal to filtering online, bounded blocks, resume, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scripted_trials import write_scripted

import stages.relabel
from algorithms.errors import AlgorithmError
from algorithms.filtering import OnlineFilter, encode_outcomes
from algorithms.vae_files import describe, load_vae, save_vae
from datasets.files import digest_tree, read_json
from datasets.hyper_states import HyperStates
from datasets.trial_store import read_meta, read_trials
from datasets.trials import Trials
from environments.registry import load_family
from models.config import VaeModelConfig
from stages.config import RelabelConfig
from stages.context import Interrupted, StageContext
from stages.errors import StageError
from stages.relabel import relabel

MODEL = VaeModelConfig.model_validate(
    {
        "encoder": {"gru_size": 16, "action_embedding": 0},
        "reward_decoder": {"likelihood": "bernoulli-per-cell"},
    }
)
BLIND_MODEL = VaeModelConfig.model_validate(
    {"reward_decoder": {"enabled": False}, "state_decoder": {"enabled": True}}
)
TASKS, TRIALS = 3, 6


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Scripted gridworld trials and an untrained model."""
    folder = tmp_path_factory.mktemp("inputs")
    write_scripted(folder / "trials", "gridworld", TASKS, TRIALS)
    save_model(folder / "vae", "gridworld", MODEL)
    return {"trials": folder / "trials", "vae": folder / "vae"}


def save_model(folder: Path, domain: str, model: VaeModelConfig) -> None:
    """An untrained model of a domain."""
    spec = load_family(domain).spec
    description = describe(model, domain, spec, spec.episodes, spec.horizon)
    folder.mkdir()
    save_vae(folder, description.build(torch.Generator().manual_seed(1)), description)


def run(config: RelabelConfig, inputs: dict[str, Path], folder: Path, **settings: object) -> str:
    """Relabel into a new output; its digest."""
    output = folder / "output"
    output.mkdir(parents=True)
    context = StageContext(folder / "checkpoints", threads=1, quiet=True)
    relabel(config, 5, inputs, output, replace(context, **settings))
    return digest_tree(output)


def test_beliefs_are_those_of_the_online_filter(inputs: dict[str, Path], tmp_path: Path) -> None:
    run(RelabelConfig(block_trials=4), inputs, tmp_path)
    store = HyperStates.open(tmp_path / "output" / "hyper_states.zarr")
    online = OnlineFilter(load_vae(inputs["vae"]))
    for task in range(TASKS):
        trials = read_trials(inputs["trials"], task)
        stored = store.read(store.names, task)
        for name in ("observations", "actions", "rewards", "terminations"):
            np.testing.assert_array_equal(stored[name], getattr(trials, name))
        belief = online.reset(TRIALS)
        np.testing.assert_allclose(stored["beliefs"][:, 0], belief, atol=1e-6)
        for t in range(trials.steps):
            k, h = divmod(t, trials.horizon)
            belief = online.update(
                trials.actions[:, k, h],
                trials.rewards[:, k, h],
                trials.observations[:, k, h + 1],
                trials.observations[:, k, h],
            )
            np.testing.assert_allclose(stored["beliefs"][:, t + 1], belief, atol=1e-5)


def test_meta_carries_the_collections_facts(inputs: dict[str, Path], tmp_path: Path) -> None:
    run(RelabelConfig(belief_rewards=True), inputs, tmp_path)
    meta, collection = read_json(tmp_path / "output" / "meta.json"), read_meta(inputs["trials"])
    assert meta["family"] == "gridworld"
    assert meta["tasks_test"] == collection.tasks_test.tolist()
    assert meta["hyper_states"] == {
        "trials": TRIALS,
        "skipped_trials": 0,
        "latent_dim": 5,
        "belief_rewards": True,
    }
    store = HyperStates.open(tmp_path / "output" / "hyper_states.zarr")
    expected = store.read(["belief_rewards"], 0)["belief_rewards"]
    assert expected.shape == (TRIALS, collection.episodes, collection.horizon)
    assert (np.abs(expected) <= 1).all()


def test_trials_can_be_skipped_and_limited(inputs: dict[str, Path], tmp_path: Path) -> None:
    run(RelabelConfig(skip_trials=2, trials=3), inputs, tmp_path)
    store = HyperStates.open(tmp_path / "output" / "hyper_states.zarr")
    kept = store.read(["rewards"], 1)["rewards"]
    np.testing.assert_array_equal(kept, read_trials(inputs["trials"], 1).rewards[2:5])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"skip_trials": 6}, "relabel.skip_trials is 6, but task 0 has only 6"),
        ({"trials": 7}, "relabel.trials is 7, but task 0 has 6 trials"),
        ({"trials": 5, "skip_trials": 2}, "has 4 trials after the first 2"),
    ],
)
def test_too_few_trials_are_refused(
    settings: dict[str, int], message: str, inputs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(StageError, match=message):
        run(RelabelConfig(**settings), inputs, tmp_path)


class Killed(BaseException):
    """Stands for a SIGKILL."""


@pytest.mark.parametrize("belief_rewards", [False, True])
def test_a_killed_run_goes_on_to_the_same_bytes(
    belief_rewards: bool, inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RelabelConfig(belief_rewards=belief_rewards)
    straight = run(config, inputs, tmp_path / "straight")
    encode, calls = stages.relabel.encode_trials, []

    def dying(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return encode(*arguments)

    monkeypatch.setattr(stages.relabel, "encode_trials", dying)
    with pytest.raises(Killed):
        run(config, inputs, tmp_path / "killed")
    (tmp_path / "killed" / "output").rename(tmp_path / "left")  # a new output, as the store gives
    assert run(config, inputs, tmp_path / "killed") == straight
    assert len(calls) == 4  # only the task that was left is encoded again


def test_a_damaged_checkpoint_is_not_used(inputs: dict[str, Path], tmp_path: Path) -> None:
    straight = run(RelabelConfig(), inputs, tmp_path / "straight")
    (tmp_path / "other" / "checkpoints").mkdir(parents=True)
    good = tmp_path / "straight" / "checkpoints" / "task-0001.safetensors"
    torn = tmp_path / "other" / "checkpoints" / "task-0001.safetensors"
    torn.write_bytes(good.read_bytes()[:-40])
    assert run(RelabelConfig(), inputs, tmp_path / "other") == straight


def test_ctrl_c_keeps_finished_tasks(inputs: dict[str, Path], tmp_path: Path) -> None:
    context = StageContext(tmp_path / "checkpoints", threads=1, quiet=True)
    context.stop.set()
    (tmp_path / "output").mkdir()
    with pytest.raises(Interrupted):
        relabel(RelabelConfig(), 5, inputs, tmp_path / "output", context)
    assert [path.name for path in context.checkpoints.iterdir()] == ["task-0000.safetensors"]


def test_a_model_of_another_family_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    save_model(tmp_path / "vae", "point_robot_wind", BLIND_MODEL)
    with pytest.raises(StageError, match="trained for family 'point_robot_wind', but"):
        run(RelabelConfig(), {**inputs, "vae": tmp_path / "vae"}, tmp_path)


def test_belief_rewards_need_a_reward_decoder(tmp_path: Path) -> None:
    write_scripted(tmp_path / "trials", "point_robot_wind", 2, 2)
    save_model(tmp_path / "vae", "point_robot_wind", BLIND_MODEL)
    folders = {"trials": tmp_path / "trials", "vae": tmp_path / "vae"}
    with pytest.raises(AlgorithmError, match=r"reward_decoder\.enabled was false"):
        run(RelabelConfig(belief_rewards=True), folders, tmp_path)


def test_unequal_tasks_are_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    from datasets.trial_store import write_trials

    meta = write_scripted(tmp_path / "trials", "gridworld", TASKS, TRIALS)
    short = read_trials(tmp_path / "trials", 1).select(slice(4))
    write_trials(tmp_path / "trials", meta, 1, short)
    folders = {**inputs, "trials": tmp_path / "trials"}
    with pytest.raises(StageError, match="task 1 has 4 trials and task 0 has 6"):
        run(RelabelConfig(), folders, tmp_path)
    run(RelabelConfig(trials=4), folders, tmp_path / "equal")


NAMES = ("observations", "actions", "rewards", "beliefs")
COPIES = {"relabelled_copies": 2, "relabelling": {"donors": "any-task", "whole_trials": 1.0}}


def test_copies_follow_the_trials_or_stand_alone(inputs: dict[str, Path], tmp_path: Path) -> None:
    both = RelabelConfig.model_validate(COPIES)
    alone = RelabelConfig.model_validate(COPIES | {"original_trials": False})
    for name, config in (("both", both), ("alone", alone)):
        run(config, inputs, tmp_path / name)
    everything = HyperStates.open(tmp_path / "both" / "output" / "hyper_states.zarr")
    copies = HyperStates.open(tmp_path / "alone" / "output" / "hyper_states.zarr")
    family, meta = load_family("gridworld"), read_meta(inputs["trials"])
    assert everything.layout.trials == 3 * TRIALS
    assert copies.layout.trials == 2 * TRIALS
    for task in range(TASKS):
        first, second = everything.read(NAMES, task), copies.read(NAMES, task)
        for name, array in second.items():
            np.testing.assert_array_equal(array, first[name][TRIALS:])
        own = read_trials(inputs["trials"], task, meta)
        np.testing.assert_array_equal(first["observations"][:TRIALS], own.observations)
        expected = family.reward(
            second["observations"][:, :, :-1],
            second["actions"],
            second["observations"][:, :, 1:],
            meta.tasks_train[task],
        )
        np.testing.assert_array_equal(second["rewards"], expected)


def test_nothing_to_keep_is_refused() -> None:
    with pytest.raises(ValidationError, match="nothing is left"):
        RelabelConfig(original_trials=False)


def test_pieces_and_both_outcomes_are_stored(inputs: dict[str, Path], tmp_path: Path) -> None:
    config = RelabelConfig.model_validate(
        {
            "relabelled_copies": 2,
            "relabelling": {
                "donors": "any-task",
                "whole_trials": 1.0,
                "piece_steps": 5,
                "task_averaging": True,
            },
        }
    )
    run(config, inputs, tmp_path)
    store = HyperStates.open(tmp_path / "output" / "hyper_states.zarr")
    assert (store.layout.episodes, store.layout.horizon, store.layout.pieces) == (12, 5, 3)
    meta = read_meta(inputs["trials"])
    family, vae = load_family("gridworld"), load_vae(inputs["vae"])
    for task in range(TASKS):
        fields = store.read(store.names, task)
        trials = read_trials(inputs["trials"], task).cut(5)
        np.testing.assert_array_equal(fields["rewards"][:TRIALS], trials.rewards)
        kept = Trials(*(fields[n] for n in ("observations", "actions", "rewards")),
                      fields["terminations"], fields["terminations"])  # fmt: skip
        own = np.full(kept.count, task)
        expected = encode_outcomes(vae, kept, own, family, meta.tasks_train, 256)
        for name, array in expected._asdict().items():
            np.testing.assert_allclose(fields[name], array, atol=1e-6)
        assert (fields["other_chances"] > 0).any()


def test_outcomes_of_other_dynamics_are_refused(tmp_path: Path) -> None:
    write_scripted(tmp_path / "trials", "escape_room", 2, 2)
    save_model(tmp_path / "vae", "escape_room", BLIND_MODEL)
    folders = {"trials": tmp_path / "trials", "vae": tmp_path / "vae"}
    with pytest.raises(StageError, match="tasks of escape_room differ in dynamics"):
        run(
            RelabelConfig.model_validate({"relabelling": {"task_averaging": True}}),
            folders,
            tmp_path,
        )


@pytest.mark.parametrize("held", [TRIALS, 2])
def test_copies_are_led_by_donors_of_all_tasks(
    held: int, inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where not all trials may be held in memory: then some of every task's."""
    tasks = 12
    write_scripted(tmp_path / "trials", "gridworld", tasks, TRIALS)
    if held < TRIALS:
        monkeypatch.setattr(stages.relabel, "DONOR_STEPS", 1)
        monkeypatch.setattr(stages.relabel, "_COPIED_AT_ONCE", held)
    settings = {"donors": "any-task", "whole_trials": 1.0}
    config = RelabelConfig.model_validate(
        {"relabelled_copies": 4, "original_trials": False, "relabelling": settings}
    )
    run(config, inputs | {"trials": tmp_path / "trials"}, tmp_path)
    store = HyperStates.open(tmp_path / "output" / "hyper_states.zarr")
    copies = store.read(["observations"], 0)["observations"]
    sources: dict[int, set[int]] = {}  # of each donor task, which trials led
    for task in range(tasks):
        logged = read_trials(tmp_path / "trials", task).observations
        same = (copies[:, None] == logged[None]).all((3, 4))  # (copies, trials, episodes)
        sources[task] = set(np.flatnonzero(same.any((0, 2))).tolist())
    assert all(sources.values())
    assert max(len(led) for led in sources.values()) >= min(held, 3)
    if held < TRIALS:
        assert sum(len(led) for led in sources.values()) < tasks * TRIALS / 2
