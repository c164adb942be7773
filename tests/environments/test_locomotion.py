"""The walking bodies step as Gymnasium's do, alike on any threads, and pay what was published."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

from environments.base import Float64, TaskFamily
from environments.checker import check_family
from environments.errors import TaskError
from environments.locomotion import physics
from environments.locomotion.ant_dir import AntDir
from environments.locomotion.ant_semicircle import AntSemicircle
from environments.locomotion.ant_semicircle_sparse import (
    AntSemicircleSparse,
    AntSemicircleSparseOnRing,
)
from environments.locomotion.cheetah_vel import CheetahVel
from environments.locomotion.family import LocomotionFamily


def ant_env() -> AntEnv:
    return AntEnv(include_cfrc_ext_in_observation=False, terminate_when_unhealthy=False)


@pytest.mark.parametrize("base", [AntSemicircle, AntSemicircleSparseOnRing, AntDir])
def test_contract_holds_at_a_short_horizon(base: type[LocomotionFamily]) -> None:
    class Short(base):  # type: ignore[misc, valid-type]
        spec = replace(base.spec, horizon=40)

    failed = [result for result in check_family(Short(), 0) if not result.ok]
    assert not failed


@pytest.mark.parametrize("family", [CheetahVel(), AntDir()])
def test_steps_as_gymnasium_does(family: LocomotionFamily) -> None:
    """From any state one step is equal to 1e-10; free running, 20 steps are to 1e-6."""
    env = HalfCheetahEnv() if isinstance(family, CheetahVel) else ant_env()
    engine, rng = family.physics, np.random.default_rng(0)
    state = engine.rest(1)
    np.testing.assert_array_equal(engine.positions(state)[0], env.init_qpos)
    assert engine.seconds == pytest.approx(env.dt)
    family.wide_starts(state, rng)
    env.reset(seed=0)
    env.set_state(engine.positions(state)[0], engine.velocities(state)[0])
    for step in range(60):
        action = rng.uniform(-1, 1, (1, family.spec.action_dim)).astype(np.float32)
        before = np.concatenate([[0.0], env.data.qpos, env.data.qvel])[None]
        env.step(action[0])
        expected = np.concatenate([env.data.qpos, env.data.qvel])
        np.testing.assert_allclose(engine.step(before, action)[0, 1:], expected, atol=1e-10)
        state = engine.step(state, action)
        if step < 20:
            np.testing.assert_allclose(state[0, 1:], expected, atol=1e-6)


@pytest.mark.parametrize("family", [CheetahVel(), AntSemicircle()])
def test_threads_do_not_matter(family: LocomotionFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(most: int) -> Float64:
        monkeypatch.setattr(physics, "threads", most)
        engine, rng = family.physics, np.random.default_rng(1)
        states = engine.rest(64)
        family.wide_starts(states, rng)
        for _ in range(8):
            actions = rng.uniform(-1, 1, (64, family.spec.action_dim)).astype(np.float32)
            states = engine.step(states, actions)
        return states

    one = run(1)
    np.testing.assert_array_equal(run(3), one)
    np.testing.assert_array_equal(run(1), one)  # what the threads left behind does not matter


def test_worker_processes_step_on_one_thread() -> None:
    import multiprocessing

    assert physics.thread_limit() >= 1
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(physics.thread_limit) == 1


def test_cheetahs_reward_is_gymnasiums_velocity_against_the_tasks() -> None:
    """The published reward in float64, from Gymnasium's own step, to float32 of x."""
    family, env, rng = CheetahVel(), HalfCheetahEnv(), np.random.default_rng(0)
    env.reset(seed=3)
    engine, largest = family.physics, 0.0
    for _ in range(100):
        action = rng.uniform(-1, 1, (1, 6)).astype(np.float32)
        states = [np.concatenate([[0.0], env.data.qpos, env.data.qvel])]
        _, _, _, _, info = env.step(action[0])
        states.append(np.concatenate([[0.0], env.data.qpos, env.data.qvel]))
        before, after = family.observe(np.stack(states))[:, None]
        found = family.reward(before, action, after, np.array([[1.3]]))[0]
        exact = -abs(info["x_velocity"] - 1.3) - 0.05 * float((action.astype(float) ** 2).sum())
        largest = max(largest, abs(float(found) - exact))
    assert engine.nq == 9
    assert largest < 5e-6


