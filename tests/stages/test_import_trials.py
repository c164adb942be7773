"""Logs against their family: whose rewards, whose ends, which starts, and what is written."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from log_files import logged
from numpy.typing import NDArray

from datasets.d4rl import write_d4rl
from datasets.early_ends import lived_steps
from datasets.errors import DataError
from datasets.logs.d4rl import d4rl_tasks
from datasets.logs.source import LoggedTask
from datasets.trial_store import read_meta, read_trials
from datasets.trials import Trials
from environments.base import Sim
from environments.errors import TaskError
from environments.point_robot_sparse import PointRobotSparse
from environments.registry import load_family
from stages.errors import StageError
from stages.import_trials import ImportPlan, check_tasks, import_trials, read_logs

DOMAIN = "point_robot_sparse"
ANGLES = (0.5, 2.0)


def log_of(trials: Trials, name: str = "a", **changes: Any) -> LoggedTask:
    values = {"numbers": None, "told_by": "metadata", "read": lambda shape: trials, **changes}
    return LoggedTask(name, (Path(f"{name}.hdf5"),), **values)


def plan_of(logs: list[LoggedTask], angles: Any = ANGLES, **changes: Any) -> ImportPlan:
    values = {"told_by": "metadata", "episodes": 2, "behaviour": "mine", **changes}
    return ImportPlan(
        domain=DOMAIN,
        format="d4rl",
        tasks=tuple(logs),
        tasks_train=np.array(angles, np.float64)[:, None],
        tasks_test=np.array([[1.0]]),
        **values,
    )


@pytest.fixture(scope="module")
def pair() -> list[Trials]:
    return [logged(DOMAIN, [angle], trials=3 - i, seed=i) for i, angle in enumerate(ANGLES)]


def test_the_folder_is_one_that_collect_could_have_made(tmp_path: Path, pair: list[Trials]) -> None:
    plan = plan_of([log_of(pair[0]), log_of(pair[1], "b")])
    import_trials(plan, load_family(DOMAIN), tmp_path)
    meta = read_meta(tmp_path)
    assert (meta.family, meta.start, meta.behaviour, meta.episodes) == (DOMAIN, "wide", "mine", 2)
    for index, wanted in enumerate(pair):
        found = read_trials(tmp_path, index)
        for name, array in wanted.arrays.items():
            np.testing.assert_array_equal(found.arrays[name], array, name)
    logs = meta.details["import"]["logs"]
    assert [(each["name"], each["trials"], each["differing"]) for each in logs] == [
        ("a", 3, 0.0), ("b", 2, 0.0)
    ]  # fmt: skip
    assert logs[0]["episode_return"] == pytest.approx(pair[0].rewards.sum(axis=2).mean())
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    both = (pair[0].rewards.sum(axis=(1, 2))[1] + pair[1].rewards.sum(axis=(1, 2))[1]) / 2
    assert len(rows) == 2
    assert float(rows[1]["return_mean"]) == pytest.approx(both, rel=1e-5)


def test_starts_at_the_origin_are_noticed(tmp_path: Path) -> None:
    trials = logged(DOMAIN, [0.5], start="origin")
    import_trials(plan_of([log_of(trials)], (0.5,)), load_family(DOMAIN), tmp_path)
    assert read_meta(tmp_path).start == "origin"
    assert read_trials(tmp_path, 0).count == trials.count


def test_rewards_of_another_task_are_refused_unless_asked_for(pair: list[Trials]) -> None:
    swapped = plan_of([log_of(pair[0]), log_of(pair[1], "b")], ANGLES[::-1])
    with pytest.raises(StageError, match=r"a \(a\.hdf5\): .* gives other rewards .* in \d"):
        list(read_logs(swapped, load_family(DOMAIN)))
    found = list(read_logs(replace(swapped, allow_other_rewards=True), load_family(DOMAIN)))
    assert all(facts.differing > 0.1 and facts.gap == 1 for _, facts in found)


def test_rounded_tasks_may_miss_a_few_rewards_at_the_goals_edge() -> None:
    trials = logged(DOMAIN, [0.5004], trials=40)
    plan = plan_of([log_of(trials)], (0.5,), told_by="name")
    ((_, facts),) = read_logs(plan, load_family(DOMAIN))
    assert facts.differing <= 0.02
    far = plan_of([log_of(trials)], (0.8,), told_by="name")
    with pytest.raises(StageError, match="read from names, which are rounded"):
        list(read_logs(far, load_family(DOMAIN)))
    if facts.differing:
        with pytest.raises(StageError, match="other rewards"):
            list(read_logs(plan_of([log_of(trials)], (0.5,)), load_family(DOMAIN)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"rewards": t.rewards * np.nan}, "trial 0, step 0: reward is NaN"),
        (lambda t: {"actions": t.actions * 3}, r"action is .* outside \[-1, 1\]"),
        (lambda t: {"actions": t.actions[..., :1]}, "actions of 1 numbers, but .* has 2"),
        (lambda t: {"observations": t.observations[..., :1]}, "observations of 1 numbers"),
        (
            lambda t: {
                **{n: a[:, :, :59] for n, a in t.arrays.items()},
                "observations": t.observations[:, :, :60],
            },
            "horizon of 59 steps an episode, but point_robot_sparse has 60",
        ),
    ],
)
def test_what_does_not_fit_the_family(pair: list[Trials], change: Any, message: str) -> None:
    bad = Trials.from_arrays(pair[0].arrays | change(pair[0]))
    with pytest.raises(DataError, match=rf"a \(a\.hdf5\).*{message}"):
        list(read_logs(plan_of([log_of(bad)], (0.5,)), load_family(DOMAIN)))


class Ending(PointRobotSparse):
    """Ends in its goal, and its reward needs the simulator's state."""

    spec = replace(PointRobotSparse.spec, infos={"qpos": 2})

    def termination(self, *arguments: Any) -> NDArray[np.bool_]:
        return self.success(*arguments)

    def reward(self, *arguments: Any) -> Any:
        sim: Sim = arguments[4]
        assert sim["task"].shape[:-1] == sim["qpos"].shape[:-1] == arguments[1].shape[:-1]
        return super().reward(*arguments)


