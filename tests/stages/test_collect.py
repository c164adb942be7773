"""collect: what is written, the same bytes however it is run, resuming, and what is refused."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import BROKEN, CORRIDOR, DRIFT

import stages.collect_groups
from algorithms.errors import AlgorithmError, DivergenceError
from algorithms.learners.dqn import DQN
from datasets.errors import DataError
from datasets.files import digest_tree
from datasets.trial_store import read_meta, read_trials
from environments.errors import TaskError
from environments.registry import load_family, policy_source
from stages.collect import collect, draw_tasks
from stages.collect_groups import Group, GroupJob, split_groups
from stages.config import CollectConfig, TasksConfig
from stages.context import Interrupted, StageContext
from stages.errors import StageError

SMALL = {"critic_layers": (8,), "actor_layers": (8,)}
BASE: dict[str, Any] = {
    "tasks": {"train": 3, "test": 1},
    "random_trials": 2,
    "iterations": 3,
    "trials_per_iteration": 2,
    "updates_per_iteration": 4,
    "batch_size": 8,
    "group_size": 2,
}
DQN_RUN = BASE | {"domain": CORRIDOR, "learner": SMALL | {"rule": "dqn"}, "epsilon_decay": 2}
SAC_RUN = BASE | {
    "domain": DRIFT,
    "learner": SMALL | {"rule": "sac"},
    "policy_replaying": 0.7,
    "group_size": 3,
}
SCRIPTED_RUN = BASE | {"domain": DRIFT, "behaviour": "scripted", "start": "origin"}
RANDOM_RUN = BASE | {"domain": CORRIDOR, "behaviour": "random", "random_trials": 0}
RUNS = [DQN_RUN, SAC_RUN, SCRIPTED_RUN, RANDOM_RUN]


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def make_config(settings: dict[str, Any], **changes: Any) -> CollectConfig:
    """A checked configuration."""
    return CollectConfig.model_validate(settings | changes)


def make_context(folder: Path, **settings: Any) -> StageContext:
    """A quiet context of one worker."""
    return replace(StageContext(folder / "checkpoints", workers=1, quiet=True), **settings)


def run(config: CollectConfig, folder: Path, seed: int = 3, **settings: Any) -> str:
    """Collect below `folder`; the output's digest."""
    output = folder / "output"
    output.mkdir(parents=True, exist_ok=True)
    collect(config, seed, {}, output, make_context(folder, **settings))
    return digest_tree(output)


# ---------------------------------------------------------------------- what is written


@pytest.mark.parametrize("settings", RUNS)
def test_every_tasks_log_is_written(settings: dict[str, Any], tmp_path: Path) -> None:
    config = make_config(settings)
    run(config, tmp_path)
    folder, family = tmp_path / "output", load_family(config.domain)
    meta, split = read_meta(folder), draw_tasks(family, config)
    np.testing.assert_array_equal(meta.tasks_train, split.train)
    np.testing.assert_array_equal(meta.tasks_test, split.test)
    assert (meta.family, meta.start) == (config.domain, config.start)
    assert (meta.episodes, meta.horizon) == (2, family.spec.horizon)
    rule = settings["learner"]["rule"] if "learner" in settings else settings["behaviour"]
    assert meta.behaviour == rule
    names = {"tasks.json", "metrics.csv", *(f"task-{i:04d}.h5" for i in range(3))}
    assert {path.name for path in folder.iterdir()} == names
    for index, task in enumerate(split.train):
        trials = read_trials(folder, index)
        assert trials.count == settings["random_trials"] + 6
        again = family.reward(
            trials.observations[:, :, :-1], trials.actions, trials.next_observations, task
        )
        np.testing.assert_array_equal(again, trials.rewards)
        starts = trials.observations[:, :, 0]
        assert (len(np.unique(starts)) == 1) == (config.start == "origin")