def test_cheetahs_observation_is_the_published_one() -> None:
    family, env = CheetahVel(), HalfCheetahEnv()
    env.reset(seed=0)
    state = np.concatenate([[0.0], env.data.qpos, env.data.qvel])[None]
    seen = family.observe(state)[0]
    import mujoco

    mujoco.mj_forward(env.model, env.data)
    torso = env.data.body("torso").xpos
    expected = np.concatenate([env.data.qpos[1:], env.data.qvel, torso])
    np.testing.assert_allclose(seen, expected, atol=1e-6)


def test_rewards_of_the_semicircle_by_hand() -> None:
    dense, sparse = AntSemicircle(), AntSemicircleSparse()
    after = np.zeros((3, 29), np.float32)
    after[:, :2] = [(0.0, 0.0), (0.1, 0.9), (0.0, 1.19)]
    actions = np.full((3, 8), 0.5, np.float32)  # |a|^2 = 2
    task = np.array([[np.pi / 2]])  # the goal is (0, 1)
    found = dense.reward(after, actions, after, task)
    np.testing.assert_allclose(found, [-1.2, -0.4, -0.39], atol=1e-6)
    paid = sparse.reward(after, actions, after, task)
    np.testing.assert_allclose(paid, [-0.2, 0.8, 0.8], atol=1e-6)
    np.testing.assert_array_equal(sparse.learning_reward(after, actions, after, task), found)
    assert sparse.success(after, actions, after, task).tolist() == [False, True, True]
    assert sparse.has_learning_reward
    assert not dense.has_learning_reward


def test_wide_starts_avoid_the_ring_unless_allowed() -> None:
    for family, inside in ((AntSemicircle(), False), (AntSemicircleSparseOnRing(), True)):
        tasks = np.zeros((500, 1))
        seen = family.simulator(tasks, "wide").reset(np.random.default_rng(0))
        radii = np.hypot(seen[:, 0], seen[:, 1])
        assert ((radii > 0.8) & (radii < 1.2)).any() == inside
        low, high = seen[:, :2].min(axis=0), seen[:, :2].max(axis=0)
        np.testing.assert_allclose([*low, *high], [-1.5, -0.5, 1.5, 1.5], atol=0.1)
        np.testing.assert_array_equal(seen[:, 15:], 0.0)  # at rest, but for the place


def test_a_fallen_ant_stays_and_is_paid_nothing() -> None:
    family = AntDir()
    simulator = family.simulator(np.array([[0.0], [1.0]]))
    simulator.reset(np.random.default_rng(0))
    states = simulator._states
    assert states is not None
    states[0, 3] = 1.5  # thrown too high
    actions = np.full((2, 8), 0.5, np.float32)
    first = simulator.step(actions)
    assert first.terminations.tolist() == [True, False]
    second = simulator.step(actions)
    assert second.terminations.tolist() == [True, False]
    np.testing.assert_array_equal(second.observations[0], first.observations[0])
    np.testing.assert_array_equal(second.infos["velocity"][0], 0.0)
    assert second.rewards[0] == 0.0
    assert second.rewards[1] != 0.0


def test_ant_dir_asks_for_the_velocity() -> None:
    family, rest = AntDir(), np.zeros((1, 27), np.float32)
    with pytest.raises(TaskError, match=r"needs sim\['velocity'\]"):
        family.reward(rest, np.zeros((1, 8), np.float32), rest, np.zeros((1, 1)))


@pytest.mark.parametrize("family", [CheetahVel(), AntDir(), AntSemicircle()])
def test_unknown_starts_and_tasks_are_refused(family: TaskFamily) -> None:
    with pytest.raises(TaskError, match="'origin' or 'wide'"):
        family.simulator(np.array([[1.0]]), "middle")  # type: ignore[arg-type]
    with pytest.raises(TaskError, match=r"task 1 is 9.0, expected .* in \[0, "):
        family.simulator(np.array([[1.0], [9.0]]))


def test_a_missing_model_is_named() -> None:
    with pytest.raises(TaskError, match=r"the model centipede\.xml is not among"):
        physics.load_model("centipede.xml")


def test_knowing_a_family_does_not_wait_for_mujoco() -> None:
    code = (
        "import sys; from environments.registry import load_family; "
        "load_family('cheetah_vel').spec; print('mujoco' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