def test_simulator_states_are_demanded_and_ends_recomputed(pair: list[Trials]) -> None:
    plan = plan_of([log_of(pair[0], knows_ends=False)], (0.5,))
    message = "has no infos/qpos, which point_robot_sparse needs .* --without-states takes"
    with pytest.raises(DataError, match=message):
        list(read_logs(plan, Ending()))
    states = {"infos/qpos": pair[0].next_observations, "infos/other": pair[0].rewards}
    with_states = Trials.from_arrays(pair[0].arrays | states)
    plan = plan_of([log_of(with_states, knows_ends=False)], (0.5,))
    ((trials, _),) = read_logs(plan, Ending())
    np.testing.assert_array_equal(trials.terminations, pair[0].rewards > 0)
    assert set(trials.infos) == {"qpos"}
    wide = Trials.from_arrays(pair[0].arrays | {"infos/qpos": pair[0].observations[:, :, 1:, :1]})
    with pytest.raises(DataError, match="infos/qpos of width 1, but point_robot_sparse has 2"):
        list(read_logs(plan_of([log_of(wide)], (0.5,)), Ending()))


def test_logs_without_states_are_taken_where_asked_for(pair: list[Trials], tmp_path: Path) -> None:
    """Nothing is checked or recomputed then; beside one that has states, which is as ever."""
    ended = pair[0].terminations.copy()
    ended[:, :, -1] = True
    bare = Trials.from_arrays(pair[0].arrays | {"terminations": ended})
    states = {"infos/qpos": pair[1].next_observations, "terminations": pair[1].rewards > 0}
    stated = Trials.from_arrays(pair[1].arrays | states)
    plan = plan_of([log_of(bare), log_of(stated, "b")], without_states=True)
    import_trials(plan, Ending(), tmp_path)
    for index, wanted in enumerate((bare, stated)):
        found = read_trials(tmp_path, index)
        assert found.infos.keys() == wanted.infos.keys()
        np.testing.assert_array_equal(found.terminations, wanted.terminations)
    logs = read_meta(tmp_path).details["import"]["logs"]
    assert [(each["differing"], each["gap"]) for each in logs] == [(None, None), (0.0, 0.0)]
    swapped = plan_of([log_of(bare), log_of(stated, "b")], ANGLES[::-1], without_states=True)
    with pytest.raises(StageError, match=r"b \(b\.hdf5\), task \[0\.5\], trial"):
        list(read_logs(swapped, Ending()))
    with pytest.raises(DataError, match=r"a \(a\.hdf5\) has no infos/qpos"):
        list(read_logs(replace(plan, without_states=False), Ending()))


class Stated(PointRobotSparse):
    """Needs states, and never ends."""

    spec = replace(PointRobotSparse.spec, infos={"qpos": 2})


def test_ends_are_checked_without_states_where_none_are_needed_for_it(pair: list[Trials]) -> None:
    ((trials, _),) = read_logs(
        plan_of([log_of(pair[0], knows_ends=False)], (0.5,), without_states=True), Stated()
    )
    assert not trials.terminations.any()
    ended = Trials.from_arrays(pair[0].arrays | {"terminations": pair[0].rewards > 0})
    with pytest.raises(StageError, match="does not end there"):
        list(read_logs(plan_of([log_of(ended)], (0.5,), without_states=True), Stated()))


@pytest.mark.parametrize("allowed", [False, True])
def test_ends_that_are_not_the_familys_are_refused(pair: list[Trials], allowed: bool) -> None:
    """Time limits marked as terminals would cut values off."""
    limits = Trials.from_arrays(pair[0].arrays | {"terminations": pair[0].truncations})
    plan = plan_of([log_of(limits)], (0.5,), allow_other_rewards=allowed)
    message = (
        r"a \(a\.hdf5\), task \[0\.5\], trial 0, step 59: a terminal, but point_robot_sparse does "
        "not end there, at 6 steps in all; time limits belong into timeouts"
    )
    with pytest.raises(StageError, match=message):
        list(read_logs(plan, load_family(DOMAIN)))
    states = {"infos/qpos": pair[0].next_observations}
    endless = Trials.from_arrays(pair[0].arrays | states)
    with pytest.raises(StageError, match="ends there, but the log has no terminal"):
        list(read_logs(replace(plan, tasks=(log_of(endless),)), Ending()))


