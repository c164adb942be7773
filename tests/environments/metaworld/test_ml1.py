"""ML1 families, quickly: a few families, short episodes. The slow tests look at all fifty."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from environments.base import TaskFamily
from environments.errors import TaskError
from environments.metaworld.facts import ALL, ELEVEN, FACTS
from environments.registry import canonical_domain, load_family
from tests.environments.metaworld.plain import plain_environment
from tests.environments.metaworld.rolling import roll

SHORT = 40


@pytest.fixture(scope="module")
def family() -> TaskFamily:
    return load_family("ml1/push-wall")


@pytest.fixture(scope="module")
def tasks(family: TaskFamily) -> np.ndarray:
    return family.sample_tasks(4, np.random.default_rng(0))


def test_names_are_fifty_and_spelled_in_three_ways() -> None:
    assert len(ALL) == 50
    assert len(ELEVEN) == 11
    assert set(ELEVEN) <= set(ALL)
    assert sum(facts.goal == "hidden" for facts in FACTS.values()) == 23
    assert sum(facts.solid_goal for facts in FACTS.values()) == 8
    for name in ("ml1/push-wall", "ml1/push-wall-v2", "ml1/push-wall-v3"):
        assert canonical_domain(name) == "ml1/push-wall"
        assert load_family(name) is load_family("ml1/push-wall")
    assert canonical_domain("gridworld") == "gridworld"
    assert canonical_domain("ml1/nothing-v3") == "ml1/nothing-v3"
    with pytest.raises(TaskError, match="did you mean 'ml1/push-wall'"):
        load_family("ml1/push-wal")


def test_a_family_and_its_tasks_need_no_metaworld() -> None:
    code = (
        "import sys; from environments.registry import load_family\n"
        "load_family('ml1/soccer').split('ml1', 3)\n"
        "print('metaworld' in sys.modules, 'mujoco' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]
    assert run.stderr == ""


def test_illegal_tasks_are_refused_before_a_reset_can_hang(family: TaskFamily) -> None:
    tasks = load_family("ml1/soccer").sample_tasks(2, np.random.default_rng(0))
    near, far = tasks.copy(), tasks.copy()
    near[1] = [0.0, 0.7, 0.03, 0.0, 0.8, 0.0]
    far[1, 0] = 0.5
    soccer = load_family("ml1/soccer")
    with pytest.raises(TaskError, match=r"task 1, .* nearer than 0.15 m"):
        soccer.simulator(near)
    with pytest.raises(TaskError, match=r"task 1 is .*expected values from"):
        soccer.validate_tasks(far)
    with pytest.raises(TaskError, match="0 tasks asked for"):
        family.sample_tasks(0, np.random.default_rng(0))


def test_splits(family: TaskFamily) -> None:
    train, test = family.split("idaq", 1337)
    assert (train.shape, test.shape) == ((40, 6), (10, 6))
    train, test = family.split("ml1", 0)
    assert (train.shape, test.shape) == ((50, 6), (50, 6))
    np.testing.assert_array_equal(test, family.split("ml1", 1)[0])
    family.validate_tasks(np.concatenate([train, test]))
    for name, seed, match in (("ml10", 0, "'ml1' or 'idaq'"), ("ml1", -1, "seed -1")):
        with pytest.raises(TaskError, match=match):
            family.split(name, seed)


@pytest.mark.parametrize("name", ["ml1/push-wall", "ml1/stick-push"])
def test_steps_are_those_of_metaworld(name: str) -> None:
    family = load_family(name)
    tasks = np.repeat(family.sample_tasks(2, np.random.default_rng(0)), 2, axis=0)
    simulator = family.simulator(tasks)
    rng = np.random.default_rng(1)
    observations = simulator.reset(rng)
    plain = [plain_environment(name[4:], task) for task in tasks]
    np.testing.assert_array_equal(observations, np.float32([first for _, first in plain]))
    for _ in range(SHORT):
        actions = family.scripted_actions(observations, tasks, rng, np.array([0, 0.3, 0.1, 1]))
        step = simulator.step(actions)
        told = [env.step(action) for (env, _), action in zip(plain, actions, strict=True)]
        np.testing.assert_array_equal(step.observations, np.float32([row[0] for row in told]))
        np.testing.assert_array_equal(step.rewards, np.float32([row[1] for row in told]))
        np.testing.assert_array_equal(step.successes, [bool(row[4]["success"]) for row in told])
        observations = step.observations


def test_own_rewards_come_back_exactly_and_another_goal_changes_them() -> None:
    family = load_family("ml1/reach-wall")
    tasks = family.sample_tasks(4, np.random.default_rng(0))
    data = roll(family, tasks, SHORT, "wide")
    np.testing.assert_array_equal(family.reward(*data.told()), data.rewards)
    np.testing.assert_array_equal(family.success(*data.told()), data.successes)
    other = family.reward(*data.told(np.roll(tasks, 1, axis=0)))
    assert np.abs(other - data.rewards).max() > 1e-4
    np.testing.assert_array_equal(family.reward(*data.told()), data.rewards)  # nothing is left
    with pytest.raises(TaskError, match="simulator's states"):
        family.reward(*data.told()[:4])


def test_relabelling_amid_an_episode_leaves_it_alone(family: TaskFamily, tasks: np.ndarray) -> None:
    data = roll(family, tasks, SHORT)
    simulator = family.simulator(tasks)
    simulator.reset(np.random.default_rng(0))
    for time in range(SHORT):
        step = simulator.step(data.actions[:, time])
        np.testing.assert_array_equal(step.observations, data.observations[:, time + 1])
        if time % 10 == 0:
            family.reward(*data.told(np.roll(tasks, 1, axis=0)))


def test_window_close_shows_the_window_where_it_is() -> None:
    family = load_family("ml1/window-close")
    simulator = family.simulator(family.sample_tasks(2, np.random.default_rng(0)))
    first = simulator.reset(np.random.default_rng(0))
    after = simulator.step(np.zeros((2, 4), np.float32)).observations
    assert np.abs(first[:, 4:7] - after[:, 4:7]).max() < 1e-3


def test_an_episode_ends_at_its_horizon_and_misuse_is_refused(
    family: TaskFamily, tasks: np.ndarray
) -> None:
    simulator = family.simulator(tasks[:1])
    still = np.zeros((1, 4), np.float32)
    with pytest.raises(TaskError, match="before the first reset"):
        simulator.step(still)
    simulator.reset(np.random.default_rng(0))
    for bad, match in (
        (still + 1.5, "environment 0 "),
        (still * np.nan, "environment 0 "),
        (still[0], "shape"),
    ):
        with pytest.raises(TaskError, match=match):
            simulator.step(bad)
    for _ in range(family.spec.horizon):
        simulator.step(still)
    with pytest.raises(TaskError, match="step 501"):
        simulator.step(still)
    with pytest.raises(TaskError, match="'origin' or 'wide'"):
        family.simulator(tasks, "middle")  # type: ignore[arg-type]


def test_a_rollout_is_drawn(family: TaskFamily, tasks: np.ndarray) -> None:
    from matplotlib.figure import Figure

    data = roll(family, tasks, SHORT)
    axes = Figure().subplots()
    family.plot_rollout(axes, data.observations[:2], tasks[0])
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["episode 1", "episode 2"]
    axes.figure.canvas.draw()


def test_other_families_share_all_their_physics(family: TaskFamily, tasks: np.ndarray) -> None:
    sim = {"qpos": np.zeros((4, 7, 16))}
    np.testing.assert_array_equal(family.shared_prefix(tasks, tasks[::-1], sim), [7] * 4)


def test_where_rewards_come_from(family: TaskFamily) -> None:
    assert family.provenance["environment"] == "push-wall-v3"
    assert family.provenance["reward"] == "v2"
