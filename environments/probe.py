"""Short rollouts of a family under test, for the checks of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from environments.base import Actions, Bool, Float32, Float64, Sim, Start, TaskFamily

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
    infos: Mapping[str, Float64]  # (tasks, H, width)

    def transitions(self, extra_axis: bool = False) -> tuple[Float32, Actions, Float32]:
        """Copies of (s, a, s'), (tasks, H, ...), with room for a further task axis if asked for."""
        fields = (self.observations, self.actions, self.next_observations)
        s, a, after = (np.array(field[:, :, None] if extra_axis else field) for field in fields)
        return s, a, after

    def sim(self, extra_axis: bool = False) -> Sim | None:
        """What a reward needs beside the transitions, likewise; None where it needs nothing."""
        if not self.infos:
            return None
        lived = np.broadcast_to(self.tasks[:, None], (*self.rewards.shape, self.tasks.shape[1]))
        arrays = {**self.infos, "task": lived}
        return {k: np.array(v[:, :, None] if extra_axis else v) for k, v in arrays.items()}


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
    """One episode: the oracle's if asked for, else random at first and then a noisy oracle's.

    It is random all along where there is no oracle.
    """
    tasks = some_tasks(family, seed)
    rng = np.random.default_rng(seed)
    simulator = family.simulator(tasks, start)
    before = simulator.reset(rng)
    columns: list[tuple[np.ndarray, ...]] = []
    infos: list[Mapping[str, Float64]] = []
    for time in range(family.spec.horizon):
        if not family.has_oracle or (not oracle and time < family.spec.horizon // 2):
            actions = family.random_actions((len(tasks),), rng)
        elif oracle:
            actions = family.oracle_actions(before, tasks)
        else:
            actions = family.scripted_actions(before, tasks, rng, 0.2)
        step = simulator.step(actions)
        outcome = (step.observations, step.rewards, step.terminations, step.successes)
        columns.append((before.copy(), actions, *(array.copy() for array in outcome)))
        infos.append({name: array.copy() for name, array in step.infos.items()})
        before = step.observations
    observations, taken, after, rewards, ends, successes = (
        np.stack(column, axis=1) for column in zip(*columns, strict=True)
    )
    kept = {name: np.stack([info[name] for info in infos], axis=1) for name in family.spec.infos}
    return Rollout(tasks, observations, taken, after, rewards, ends, successes, kept)
