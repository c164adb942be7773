"""One recorded trial, and the simulator's states along it where the family draws itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.checkpoints import load_tensors
from datasets.files import read_json
from environments.base import Actions, Bool, Float32, Float64, TaskFamily
from pipeline.errors import StoreError

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Trial:
    """What the agent lived through on one task, as `evaluate` recorded it."""

    task: Float64  # (task,)
    start: str
    observations: Float32  # (K, H + 1, obs)
    actions: Actions  # (K, H, act)
    rewards: Float32  # (K, H)
    beliefs: Float32  # (T + 1, 2L)
    successes: Bool  # (K, H)


def read_trial(scores: Path, number: int) -> Trial:
    """The first trial of test task `number`, counted from 0.

    Raises:
        StoreError: there is no such test task.
    """
    content = read_json(scores / "scores.json")
    tasks = np.asarray(content["tasks"], np.float64)
    if not 0 <= number < len(tasks):
        raise StoreError(f"--task {number}: this run has test tasks 0 to {len(tasks) - 1}")
    arrays, _ = load_tensors(scores / "rollouts.safetensors")
    row = number * int(content["protocol"]["trials_per_task"])
    names = ("observations", "actions", "rewards", "beliefs", "successes")
    fields = {name: arrays[name][row] for name in names}
    return Trial(tasks[number], str(content["protocol"]["start"]), **fields)


def replay_states(family: TaskFamily, trial: Trial) -> NDArray[np.float64]:
    """The simulator's render states along the trial, (K, H + 1, state), by its actions again.

    Raises:
        StoreError: starts are random, the simulator tells no state, or the observations differ
            from the recorded ones.
    """
    name = family.spec.name
    if trial.start != "origin":
        raise StoreError(f"{name}: a trial with {trial.start!r} starts cannot be stepped again")
    simulator = family.simulator(trial.task[None], "origin")
    rng = np.random.default_rng(0)
    states = []
    for episode, actions in enumerate(trial.actions):
        seen = simulator.reset(rng)
        for step in range(len(actions) + 1):
            gap = float(np.abs(seen[0] - trial.observations[episode, step]).max())
            if not gap <= TOLERANCE:
                raise StoreError(
                    f"{name}: stepping the recorded actions again departs from the recorded "
                    f"observations by {gap:.2g} in episode {episode + 1}, step {step}; evaluate "
                    "anew with this version of the simulator"
                )
            state = simulator.render_state()
            if state is None:
                raise StoreError(f"{name}: draws itself, but its simulator has no render_state")
            states.append(np.asarray(state[0], np.float64))
            if step < len(actions):
                action = actions[step]
                discrete = family.spec.n_actions is not None
                taken = action.astype(np.int64) if discrete else action
                seen = simulator.step(taken[None]).observations
    return np.stack(states).reshape(*trial.observations.shape[:2], -1)
