"""ML1: fifty families, each one manipulation skill of Meta-World (Yu et al., 2019), version 3.

A task is the random vector of a reset: where an object or fixture lies and, with six numbers, where
the goal is. The reward is that of version "v2". H = 500, K = 2. An episode succeeds if any step
does. An episode from the origin begins alike every time; a wide start holds random actions first.

Deliberate deviations: observations hold no goal, as in ML1; rewards are functions of a transition
(see `engine`). Task and goal of another task are not swapped by a reset, which would move objects.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from environments.base import (
    Actions,
    Bool,
    Float32,
    Float64,
    Int64,
    Sim,
    Spec,
    Start,
    TaskFamily,
    common_shape,
)
from environments.errors import TaskError
from environments.metaworld import draws
from environments.metaworld.facts import FACTS, REWARD_VERSION, Facts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from environments.metaworld.simulator import MetaWorldSimulator
    from environments.rendering.base import FrameSource

_QVEL = {"stick-push": 17}  # its success asks for contact forces, which need velocities
_TURNS = ("qa", "qb", "qc", "qd")  # in an order that differs between families
_FRAME = (
    *("hand_x", "hand_y", "hand_z", "gripper"),
    *(f"{thing}_{part}" for thing in ("object", "second") for part in ("x", "y", "z", *_TURNS)),
)
OBSERVATION_NAMES = (
    *_FRAME,
    *(f"last_{name}" for name in _FRAME),
    *("goal_x", "goal_y", "goal_z"),  # zeros
)
TASK_NAMES = ("object_x", "object_y", "object_z", "goal_x", "goal_y", "goal_z")


class MetaWorldFamily(TaskFamily):
    """What the fifty share. `ml1_family` makes the class of each."""

    facts: ClassVar[Facts]
    slow_steps: ClassVar[bool] = True
    split_seeds: ClassVar[Mapping[str, int]] = {"idaq": draws.IDAQ_SEED}

    @cached_property
    def _references(self) -> dict[tuple[bytes, bool], tuple[float, bool]]:
        """Return and success of the expert's episode, by task and whether it knew the goal."""
        return {}

    @property
    def provenance(self) -> dict[str, str]:
        """Which code the rewards and the physics come from, as JSON values."""
        from importlib.metadata import version

        return {
            "environment": f"{self.facts.key}-v3",
            "metaworld": version("metaworld"),
            "mujoco": version("mujoco"),
            "reward": REWARD_VERSION,
        }

    # Tasks

    def sample_tasks(self, count: int, rng: np.random.Generator) -> Float64:
        """Draw `count` distinct tasks uniformly among the legal ones, (count, task)."""
        if count < 1:
            raise TaskError(f"{self.spec.name}: {count} tasks asked for, at least one is needed")
        tasks = np.stack([draws.draw(self.facts, rng) for _ in range(count)])
        while len(np.unique(tasks, axis=0)) < count:  # of probability zero, but then still right
            tasks = np.stack([draws.draw(self.facts, rng) for _ in range(count)])
        return tasks

    def validate_tasks(self, tasks: Float64) -> None:
        """Raise TaskError unless a reset can draw every task."""
        super().validate_tasks(tasks)
        draws.check(self.facts, tasks)

    def split(self, name: str, seed: int) -> tuple[Float64, Float64]:
        """`ml1`: the 50 and 50 of `metaworld.ML1` with this seed; `idaq`: its 40 and 10."""
        return draws.split(self.facts, name, seed)

    # Dynamics

    def simulator(self, tasks: Float64, start: Start = "origin") -> MetaWorldSimulator:
        """A simulator of len(tasks) environments; raises TaskError for an illegal task or start."""
        from environments.metaworld.simulator import MetaWorldSimulator

        tasks = np.array(tasks, dtype=np.float64)
        self.validate_tasks(tasks)
        if start not in ("origin", "wide"):
            raise TaskError(f"{self.spec.name}: start is {start!r}, expected 'origin' or 'wide'")
        return MetaWorldSimulator(self, tasks, start)

    def reward(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Sim | None = None,
    ) -> Float32:
        """Reward of version 2, (...,), exactly that of `step` for the task lived through."""
        return self.outcome(observations, actions, next_observations, tasks, sim)[0]

    def success(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Sim | None = None,
    ) -> Bool:
        """Whether s' solves the task, (...,)."""
        return self.outcome(observations, actions, next_observations, tasks, sim)[1]

    def outcome(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Sim | None = None,
    ) -> tuple[Float32, Bool]:
        """Reward and success at once, at the price of one. Observations only give the shape."""
        from environments.metaworld.relabelling import relabel

        shape = common_shape(observations, actions, next_observations, tasks)
        return relabel(self.facts, actions, tasks, sim, shape)

    def shared_prefix(self, own: Float64, target: Float64, sim: Sim) -> Int64:
        """First steps of episodes before anything comes near a goal that can be touched, (n,)."""
        if not self.spec.solid_goal:
            return super().shared_prefix(own, target, sim)
        from environments.metaworld.contacts import untouched_steps

        return untouched_steps(self.facts, own, target, sim["qpos"])

    # Reference behaviour

    def oracle_actions(self, observations: Float32, tasks: Float64) -> Float32:
        """The scripted expert told the goal, (..., 4)."""
        from environments.metaworld.engine import engine_of

        engine = engine_of(self.facts)
        distinct, which = np.unique(
            tasks.reshape(-1, self.spec.task_dim), axis=0, return_inverse=True
        )
        targets = np.stack([engine.layout(task).target for task in distinct])
        return self._expert(observations, targets[which.reshape(tasks.shape[:-1])])

    def goal_blind_actions(self, observations: Float32) -> Float32:
        """The scripted expert told that the goal is at zero, (..., 4)."""
        return self._expert(observations, np.zeros(3))

    def _expert(self, observations: Float32, goals: Float64) -> Float32:
        from environments.metaworld.expert import act

        shape = common_shape(observations, goals)
        rows = np.broadcast_to(observations, (*shape, observations.shape[-1]))
        told = np.broadcast_to(goals, (*shape, 3))
        actions = act(self.facts, rows.reshape(-1, rows.shape[-1]), told.reshape(-1, 3))
        return actions.reshape(*shape, 4)

    def oracle_returns(self, tasks: Float64, episodes: int | None = None) -> Float64:
        """Return of the expert per episode, (n, K): one from the origin, since all are alike."""
        returns, _ = self._reference(tasks, knows=True)
        return np.repeat(returns[:, None], episodes or self.spec.episodes, axis=1)

    def oracle_success(self, tasks: Float64) -> Bool:
        """Whether any step of the expert's episode succeeds, (n,)."""
        return self._reference(tasks, knows=True)[1]

    def goal_blind_returns(self, tasks: Float64, episodes: int | None = None) -> Float64:
        """Return of the expert told that the goal is at zero, (n, K)."""
        returns, _ = self._reference(tasks, knows=False)
        return np.repeat(returns[:, None], episodes or self.spec.episodes, axis=1)

    def goal_blind_success(self, tasks: Float64) -> Bool:
        """Whether any step of that expert's episode succeeds, (n,)."""
        return self._reference(tasks, knows=False)[1]

    def _reference(self, tasks: Float64, *, knows: bool) -> tuple[Float64, Bool]:
        """Return and success of one episode of the expert from the origin, (n,) each."""
        known, missing = self._references, {}
        for task in np.asarray(tasks, np.float64):
            if (task.tobytes(), knows) not in known:
                missing[task.tobytes()] = task
        if missing:
            returns, successes = self._episode(np.stack(list(missing.values())), knows=knows)
            for key, total, solved in zip(missing, returns.tolist(), successes, strict=True):
                known[key, knows] = (total, bool(solved))
        found = [known[task.tobytes(), knows] for task in np.asarray(tasks, np.float64)]
        return np.array([total for total, _ in found]), np.array([solved for _, solved in found])

    def _episode(self, tasks: Float64, *, knows: bool) -> tuple[Float64, Bool]:
        from environments.processes import parallel_simulator

        workers = min(os.cpu_count() or 1, len(tasks) // 16)
        if multiprocessing.current_process().daemon:  # may have no processes of its own
            workers = 1
        returns, solved = np.zeros(len(tasks)), np.zeros(len(tasks), np.bool_)
        with parallel_simulator(self.spec.name, self, tasks, "origin", workers) as simulator:
            observations = simulator.reset(np.random.default_rng(0))
            for _ in range(self.spec.horizon):
                actions = (
                    self.oracle_actions(observations, tasks)
                    if knows
                    else self.goal_blind_actions(observations)
                )
                step = simulator.step(actions)
                returns += step.rewards
                solved |= step.successes
                observations = step.observations
        return returns, solved

    def frame_source(self, task: Float64, size: int, camera: str | None) -> FrameSource:
        """The robot and its table, by the cameras `corner`, `front` and `top`; from the corner."""
        from environments.metaworld.scene import scene_of

        return scene_of(self.facts, task, size, camera)

    def plot_rollout(self, axes: Axes, observations: Float32, task: Float64) -> None:
        """Draw the paths of hand and object from above and from the side, and the goal."""
        from environments.metaworld.drawing import draw_rollout
        from environments.metaworld.engine import engine_of

        draw_rollout(axes, observations, engine_of(self.facts).layout(task).target)


def ml1_family(name: str) -> type[MetaWorldFamily]:
    """The class of a family by its name, `ml1/...`."""
    facts = FACTS[name]
    infos = {"qpos": facts.nq}
    if facts.key in _QVEL:
        infos["qvel"] = _QVEL[facts.key]
    spec = Spec(
        name=name,
        observation_names=OBSERVATION_NAMES,
        action_dim=4,
        horizon=500,
        episodes=2,
        task_names=TASK_NAMES[: facts.width],
        tasks_differ_in="reward",
        goal=facts.goal,
        solid_goal=facts.solid_goal,
        infos=infos,
    )
    title = "".join(part.capitalize() for part in facts.key.split("-"))
    return type(f"ML1{title}", (MetaWorldFamily,), {"spec": spec, "facts": facts})
