"""Short rollouts of a family under test, for the checks of the contract."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from environments.base import Actions, Bool, Float32, Float64, Start, TaskFamily

PROBED_TASKS = 8


@dataclass(frozen=True, eq=False)
class Rollout:
    """One episode on every probed task."""

    tasks: Float64  # (tasks, task)
    observations: Float32  # (tasks, H, obs)
    actions: Actions  # (tasks, H, act)
    next_observations: Float32  # (tasks, H, obs)
    rewards: Float32  # (tasks, H)
    terminations: Bool  # (tasks, H)
    successes: Bool  # (tasks, H)

    def transitions(self, extra_axis: bool = False) -> tuple[Float32, Actions, Float32]:
        """Copies of (s, a, s'), (tasks, H, ...), with room for a further task axis if asked for."""
        fields = (self.observations, self.actions, self.next_observations)
        s, a, after = (np.array(field[:, :, None] if extra_axis else field) for field in fields)
        return s, a, after


def some_tasks(family: TaskFamily, seed: np.random.SeedSequence) -> Float64:
    """A few tasks of a family, the same ones for the same seed, (tasks, task)."""
    everything = family.all_tasks()
    most = PROBED_TASKS if everything is None else min(PROBED_TASKS, len(everything))
    return family.sample_tasks(most, np.random.default_rng(seed))


def roll_out(
    family: TaskFamily,
    seed: np.random.SeedSequence,
    *,
    start: Start = "wide",
    oracle: bool = False,
) -> Rollout:
    """One episode: the oracle's if asked for, else random at first and then a noisy oracle's."""
    tasks = some_tasks(family, seed)
    rng = np.random.default_rng(seed)
    simulator = family.simulator(tasks, start)
    before = simulator.reset(rng)
    columns: list[tuple[np.ndarray, ...]] = []
    for time in range(family.spec.horizon):
        if oracle:
            actions = family.oracle_actions(before, tasks)
        elif time < family.spec.horizon // 2:
            actions = family.random_actions((len(tasks),), rng)
        else:
            actions = family.scripted_actions(before, tasks, rng, 0.2)
        step = simulator.step(actions)
        columns.append((before.copy(), actions, *(array.copy() for array in step)))
        before = step.observations
    observations, taken, *outcome = (
        np.stack(column, axis=1) for column in zip(*columns, strict=True)
    )
    return Rollout(tasks, observations, taken, *outcome)
