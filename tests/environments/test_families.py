"""What holds for every task family: the contract, refusals, names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from environments.base import TaskFamily
from environments.checker import check_family
from environments.errors import TaskError
from environments.registry import DOMAINS, load_family

ANTS = ("ant_semicircle", "ant_semicircle_sparse", "ant_dir")
"""Seconds of simulation each; test_locomotion.py has them at a shorter horizon."""


@pytest.fixture(
    params=[pytest.param(n, marks=[pytest.mark.slow] * (n in ANTS)) for n in DOMAINS],
)
def family(request: pytest.FixtureRequest) -> TaskFamily:
    return load_family(request.param)


@pytest.mark.parametrize("seed", [0, 1])
def test_contract_holds(family: TaskFamily, seed: int) -> None:
    failed = [result for result in check_family(family, seed) if not result.ok]
    assert not failed


@pytest.mark.parametrize(
    ("name", "horizon", "episodes", "differ"),
    [
        ("gridworld", 15, 4, "reward"),
        ("point_robot", 60, 3, "reward"),
        ("point_robot_sparse", 60, 2, "reward"),
        ("escape_room", 60, 2, "dynamics"),
        ("point_robot_wind", 25, 2, "dynamics"),
    ],
)
def test_published_constants(name: str, horizon: int, episodes: int, differ: str) -> None:
    spec = load_family(name).spec
    assert (spec.name, spec.horizon, spec.episodes) == (name, horizon, episodes)
    assert spec.tasks_differ_in == differ
    assert (spec.observation_dim, spec.observation_names) == (2, ("x", "y"))


@pytest.mark.parametrize(
    ("name", "observation", "action", "bounds"),
    [
        ("cheetah_vel", 20, 6, (0.0, 3.0)),
        ("ant_semicircle", 29, 8, (0.0, np.pi)),
        ("ant_semicircle_sparse", 29, 8, (0.0, np.pi)),
        ("ant_dir", 27, 8, (0.0, 2 * np.pi)),
    ],
)
def test_published_constants_of_bodies(
    name: str, observation: int, action: int, bounds: tuple[float, float]
) -> None:
    family = load_family(name)
    spec = family.spec
    assert (spec.name, spec.horizon, spec.episodes, spec.tasks_differ_in) == (
        name, 200, 2, "reward",
    )  # fmt: skip
    assert (spec.observation_dim, spec.action_dim) == (observation, action)
    tasks = family.sample_tasks(2000, np.random.default_rng(0))
    np.testing.assert_allclose((tasks.min(), tasks.max()), bounds, atol=0.02)


def test_own_reward_is_bit_equal_and_another_task_changes_it(family: TaskFamily) -> None:
    rng = np.random.default_rng(3)
    tasks = family.sample_tasks(6, rng)
    simulator = family.simulator(tasks, "wide")
    before, changed = simulator.reset(rng), False
    for _ in range(family.spec.horizon):
        if family.has_oracle:
            actions = family.scripted_actions(before, tasks, rng, 0.3)
        else:
            actions = family.random_actions((6,), rng)
        step = simulator.step(actions)
        arguments = (before, actions, step.observations)
        sim = {**step.infos, "task": tasks}
        np.testing.assert_array_equal(family.reward(*arguments, tasks, sim), step.rewards)
        others = np.roll(tasks, 1, axis=0)
        changed |= bool((family.reward(*arguments, others, sim) != step.rewards).any())
        assert family.spec.name == "ant_dir" or not step.terminations.any()
        before = step.observations
    assert changed == (family.spec.tasks_differ_in == "reward")


def test_tasks_keep_full_precision_and_are_not_shared(family: TaskFamily) -> None:
    tasks = family.sample_tasks(3, np.random.default_rng(0))
    simulator = family.simulator(tasks)
    kept = tasks.copy()
    tasks += 100.0
    np.testing.assert_array_equal(simulator.tasks, kept)


def test_bad_tasks_are_named_by_their_index(family: TaskFamily) -> None:
    tasks = family.sample_tasks(4, np.random.default_rng(0))
    for value, match in ((np.nan, "task 2 .* not finite"), (17.0, "task 2 .*expected")):
        bad = tasks.copy()
        bad[2] = value
        with pytest.raises(TaskError, match=match):
            family.simulator(bad)
    with pytest.raises(TaskError, match=r"shape \(4,\)"):
        family.validate_tasks(tasks[:, 0])
    with pytest.raises(TaskError, match="no tasks"):
        family.simulator(tasks[:0])
    with pytest.raises(TaskError, match="0 tasks asked for"):
        family.sample_tasks(0, np.random.default_rng(0))


def test_misuse_of_a_simulator_is_refused(family: TaskFamily) -> None:
    tasks = family.sample_tasks(2, np.random.default_rng(0))
    with pytest.raises(TaskError, match="'origin' or 'wide'"):
        family.simulator(tasks, "middle")  # type: ignore[arg-type]
    simulator = family.simulator(tasks)
    legal = family.random_actions((2,), np.random.default_rng(0))
    with pytest.raises(TaskError, match="before the first reset"):
        simulator.step(legal)
    simulator.reset(np.random.default_rng(0))
    with pytest.raises(TaskError, match="shape"):
        simulator.step(legal[:1])
    bad = legal.copy()
    bad[1] = 7
    with pytest.raises(TaskError, match="environment 1 "):
        simulator.step(bad)


def test_noise_of_the_scripted_behaviour(family: TaskFamily) -> None:
    if not family.has_oracle:
        with pytest.raises(TaskError, match="has no oracle"):
            family.scripted_actions(np.zeros((1, 1), np.float32), np.zeros((1, 1)), None, 0.0)  # type: ignore[arg-type]
        assert family.oracle_returns(np.zeros((1, 1))) is None
        return
    rng = np.random.default_rng(0)
    tasks = np.repeat(family.sample_tasks(1, rng), 400, axis=0)
    observations = family.simulator(tasks, "wide").reset(rng)
    oracle = family.oracle_actions(observations, tasks)
    silent = family.scripted_actions(observations, tasks, rng, 0.0)
    np.testing.assert_array_equal(silent, oracle)
    noisy = family.scripted_actions(observations, tasks, rng, 0.5)
    assert 0.2 < (noisy != oracle).mean() < 1.0
    if family.spec.n_actions is None:
        assert np.abs(noisy).max() <= 1.0


def test_plots_show_every_episode(family: TaskFamily) -> None:
    from matplotlib.figure import Figure

    episodes, horizon = family.spec.episodes, family.spec.horizon
    task = family.sample_tasks(1, np.random.default_rng(0))[0]
    shape = (episodes, horizon + 1, family.spec.observation_dim)
    paths = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)
    axes = Figure().subplots(1, 2)  # no display, several panels
    family.plot_rollout(axes[0], paths, task)
    legend = axes[0].get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == [f"episode {k + 1}" for k in range(episodes)]
    axes[0].figure.canvas.draw()


def test_unknown_names_say_what_is_near() -> None:
    with pytest.raises(TaskError, match=r"'gridwolrd'; did you mean 'gridworld'"):
        load_family("gridwolrd")
    with pytest.raises(TaskError, match=r"known: gridworld, point_robot"):
        load_family("zzz")


@pytest.mark.parametrize(
    ("target", "match"),
    [
        ("no_such_module:Family", "ModuleNotFoundError"),
        ("environments.gridworld:Nothing", "AttributeError"),
        ("environments.gridworld:GOALS", "not a subclass"),
        ("environments.base:TaskFamily", "cannot construct"),
        (":", "cannot load"),
    ],
)
def test_targets_that_do_not_load(target: str, match: str) -> None:
    with pytest.raises(TaskError, match=match):
        load_family(target)


def test_own_family_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "from environments.gridworld import Gridworld\nclass Mine(Gridworld):\n    pass\n"
    (tmp_path / "my_own_family.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    assert all(result.ok for result in check_family(load_family("my_own_family:Mine")))


def test_a_module_that_fails_on_import_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_broken_family.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    with pytest.raises(TaskError, match="ZeroDivisionError"):
        load_family("my_broken_family:Mine")


def test_importing_families_is_cheap() -> None:
    modules = ", ".join(target.partition(":")[0] for target in DOMAINS.values())
    code = f"import {modules}, environments.registry, sys\nprint('matplotlib' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