def ant_trials() -> Trials:
    """Random actions fell ants; what comes after is recorded as the simulator gives it."""
    return logged("ant_dir", [1.0], seed=1, scripted=False)


def test_fallen_ants_are_cut_off_and_filled_up_to_the_same_trials(tmp_path: Path) -> None:
    trials = ant_trials()
    assert trials.terminations[:, :, -2].any()
    path = tmp_path / "a.hdf5"
    write_d4rl(path, trials, {"task": np.array([1.0])})
    plan = replace(plan_of(list(d4rl_tasks(path)), (1.0,)), domain="ant_dir")
    ((found, facts),) = read_logs(plan, load_family("ant_dir"))
    assert (facts.gap, facts.differing) == (0.0, 0.0)
    lived = lived_steps(trials, "ants")
    for name, array in trials.arrays.items():
        if name == "actions":  # of whoever lies on the ground
            assert not found.actions[~lived].any()
            np.testing.assert_array_equal(found.actions[lived], array[lived])
        else:
            np.testing.assert_array_equal(found.arrays[name], array, name)


def test_an_early_end_that_is_not_the_familys_is_refused(tmp_path: Path) -> None:
    trials = ant_trials()
    trials.terminations[:] = False
    trials.terminations[0, 0, 3:] = True
    trials.observations[0, 0, 4:] = trials.observations[0, 0, 4]
    path = tmp_path / "a.hdf5"
    write_d4rl(path, trials)
    plan = replace(plan_of(list(d4rl_tasks(path)), (1.0,)), domain="ant_dir")
    with pytest.raises(StageError, match="step 3: a terminal, but ant_dir does not end there"):
        list(read_logs(plan, load_family("ant_dir")))


def test_what_follows_an_end_may_need_states_that_are_missing(pair: list[Trials]) -> None:
    filled = np.zeros(pair[0].rewards.shape, bool)
    filled[0, 0, 40:] = True
    bare = Trials.from_arrays(pair[0].arrays | {"infos/filled": filled})
    plan = plan_of([log_of(bare)], (0.5,), without_states=True)
    message = "step 40: the episode has ended before, and what .* gives from then on needs infos/qp"
    with pytest.raises(DataError, match=message):
        list(read_logs(plan, Ending()))


class Resurrecting(PointRobotSparse):
    """Ends as it enters the goal, and goes on inside."""

    def termination(self, *arguments: Any) -> NDArray[np.bool_]:
        before, actions, _, task = arguments[:4]
        return self.success(*arguments[:4]) & ~self.success(before, actions, before, task)


def test_a_family_that_goes_on_after_an_end_has_no_early_ends(tmp_path: Path) -> None:
    trials, family = logged(DOMAIN, [0.5], trials=20), Resurrecting()
    told = trials.observations[:, :, :-1], trials.actions, trials.next_observations
    trial, episode, step = np.argwhere(family.termination(*told, np.array([0.5])))[0]
    filled = np.zeros((1, 2, 60), bool)
    filled[0, 0, step + 1 :] = True
    arrays = {name: array[[[trial, trial]], [[episode, episode]]].copy()
              for name, array in trials.arrays.items()}  # fmt: skip
    arrays["terminations"][0, :, step] = True
    arrays["terminations"][0, 1] = family.termination(*told, np.array([0.5]))[trial, episode]
    arrays["observations"][0, 0, step + 1 :] = arrays["observations"][0, 0, step + 1]
    log = log_of(Trials.from_arrays(arrays | {"infos/filled": filled}))
    with pytest.raises(DataError, match="goes on after such an end"):
        list(read_logs(plan_of([log], (0.5,)), family))


class Versioned(PointRobotSparse):
    """Says which reward it has."""

    @property
    def provenance(self) -> dict[str, str]:
        return {"reward": "v9"}


def test_trials_say_what_they_were_checked_with(pair: list[Trials], tmp_path: Path) -> None:
    import_trials(plan_of([log_of(pair[0])], (0.5,)), Versioned(), tmp_path)
    details = read_meta(tmp_path).details
    assert details["reward"] == "v9"
    assert details["import"]["format"] == "d4rl"


def test_two_logs_of_one_task_are_named() -> None:
    family = load_family("gridworld")
    with pytest.raises(StageError, match="a and c are of one task"):
        check_tasks(family, np.array([[4.0, 4], [2, 0], [4, 4]]), ["a", "b", "c"])
    with pytest.raises(TaskError, match="expected one of the 21"):
        check_tasks(family, np.array([[0.0, 0]]), ["a"])