def test_the_curve_summarises_the_trials_of_each_round(tmp_path: Path) -> None:
    run(make_config(DQN_RUN), tmp_path)
    rows = list(csv.reader((tmp_path / "output" / "metrics.csv").read_text().splitlines()))
    assert rows[0] == ["step", "return_mean", "return_p10", "return_median", "return_p90"]
    sums = np.stack(
        [read_trials(tmp_path / "output", task).rewards.sum((1, 2)) for task in range(3)]
    )
    rounds = [sums[:, :2], sums[:, 2:4], sums[:, 4:6], sums[:, 6:8]]
    assert [int(row[0]) for row in rows[1:]] == [2, 4, 6, 8]
    for row, trials in zip(rows[1:], rounds, strict=True):
        means = trials.mean(1)
        expected = [means.mean(), *np.quantile(means, [0.1, 0.5, 0.9])]
        assert [float(x) for x in row[1:]] == pytest.approx(expected, rel=1e-5)


def test_episodes_can_be_set(tmp_path: Path) -> None:
    run(make_config(RANDOM_RUN, episodes=3), tmp_path)
    assert read_meta(tmp_path / "output").episodes == 3
    assert read_trials(tmp_path / "output", 0).rewards.shape == (6, 3, 4)


def test_a_script_needs_an_oracle(tmp_path: Path) -> None:
    config = CollectConfig(**BASE | {"domain": "cheetah_vel", "behaviour": "scripted"})
    with pytest.raises(StageError, match="cheetah_vel has no scripted policy; choose learner"):
        collect(config, 0, {}, tmp_path, StageContext(tmp_path / "checkpoints"))


