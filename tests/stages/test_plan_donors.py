"""plan-donors: rewards by hand, the same for any workers, checks of the logs, and who uses it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_families import STATED, Stated

import stages.plan_donors
from algorithms.config import RelabellingConfig
from algorithms.donor_plans import DonorPlan, load_plan
from algorithms.errors import AlgorithmError
from datasets.files import digest_tree, read_json
from datasets.hyper_states import HyperStates
from datasets.trial_store import read_meta, read_trials, write_meta, write_trials
from datasets.trials import Trials
from stages.collect import collect
from stages.config import CollectConfig, DonorsConfig, RelabelConfig, VaeConfig
from stages.context import Interrupted, StageContext
from stages.errors import StageError
from stages.plan_donors import DonorJob, plan_donors
from stages.recomputed_rewards import TOLERANCE
from stages.relabel import relabel
from stages.train_vae import train_vae

TASKS, TRIALS, DONORS = 4, 6, 8


def make_context(folder: Path, **settings: Any) -> StageContext:
    """A quiet context of one thread."""
    return replace(
        StageContext(folder / "checkpoints", threads=1, workers=1, quiet=True), **settings
    )


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scripted logs of two levels of noise."""
    folder = tmp_path_factory.mktemp("trials")
    config = CollectConfig.model_validate(
        {
            "domain": STATED,
            "behaviour": "scripted",
            "scripted_noise": (0.0, 1.0),
            "tasks": {"train": TASKS, "test": 2},
            "random_trials": 2,
            "iterations": TRIALS - 2,
            "trials_per_iteration": 1,
        }
    )
    output = folder / "trials"
    output.mkdir()
    collect(config, 1, {}, output, make_context(folder))
    return output


def plan_of(folder: Path, trials: Path, seed: int = 3, **settings: Any) -> DonorPlan:
    output = folder / "plan"
    output.mkdir(parents=True)
    config = DonorsConfig.model_validate({"episodes": DONORS} | settings)
    plan_donors(config, seed, {"trials": trials}, output, make_context(folder))
    return load_plan(output)


def test_states_are_logged(trials: Path) -> None:
    meta = read_meta(trials)
    for task in range(TASKS):
        log = read_trials(trials, task, meta)
        goal = meta.tasks_train[task, 1]
        place = log.infos["place"]
        assert place.dtype == np.float64
        assert np.array_equal(log.rewards, (-np.abs(place[..., 0] - goal)).astype(np.float32))


def test_rewards_are_those_of_the_donors_states_under_the_other_goal(
    trials: Path, tmp_path: Path
) -> None:
    plan, meta = plan_of(tmp_path, trials), read_meta(trials)
    logs = [read_trials(trials, task, meta) for task in range(TASKS)]
    for target in range(TASKS):
        for p in range(DONORS):
            donor, trial, episode = (x[target, p] for x in (plan.task, plan.trial, plan.episode))
            assert donor != target
            place = logs[donor].infos["place"][trial, episode, :, 0]
            expected = (-np.abs(place - meta.tasks_train[target, 1])).astype(np.float32)
            assert np.array_equal(plan.rewards[target, p], expected)
            beyond = np.abs(place) > 0.5
            assert plan.shared[target, p] == (beyond.argmax() if beyond.any() else 3)
    assert plan.usable.all()
    assert read_json(tmp_path / "plan" / "plan.json")["largest_own_gap"] == 0.0


