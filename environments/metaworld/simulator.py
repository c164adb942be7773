"""Steps n arms of one task set, one after the other: a step is mostly Python, not physics."""

from __future__ import annotations

import numpy as np

from environments.base import Actions, Float32, Float64, Simulator, Spec, Start, Step
from environments.errors import TaskError
from environments.metaworld.arm import Arm

_idle: dict[str, list[Arm]] = {}  # arms that no simulator holds: building one takes 0.15 s


class ArmSimulator(Simulator):
    """n environments; environment i runs task i on an arm of its own."""

    def __init__(self, task_set: str, spec: Spec, tasks: Float64, start: Start) -> None:
        self.tasks, self.start = tasks, start
        self._task_set, self._spec = task_set, spec
        spare = _idle.setdefault(task_set, [])
        self._arms = [spare.pop() if spare else Arm(task_set) for _ in tasks]
        self._began = False

    def reset(self, rng: np.random.Generator) -> Float32:
        """Begin an episode everywhere; returns the observations, (n, 39)."""
        return self.begin(rng.integers(0, 2**63, len(self.tasks)))

    def begin(self, seeds: np.ndarray) -> Float32:
        """Begin an episode everywhere, each with a seed of its own (n,); observations (n, 39)."""
        observations = np.empty((len(self.tasks), self._spec.observation_dim), np.float32)
        for row, (arm, task) in enumerate(zip(self._arms, self.tasks, strict=True)):
            observations[row] = arm.reset(task)
            if self.start == "wide":
                observations[row] = arm.warm_up(np.random.default_rng(seeds[row]))
        self._began = True
        return observations

    def step(self, actions: Actions) -> Step:
        """Apply actions (n, 4); raises TaskError where one is out of range or of wrong shape."""
        actions = self._checked(actions)
        count = len(self.tasks)
        observations = np.empty((count, self._spec.observation_dim), np.float32)
        rewards, successes = np.empty(count, np.float32), np.empty(count, np.bool_)
        qpos = np.empty((count, self._spec.infos["qpos"]))
        for row, (arm, action) in enumerate(zip(self._arms, actions, strict=True)):
            observations[row], rewards[row], successes[row] = arm.step(action)
            qpos[row] = arm.qpos
        return Step(observations, rewards, np.zeros(count, np.bool_), successes, {"qpos": qpos})

    def close(self) -> None:
        """Give the arms back for the next simulator."""
        _idle.setdefault(self._task_set, []).extend(self._arms)
        self._arms = []

    def __del__(self) -> None:
        """As `close`, for who forgot."""
        if getattr(self, "_arms", None):
            self.close()

    def _checked(self, actions: Actions) -> Float32:
        name, expected = self._spec.name, (len(self.tasks), self._spec.action_dim)
        actions = np.asarray(actions)
        if not self._began:
            raise TaskError(f"{name}: step was called before the first reset")
        if actions.shape != expected:
            raise TaskError(f"{name}: actions have shape {actions.shape}, expected {expected}")
        if not np.issubdtype(actions.dtype, np.floating):
            raise TaskError(f"{name}: actions are {actions.dtype}, expected floating")
        if not (actions.min() >= -1 and actions.max() <= 1):
            row = np.flatnonzero(~((actions >= -1) & (actions <= 1)).all(axis=1))[0]
            raise TaskError(
                f"{name}: the action of environment {row} is {actions[row]}, expected values in "
                "[-1, 1]"
            )
        return actions.astype(np.float32, copy=False)
