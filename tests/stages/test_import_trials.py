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

from datasets.errors import DataError
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
    with pytest.raises(StageError, match=r"a: point_robot_sparse gives other rewards .* in \d"):
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
    with pytest.raises(DataError, match="has no infos/qpos, which point_robot_sparse needs"):
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


def test_two_logs_of_one_task_are_named() -> None:
    family = load_family("gridworld")
    with pytest.raises(StageError, match="a and c are of one task"):
        check_tasks(family, np.array([[4.0, 4], [2, 0], [4, 4]]), ["a", "b", "c"])
    with pytest.raises(TaskError, match="expected one of the 21"):
        check_tasks(family, np.array([[0.0, 0]]), ["a"])