@pytest.mark.parametrize("domain", [CORRIDOR, DRIFT])
def test_agents_learn_from_the_learning_reward_and_the_log_keeps_its_own(
    domain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = type(load_family(domain))

    def dense(self: Any, s: Any, a: Any, after: Any, tasks: Any, sim: Any = None) -> Any:
        assert s.shape[:-1] == a.shape[:-1] == after.shape[:-1]
        return self.reward(s, a, after, tasks) - np.float32(3.0)

    monkeypatch.setattr(family, "learning_reward", dense)
    run = DQN_RUN if domain == CORRIDOR else SAC_RUN
    job = split_groups(CollectConfig(**run), 5, load_family(domain).sample_tasks(3, _rng()))[0]
    group = Group(job)
    group.advance()
    drawn, again = group.draws.get_state(), group.log.sample(8, group.draws)
    group.draws.set_state(drawn)
    batch = group._batch()
    torch.testing.assert_close(batch.rewards, again.rewards - 3.0)
    assert torch.equal(batch.next_states, again.next_states)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_shared_experience_is_of_all_tasks_under_ones_own_reward(share: float) -> None:
    family = load_family("point_robot")
    config = CollectConfig(
        **SAC_RUN | {"domain": "point_robot", "shared_experience": share, "batch_size": 64}
    )
    tasks = family.sample_tasks(3, _rng())
    group = Group(split_groups(config, 5, tasks)[0])
    group.advance()
    batch = group._batch()
    told = (batch.states.numpy(), batch.actions.numpy(), batch.next_states.numpy())
    np.testing.assert_array_equal(batch.rewards, family.reward(*told, tasks[:, None]))
    log = group.log.observations
    width = log.shape[-1]
    for task in range(3):
        own = log[task].reshape(-1, width)
        mine = (batch.states[task][:, None] == own).all(-1).any(-1)
        assert mine[round(64 * share) :].all()
        theirs = mine[: round(64 * share)].float().mean()
        assert 0.05 < theirs < 0.7  # a third


def test_shared_experience_needs_rewards_that_transitions_tell() -> None:
    shared = CollectConfig(domain="point_robot", shared_experience=0.5)
    assert shared.sharing_misfit(load_family("point_robot").spec) is None
    assert "differ in dynamics" in str(shared.sharing_misfit(load_family("escape_room").spec))
    assert "need simulator states" in str(shared.sharing_misfit(load_family("ant_dir").spec))
    assert "shared_experience" not in CollectConfig(domain="point_robot").model_dump()


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_scripts_without_noise_are_the_oracles(tmp_path: Path) -> None:
    run(make_config(SCRIPTED_RUN, scripted_noise=0.0), tmp_path)
    family, meta = load_family(DRIFT), read_meta(tmp_path / "output")
    for index, task in enumerate(meta.tasks_train):
        trials = read_trials(tmp_path / "output", index).select(slice(2, None))
        expected = family.oracle_actions(trials.observations[:, :, :-1], task)
        np.testing.assert_array_equal(trials.actions, expected)


def test_agents_learn_their_tasks(tmp_path: Path) -> None:
    """The last rounds of greedy agents come near what the oracle has from the same starts."""
    config = make_config(
        DQN_RUN,
        iterations=12,
        updates_per_iteration=60,
        epsilon_decay=8,
        batch_size=64,
        random_trials=20,
        group_size=3,
        start="origin",
        learner={"rule": "dqn", "critic_layers": (32,), "learning_rate": 5e-3, "discount": 0.8},
    )
    run(config, tmp_path)
    family, meta = load_family(CORRIDOR), read_meta(tmp_path / "output")
    oracle = family.oracle_returns(meta.tasks_train)
    for index in range(3):
        last = read_trials(tmp_path / "output", index).rewards[-4:].sum(-1).mean(0)
        np.testing.assert_allclose(last, oracle[index], atol=0.51)


# ---------------------------------------------------------------------- the same bytes


@pytest.mark.parametrize("settings", RUNS)
def test_a_seed_gives_the_same_bytes_and_another_does_not(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    config = make_config(settings)
    first = run(config, tmp_path / "a")
    assert run(config, tmp_path / "b") == first
    assert run(config, tmp_path / "c", seed=4) != first
    metas = [read_meta(tmp_path / name / "output") for name in "ac"]
    np.testing.assert_array_equal(metas[0].tasks_train, metas[1].tasks_train)


def test_two_workers_give_the_bytes_of_one(tmp_path: Path) -> None:
    torch.set_num_threads(2)  # a worker has one thread, and so must the stage without workers
    config = make_config(SAC_RUN, group_size=2, tasks={"train": 4, "test": 1}, policy_replaying=1.0)
    assert run(config, tmp_path / "two", workers=2) == run(config, tmp_path / "one")
    assert torch.get_num_threads() == 2


def test_per_task_data_are_alike_in_law_in_groups_and_alone(tmp_path: Path) -> None:
    """Visits and rewards of random behaviour, per task, in one group of three or one by one."""
    settings = BASE | {"domain": CORRIDOR, "behaviour": "random", "iterations": 0}
    for size in (1, 3):
        run(make_config(settings, random_trials=400, group_size=size), tmp_path / str(size))
    for task in range(3):
        alone, together = (read_trials(tmp_path / f"{n}" / "output", task) for n in (1, 3))
        assert not np.array_equal(alone.observations, together.observations)
        assert abs(alone.rewards.mean() - together.rewards.mean()) < 0.05
        visits = [
            np.bincount((one.observations.ravel() + 2).astype(int), minlength=5) / one.rewards.size
            for one in (alone, together)
        ]
        np.testing.assert_allclose(*visits, atol=0.06)


@pytest.mark.parametrize("settings", RUNS)
@pytest.mark.parametrize("when", [1, 3, 5])
def test_a_killed_run_goes_on_to_the_same_bytes(
    when: int, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(settings)
    straight = run(config, tmp_path / "straight")
    advance, calls = Group.advance, []

    class Killed(BaseException):
        """Stands for a SIGKILL."""

    def dying(group: Group) -> None:
        calls.append(group.round)
        if len(calls) == when:
            raise Killed
        advance(group)

    monkeypatch.setattr(Group, "advance", dying)
    try:
        run(config, tmp_path / "killed", checkpoint_seconds=0.0)
    except Killed:
        assert run(config, tmp_path / "killed") == straight
        assert calls[when - 1] == calls[when]  # at most one round is lost
    else:
        assert len(calls) < when  # fewer rounds in all


@pytest.mark.parametrize("settings", [DQN_RUN, SCRIPTED_RUN])
def test_ctrl_c_saves_a_whole_round(settings: dict[str, Any], tmp_path: Path) -> None:
    config = make_config(settings)
    context = make_context(tmp_path)
    context.stop.set()
    (tmp_path / "output").mkdir()
    for _ in range(6):
        with pytest.raises(Interrupted):
            collect(config, 3, {}, tmp_path / "output", context)
        assert not list((tmp_path / "output").iterdir())
    straight = run(config, tmp_path / "straight")
    assert run(config, tmp_path) == straight


def test_a_damaged_checkpoint_falls_back_on_the_one_before(tmp_path: Path) -> None:
    config = make_config(DQN_RUN, group_size=3)
    straight = run(config, tmp_path / "straight")
    run(config, tmp_path, checkpoint_seconds=0.0)
    newest = tmp_path / "checkpoints" / "group-000.safetensors"
    newest.write_bytes(newest.read_bytes()[:-20])
    assert run(config, tmp_path) == straight


# ---------------------------------------------------------------------- divergence and NaN


def test_a_diverging_loss_stops_at_once_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, calls = DQN.update, []

    def diverging(learner: DQN, batch: Any) -> dict[str, torch.Tensor]:
        metrics = update(learner, batch)
        calls.append(len(metrics["loss"]))
        if calls.count(1) == 6:  # the second group holds one task, and its second round has begun
            metrics["loss"][0] = float("nan")
        return metrics

    monkeypatch.setattr(DQN, "update", diverging)
    message = r"the loss of task 2's agent became NaN .* round 2; the checkpoint of round 2 is kept"
    with pytest.raises(DivergenceError, match=message):
        run(make_config(DQN_RUN), tmp_path, checkpoint_seconds=0.0)
    assert calls.count(1) == 6
    monkeypatch.setattr(DQN, "update", update)
    straight = run(make_config(DQN_RUN), tmp_path / "straight")
    assert run(make_config(DQN_RUN), tmp_path) == straight


def test_weights_that_are_not_finite_are_never_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = Group.advance

    def breaking(group: Group) -> None:
        advance(group)
        assert group.learner is not None
        next(group.learner.parameters()).data.fill_(float("inf"))

    monkeypatch.setattr(Group, "advance", breaking)
    message = "of the agents of tasks 0 to 1 became NaN .* no checkpoint was saved before"
    with pytest.raises(DivergenceError, match=message):
        run(make_config(DQN_RUN), tmp_path, checkpoint_seconds=0.0)
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_a_reward_that_is_not_a_number_is_refused_with_its_place(tmp_path: Path) -> None:
    config = make_config(SCRIPTED_RUN, domain=BROKEN, random_trials=0, scripted_noise=0.0)
    with pytest.raises(DataError, match=r"task 0, trial 0, step 1: reward is NaN or infinite"):
        run(config, tmp_path)
    assert not list((tmp_path / "output").iterdir())


# ---------------------------------------------------------------------- rounds


def make_group(settings: dict[str, Any], **changes: Any) -> Group:
    """The first group of a configuration."""
    config = make_config(settings, **changes)
    tasks = draw_tasks(load_family(config.domain), config).train
    return Group(split_groups(config, 0, tasks)[0])


def test_epsilon_falls_from_one_to_its_end() -> None:
    group = make_group(DQN_RUN, epsilon_decay=4, epsilon_end=0.2)
    shares = []
    for group.round in range(1, 8):
        shares.append(group._epsilon())
    assert shares == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2])
    assert make_group(SAC_RUN)._epsilon() == 0.0


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.5, 1000), (1.0, 2000)])
def test_policies_are_replayed_in_a_share_of_the_rounds(share: float, expected: int) -> None:
    group = make_group(SAC_RUN, policy_replaying=share)
    assert group._donors(random_round=True) == [None]
    drawn = [group._donors(random_round=False) for _ in range(2000)]
    replayed = [parts for parts in drawn if parts[0] is not None]
    assert len(replayed) == pytest.approx(expected, abs=100)
    for parts in replayed:
        leading = max(1, len(parts) // 2)
        assert all(one is not None and (one != torch.arange(3)).all() for one in parts[:leading])
        assert parts[leading:] == [None] * (len(parts) - leading)


def test_agents_take_turns_in_replayed_trials() -> None:
    group = make_group(SAC_RUN, policy_replaying=1.0, replaying_steps=1)
    spec = group.family.spec
    parts = [part for _ in range(200) for part in group._donors(random_round=False)]
    episodes = group.job.config.episodes or spec.episodes
    assert len(parts) == 200 * episodes * spec.horizon
    others = [one for one in parts if one is not None]
    assert len(others) / len(parts) == pytest.approx(0.5, abs=0.1)
    assert all((one != torch.arange(3)).all() for one in others)
    assert len({tuple(one.tolist()) for one in others}) == 2  # every cycle of three tasks


def test_a_null_turn_leaves_fingerprints_alone() -> None:
    assert "replaying_steps" not in make_config(SAC_RUN).model_dump(mode="json")
    turns = make_config(SAC_RUN, policy_replaying=0.5, replaying_steps=1)
    assert turns.model_dump(mode="json")["replaying_steps"] == 1


def test_jobs_count_their_rounds_and_trials() -> None:
    config = make_config(DQN_RUN)
    jobs = split_groups(config, 7, np.arange(3.0)[:, None])
    assert [job.tasks[:, 0].tolist() for job in jobs] == [[0, 1], [2]]
    assert [(job.index, job.first_task, job.rounds, job.trials) for job in jobs] == [
        (0, 0, 4, 8),
        (1, 2, 4, 8),
    ]
    job = GroupJob(make_config(RANDOM_RUN), 7, 0, np.zeros((1, 1)))
    assert (job.rounds, job.trials) == (3, 6)


def test_an_unfinished_group_is_never_written(tmp_path: Path) -> None:
    """Whatever happens to checkpoints meanwhile, a short log does not become an artefact."""
    config = make_config(DQN_RUN)
    family = load_family(CORRIDOR)
    job = split_groups(config, 3, draw_tasks(family, config).train)[0]
    with pytest.raises(StageError, match=r"checkpoint of group 0 .* removed or damaged"):
        stages.collect_groups.finished_group(job, family, tmp_path)
    group = Group(job)
    group.advance()
    group.save(job.checkpoint(tmp_path))
    with pytest.raises(StageError, match="run again to go on"):
        stages.collect_groups.finished_group(job, family, tmp_path)


# ---------------------------------------------------------------------- tasks and errors


@pytest.mark.parametrize("seed", range(5))
def test_a_finite_family_is_split_without_overlap(seed: int) -> None:
    family = load_family("gridworld")
    tasks = {"train": 16, "test": 5, "seed": seed}
    split = draw_tasks(family, make_config(BASE, domain="gridworld", tasks=tasks))
    everything = np.concatenate([split.train, split.test])
    assert len(np.unique(everything, axis=0)) == 21
    seen = draw_tasks(
        family, make_config(BASE, domain="gridworld", tasks=tasks | {"test_tasks_seen": True})
    )
    np.testing.assert_array_equal(seen.train, split.train)
    np.testing.assert_array_equal(seen.test, split.train[:5])


def test_a_continuum_is_drawn_apart_by_the_tasks_own_seed() -> None:
    family = load_family("point_robot_wind")
    splits = [
        draw_tasks(
            family, make_config(BASE, domain="x", tasks={"train": 9, "test": 4, "seed": seed})
        )
        for seed in (1, 1, 2)
    ]
    assert (splits[0].train.shape, splits[0].test.shape) == ((9, 2), (4, 2))
    assert len(np.unique(np.concatenate([splits[0].train, splits[0].test]), axis=0)) == 13
    np.testing.assert_array_equal(splits[0].train, splits[1].train)
    assert not np.array_equal(splits[0].train, splits[2].train)


@pytest.mark.parametrize(
    ("settings", "changes", "error", "message"),
    [
        (
            DQN_RUN,
            {"tasks": {"train": 4, "test": 1}},
            StageError,
            "asks for 5 tasks, but corridor has 4",
        ),
        (
            DQN_RUN,
            {"tasks": {"train": 2, "test": 3, "test_tasks_seen": True}},
            StageError,
            "asks for 3 test tasks, .* of which there are 2",
        ),
        (
            SAC_RUN,
            {"tasks": {"train": 2, "test": 3, "test_tasks_seen": True}},
            StageError,
            "infinitely many tasks",
        ),
        (RANDOM_RUN, {"iterations": 0}, StageError, "nothing to collect"),
        (SAC_RUN, {"group_size": 2}, StageError, "task 2 is alone in its group"),
        (SAC_RUN, {"domain": CORRIDOR}, AlgorithmError, "rule is 'sac', but actions are discrete"),
        (SAC_RUN, {"learner": SMALL | {"rule": "rebrac"}}, AlgorithmError, "no next_actions"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    settings: dict[str, Any],
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=message):
        run(make_config(settings, **changes), tmp_path)
    assert not list((tmp_path / "output").iterdir())


def test_a_policy_of_ones_own_acts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is part of what the data were made from, and wrong shapes are refused."""
    (tmp_path / "own_policy.py").write_text(
        "import numpy as np\n"
        "def still(observations, tasks, rng):\n"
        "    assert len(observations) == len(tasks)\n"
        "    return np.zeros((len(observations), 1))\n"
        "def wrong(observations, tasks, rng):\n"
        "    return np.zeros((len(observations), 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    settings = BASE | {"domain": DRIFT, "behaviour": "policy", "random_trials": 0}
    run(make_config(settings, policy="own_policy:still"), tmp_path / "still")
    meta = read_meta(tmp_path / "still" / "output")
    for task in range(len(meta.tasks_train)):
        assert not read_trials(tmp_path / "still" / "output", task, meta).actions.any()
    with pytest.raises(AlgorithmError, match=r"collect.policy gave actions of shape \(\d+, 3\)"):
        run(make_config(settings, policy="own_policy:wrong"), tmp_path / "wrong")
    with pytest.raises(TaskError, match="cannot load the policy 'own_policy:gone'"):
        run(make_config(settings, policy="own_policy:gone"), tmp_path / "gone")
    with pytest.raises(TaskError, match=r"name yours as collect.policy"):
        run(make_config(settings), tmp_path / "none")
    assert len(policy_source("own_policy:still")) == 64


def test_several_levels_of_noise_are_drawn_for_every_episode(tmp_path: Path) -> None:
    settings = SCRIPTED_RUN | {"scripted_noise": (0.0, 1.0), "random_trials": 0}
    run(make_config(settings), tmp_path / "mixed")
    folder = tmp_path / "mixed" / "output"
    meta, family = read_meta(folder), load_family(DRIFT)
    clean = []
    for task, vector in enumerate(meta.tasks_train):
        log = read_trials(folder, task, meta)
        told = family.oracle_actions(log.observations[:, :, :-1], vector)
        clean.append(np.isclose(log.actions, told, atol=1e-6).all((2, 3)))  # (trials, K)
    shares = np.concatenate([part.reshape(-1) for part in clean])
    assert 0 < shares.mean() < 1


def test_a_split_that_a_family_does_not_have_is_refused(tmp_path: Path) -> None:
    settings = SCRIPTED_RUN | {"tasks": {"train": 2, "test": 1, "split": "ml1"}}
    with pytest.raises(TaskError, match="drift has no split 'ml1'"):
        run(make_config(settings), tmp_path / "split")


def test_a_named_split_gives_its_first_tasks() -> None:
    tasks = {"train": 3, "test": 2, "split": "idaq", "seed": 1337}
    family = load_family("ml1/push")
    split = draw_tasks(family, CollectConfig(domain="ml1/push", tasks=TasksConfig(**tasks)))
    train, test = family.split("idaq", 1337)
    assert np.array_equal(split.train, train[:3])
    assert np.array_equal(split.test, test[:2])
    with pytest.raises(StageError, match=r"collect.tasks.test is 11, but split 'idaq' .* has 10"):
        draw_tasks(
            family, CollectConfig(domain="ml1/push", tasks=TasksConfig(**tasks | {"test": 11}))
        )
