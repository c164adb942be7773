"""Short episodes of an ML1 family, with what relabelling needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from environments.base import Actions, Bool, Float32, Float64, Start, TaskFamily


@dataclass(frozen=True)
class Episodes:
    """One episode a task; arrays (tasks, H, ...)."""

    tasks: Float64
    observations: Float32  # (tasks, H + 1, 39)
    actions: Actions
    rewards: Float32
    successes: Bool
    sim: dict[str, Float64]

    def told(self, tasks: Float64 | None = None) -> tuple[object, ...]:
        """The arguments of `reward`, under other tasks (tasks, task) if given."""
        asked = self.tasks if tasks is None else tasks
        before, after = self.observations[:, :-1], self.observations[:, 1:]
        return before, self.actions, after, asked[:, None], self.sim


def roll(
    family: TaskFamily, tasks: Float64, steps: int, start: Start = "origin", seed: int = 0
) -> Episodes:
    """Episodes that begin at random and go on with an expert of several noises."""
    rng = np.random.default_rng(seed)
    simulator = family.simulator(tasks, start)
    observations = [simulator.reset(rng)]
    noise = np.resize([0.0, 0.3, 0.1], len(tasks))
    taken, outcomes = [], []
    for time in range(steps):
        if time < steps // 8:
            taken.append(family.random_actions((len(tasks),), rng))
        else:
            taken.append(family.scripted_actions(observations[-1], tasks, rng, noise))
        outcomes.append(simulator.step(taken[-1]))
        observations.append(outcomes[-1].observations)
    sim = {
        name: np.stack([step.infos[name] for step in outcomes], axis=1)
        for name in family.spec.infos
    }
    sim["task"] = np.repeat(tasks[:, None], steps, axis=1)
    return Episodes(
        tasks,
        np.stack(observations, axis=1),
        np.stack(taken, axis=1),
        np.stack([step.rewards for step in outcomes], axis=1),
        np.stack([step.successes for step in outcomes], axis=1),
        sim,
    )