def test_donors_that_touch_the_goal_can_be_left_out(
    trials: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = plan_of(tmp_path, trials, after_contact="drop")
    kept = plan_of(tmp_path / "kept", trials)
    assert (plan.dropping, kept.dropping) == (True, False)
    assert (plan.limit < plan.horizon).any()
    assert (plan.limit == plan.shared).all()
    assert (kept.limit == kept.horizon).all()
    assert "the goal is a solid body" in caplog.text


def test_donors_that_all_touch_at_once_are_refused_where_they_should_be_dropped(
    trials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Stated, "shared_prefix", lambda self, own, targets, sim: np.zeros(len(targets), np.int64)
    )
    with pytest.raises(StageError, match="leaves nothing; set it to keep"):
        plan_of(tmp_path, trials, after_contact="drop")


def test_fewer_donors_than_tasks_leave_some_without_a_part(trials: Path, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, trials, episodes=1)
    assert len(np.unique(plan.task)) < TASKS or plan.rewards.shape == (TASKS, 1, 3)
    assert np.isfinite(plan.rewards).all()


def test_workers_change_no_byte_and_a_stopped_plan_goes_on(
    trials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_of(tmp_path / "one", trials)
    expected = digest_tree(tmp_path / "one" / "plan")
    output = tmp_path / "two" / "plan"
    output.mkdir(parents=True)
    context = make_context(tmp_path / "two")
    config, relabelled = DonorsConfig(episodes=DONORS), stages.plan_donors._relabelled

    def stopped_meanwhile(job: DonorJob) -> dict[str, NDArray[Any]]:
        context.stop.set()
        return relabelled(job)

    monkeypatch.setattr(stages.plan_donors, "_relabelled", stopped_meanwhile)
    with pytest.raises(Interrupted):
        plan_donors(config, 3, {"trials": trials}, output, context)
    assert len(list(context.checkpoints.glob("donor-*"))) == 1
    context.stop.clear()
    before = Stated.asked
    two = replace(context, workers=2)
    plan_donors(config, 3, {"trials": trials}, output, two)
    assert Stated.asked == before  # what was left was done in other processes
    assert digest_tree(output) == expected


def test_a_lost_checkpoint_is_told(
    trials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages.plan_donors, "run_jobs", lambda *_: iter([TASKS]))
    with pytest.raises(StageError, match=r"donor-0000.* was removed or damaged meanwhile"):
        plan_of(tmp_path, trials)


def test_logs_of_another_simulator_are_refused(trials: Path, tmp_path: Path) -> None:
    meta = read_meta(trials)
    folder = tmp_path / "altered"
    folder.mkdir()
    (folder / "tasks.json").write_bytes((trials / "tasks.json").read_bytes())
    for task in range(TASKS):
        log = read_trials(trials, task, meta)
        changed = log.rewards + np.float32(0.01 * (task == 2))
        write_trials(folder, meta, task, replace(log, rewards=changed))
    with pytest.raises(StageError, match=r"rewards of task 2 recomputed .* by up to 0\.01"):
        plan_of(tmp_path, folder)


def altered(
    folder: Path, trials: Path, details: dict[str, Any], change: Any = lambda task, log: log
) -> Path:
    """The same trials with other details and changed logs."""
    meta = replace(read_meta(trials), details=details)
    folder.mkdir()
    write_meta(folder, meta)
    for task in range(TASKS):
        write_trials(folder, meta, task, change(task, read_trials(trials, task, meta)))
    return folder


def test_states_that_imports_take_as_rounded_are_taken_here_too(
    trials: Path, tmp_path: Path
) -> None:
    """Logs with states of single precision, on places far from the origin."""

    def rounded(task: int, log: Trials) -> Trials:
        place = log.infos["place"].astype(np.float32).astype(np.float64) + 5e-6
        return replace(log, infos={"place": place})

    plan_of(tmp_path, altered(tmp_path / "trials", trials, {}, rounded))
    assert 1e-6 < read_json(tmp_path / "plan" / "plan.json")["largest_own_gap"] < TOLERANCE


def test_a_gap_that_an_import_took_is_taken_and_not_recited(trials: Path, tmp_path: Path) -> None:
    def changed(task: int, log: Trials) -> Trials:
        return replace(log, rewards=log.rewards + np.float32(0.01))

    def details(gap: float) -> dict[str, Any]:
        return {"import": {"format": "d4rl", "logs": [{"gap": gap}] * TASKS}}

    plan_of(tmp_path, altered(tmp_path / "taken", trials, details(0.011), changed))
    folder = altered(tmp_path / "other", trials, details(0.0), changed)
    with pytest.raises(StageError, match=r"of another simulator \(data: unknown, now: ") as caught:
        plan_of(tmp_path / "refused", folder)
    assert "d4rl" not in str(caught.value)


def test_trials_without_states_are_refused(trials: Path, tmp_path: Path) -> None:
    folder = altered(tmp_path / "bare", trials, {}, lambda task, log: replace(log, infos={}))
    with pytest.raises(StageError, match="trials of task 0 have no infos/place"):
        plan_of(tmp_path, folder)


def test_a_family_that_hides_nothing_is_refused(
    trials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stated, "spec", replace(Stated.spec, goal="visible"))
    with pytest.raises(AlgorithmError, match="there is nothing to relabel in stated"):
        plan_of(tmp_path, trials)


def test_the_belief_and_the_copies_are_made_with_planned_rewards_alone(
    trials: Path, tmp_path: Path
) -> None:
    plan, meta = plan_of(tmp_path, trials), read_meta(trials)
    inputs = {"trials": trials, "donors": tmp_path / "plan"}
    before = Stated.asked
    vae = tmp_path / "vae"
    vae.mkdir()
    config = VaeConfig.model_validate(
        {
            "updates": 3,
            "tasks_per_batch": 2,
            "trials_per_task": 2,
            "validation_share": 0.4,
            "relabelling": {"decoded_steps": 5},
        }
    )
    train_vae(config, 1, inputs, vae, make_context(tmp_path / "v"))

    output = tmp_path / "hyper"
    output.mkdir()
    relabel(
        RelabelConfig(relabelled_copies=1, original_trials=False),
        1,
        inputs | {"vae": vae},
        output,
        make_context(tmp_path / "r"),
    )
    assert Stated.asked == before  # no simulator was needed any more
    store = HyperStates.open(output / "hyper_states.zarr")
    rewards = store.read(["rewards"], 1)["rewards"]
    own = read_trials(trials, 1, meta).rewards
    assert np.array_equal(rewards[:, 1], own[:, 1])
    planned = {tuple(row) for row in plan.rewards[1]}
    assert all(tuple(row) in planned for row in rewards[:, 0])


def test_decoding_under_every_task_is_refused(trials: Path) -> None:
    from algorithms.relabelling import check_relabelling
    from environments.registry import load_family

    with pytest.raises(AlgorithmError, match="known for planned donors only"):
        check_relabelling(load_family(STATED), 3, RelabellingConfig(task_averaging=True))
