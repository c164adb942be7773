"""Simulators split over processes: the same bytes, and errors that arrive."""

from __future__ import annotations

import numpy as np
import pytest

from environments.errors import TaskError
from environments.processes import ParallelSimulator, parallel_simulator
from environments.registry import load_family


def test_cheap_families_and_one_worker_step_here() -> None:
    family = load_family("gridworld")
    tasks = family.sample_tasks(3, np.random.default_rng(0))
    with parallel_simulator("gridworld", family, tasks, workers=4) as simulator:
        assert not isinstance(simulator, ParallelSimulator)
        simulator.reset(np.random.default_rng(0))


def test_any_number_of_processes_gives_the_same_bytes() -> None:
    name = "ml1/reach-wall"
    family = load_family(name)
    tasks = family.sample_tasks(5, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    actions = [family.random_actions((5,), rng) for _ in range(6)]
    seen = []
    for workers in (1, 2):
        with parallel_simulator(name, family, tasks, "wide", workers) as simulator:
            assert isinstance(simulator, ParallelSimulator) == (workers > 1)
            path = [simulator.reset(np.random.default_rng(2))]
            for action in actions:
                step = simulator.step(action)
                path += [step.observations, step.rewards, step.successes, step.infos["qpos"]]
            if workers > 1:
                with pytest.raises(TaskError, match="environment 4 "):
                    simulator.step(np.full((5, 4), [[0]] * 4 + [[7]], np.float32))
        seen.append(path)
    for one, two in zip(*seen, strict=True):
        np.testing.assert_array_equal(one, two)
        assert one.dtype == two.dtype
    with pytest.raises(TaskError, match="closed"):
        simulator.step(actions[0])


def test_what_a_process_cannot_do_is_raised_here() -> None:
    name = "ml1/reach-wall"
    family = load_family(name)
    tasks = family.sample_tasks(2, np.random.default_rng(0))
    with parallel_simulator(name, family, tasks, workers=2) as simulator:
        assert isinstance(simulator, ParallelSimulator)
        still = np.zeros((2, 4), np.float32)
        with pytest.raises(TaskError, match="before the first reset"):
            simulator.step(still)
        simulator.reset(np.random.default_rng(0))
        simulator._processes[1].kill()
        with pytest.raises(TaskError, match="process 1 of the simulator died"):
            simulator.step(still)
