"""A task set of ML1 as a task family: an arm, a goal that is not observed, exact relabelling.

Meta-World (Yu et al., 2019), version 3.1.1, rewards of version 2. A task is metaworld's `rand_vec`:
where an object or a fixture stands and, of six numbers, the goal. An episode has 500 steps and
never terminates. Rewards need more than observations (robot kinematics), so logs keep `qpos`, from
which they are recomputed bit for bit: the layout is that of the task lived in, and only the target
is the other task's. (Setting the other task would move its fixtures and objects as well.)
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from environments.base import (
    Actions,
    Bool,
    Float32,
    Float64,
    Sim,
    Spec,
    Start,
    TaskFamily,
    common_shape,
)
from environments.errors import TaskError
from environments.metaworld import tasks as task_draws
from environments.metaworld.arm import HORIZON, REWARD_VERSION, bounds, quiet, spare_arm, target
from environments.metaworld.facts import FACTS
from environments.metaworld.simulator import ArmSimulator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FRAME = (
    *("hand_x", "hand_y", "hand_z", "gripper"),
    *(
        f"object{number}_{part}"
        for number in (1, 2)
        for part in ("x", "y", "z", "q0", "q1", "q2", "q3")
    ),
)
OBSERVATIONS = (
    *_FRAME,
    *(f"previous_{name}" for name in _FRAME),
    *("goal_x", "goal_y", "goal_z"),  # always zero: it is not observed
)


class Ml1Family(TaskFamily):
    """One of the fifty task sets; `ml1_family` makes the class of each."""

    task_set: ClassVar[str]
    slow_steps: ClassVar[bool] = True

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions of the simulator and of the reward."""
        return {
            "environment": f"{self.task_set}-v3",
            "metaworld": version("metaworld"),
            "mujoco": version("mujoco"),
            "reward_version": REWARD_VERSION,
        }

    # Tasks

    def sample_tasks(self, count: int, rng: np.random.Generator) -> Float64:
        """Draw distinct legal tasks, uniform between metaworld's bounds, (count, task)."""
        if count < 1:
            raise TaskError(f"{self.spec.name}: {count} tasks asked for, at least one is needed")
        return task_draws.draw(self.task_set, count, rng)

    def split(self, name: str, seed: int) -> tuple[Float64, Float64]:
        """`ml1`: 50 and 50 tasks of metaworld's benchmark; `idaq`: 40 and 10 of version 2."""
        return task_draws.split(self.task_set, name, seed)

    def validate_tasks(self, tasks: Float64) -> None:
        """Raise TaskError unless every task is within bounds and feasible."""
        super().validate_tasks(tasks)
        low, high = bounds(self.task_set)
        outside = ((tasks < low) | (tasks > high)).any(1)
        for index in np.flatnonzero(outside)[:1]:
            raise TaskError(
                f"{self.spec.name}: task {index} is {tasks[index].tolist()}, expected values "
                f"between {low.tolist()} and {high.tolist()}"
            )
        for index in np.flatnonzero(~task_draws.legal(self.task_set, tasks))[:1]:
            raise TaskError(
                f"{self.spec.name}: task {index} is {tasks[index].tolist()}, whose object is less "
                f"than {FACTS[self.task_set].least_distance} m from its goal: metaworld never "
                "finishes such a reset"
            )

    # Dynamics

    def simulator(self, tasks: Float64, start: Start = "origin") -> ArmSimulator:
        """One arm a task; `wide` begins after some random actions."""
        tasks = np.array(tasks, np.float64)
        self.validate_tasks(tasks)
        if start not in ("origin", "wide"):
            raise TaskError(f"{self.spec.name}: start is {start!r}, expected 'origin' or 'wide'")
        return ArmSimulator(self.task_set, self.spec, tasks, start)

    def reward(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Sim | None = None,
    ) -> Float32:
        """Exact rewards (...,) of steps lived under sim["task"], with the goals of `tasks`."""
        return self._evaluate(observations, actions, next_observations, tasks, sim)[0]

    def success(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Sim | None = None,
    ) -> Bool:
        """Metaworld's success of steps, (...,); only stick-push's needs contact forces too."""
        return self._evaluate(observations, actions, next_observations, tasks, sim)[1]

    def _evaluate(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Sim | None,
    ) -> tuple[Float32, Bool]:
        if sim is None:
            raise TaskError(
                f"{self.spec.name}: a reward needs the simulator's states (infos/qpos of a log, "
                "and its task)"
            )
        own, qpos = sim["task"], sim["qpos"]
        shape = common_shape(observations, actions, next_observations, tasks, own, qpos)
        rewards, successes = np.empty(shape, np.float32), np.empty(shape, np.bool_)
        flat = [
            np.broadcast_to(array, (*shape, array.shape[-1])).reshape(-1, array.shape[-1])
            for array in (own, np.asarray(tasks, np.float64), qpos, next_observations, actions)
        ]
        own, wanted, qpos, after, acted = flat
        arm = spare_arm(self.task_set)
        told, reached = rewards.reshape(-1), successes.reshape(-1)
        for rows in _alike(np.concatenate([own, wanted], 1)):
            aim = target(self.task_set, wanted[rows[0]])
            same = np.array_equal(own[rows[0]], wanted[rows[0]])
            arm.put_down(own[rows[0]], None if same else aim)
            for row in rows:
                told[row], reached[row] = arm.evaluate(qpos[row], after[row], acted[row])
        return told.reshape(shape), reached.reshape(shape)

    # Reference behaviour

    def oracle_actions(self, observations: Float32, tasks: Float64) -> Float32:
        """Metaworld's scripted expert, told the goal, (..., 4) in [-1, 1]."""
        shape = common_shape(observations, tasks)
        seen = np.broadcast_to(observations, (*shape, observations.shape[-1])).astype(np.float64)
        wanted = np.broadcast_to(tasks, (*shape, tasks.shape[-1])).reshape(-1, tasks.shape[-1])
        seen = seen.reshape(len(wanted), -1)
        for row, task in enumerate(wanted):
            seen[row, -3:] = target(self.task_set, task)
        return self._script(seen).reshape(*shape, 4)

    def oracle_returns(self, tasks: Float64, episodes: int | None = None) -> Float64:
        """Return of the expert per episode, (n, K); all episodes of a task are alike."""
        returns, _ = self._played(tasks, True)
        return np.repeat(returns[:, None], episodes or self.spec.episodes, axis=1)

    def goal_blind_returns(self, tasks: Float64, episodes: int | None = None) -> Float64:
        """Return of the expert that sees zeros for the goal, (n, K)."""
        returns, _ = self._played(tasks, False)
        return np.repeat(returns[:, None], episodes or self.spec.episodes, axis=1)

    def oracle_success(self, tasks: Float64) -> Bool:
        """Whether the expert succeeds at any step, (n,)."""
        return self._played(tasks, True)[1]

    def goal_blind_success(self, tasks: Float64) -> Bool:
        """Whether the expert that sees zeros for the goal succeeds at any step, (n,)."""
        return self._played(tasks, False)[1]

    def _script(self, observations: Float64) -> Float32:
        policy = _policy(self.task_set)
        with quiet():
            actions = np.array([policy.get_action(seen) for seen in observations], np.float64)
        return np.clip(actions, -1.0, 1.0).astype(np.float32)

    def _played(self, tasks: Float64, told: bool) -> tuple[Float64, Bool]:
        """Return and success of one episode of the expert on each task, remembered."""
        found = []
        for task in np.asarray(tasks, np.float64):
            key = (self.task_set, task.tobytes(), told)
            if key not in _episodes:
                _episodes[key] = self._play(task[None], told)
            found.append(_episodes[key])
        return np.array([r for r, _ in found]), np.array([s for _, s in found], np.bool_)

    def _play(self, task: Float64, told: bool) -> tuple[float, bool]:
        simulator = self.simulator(task)
        seen = simulator.reset(np.random.default_rng(0))
        total, solved = 0.0, False
        for _ in range(HORIZON):
            act = self.oracle_actions(seen, task) if told else self._script(seen.astype(float))
            step = simulator.step(act)
            seen = step.observations
            total += float(step.rewards[0])
            solved |= bool(step.successes[0])
        return total, solved

    def plot_rollout(self, axes: Axes, observations: Float32, task: Float64) -> None:
        """Draw the goal, and the hand's and the object's path of every episode, from above."""
        from environments.plots import draw_paths

        aim = target(self.task_set, np.asarray(task, np.float64))
        draw_paths(axes, observations[..., :2])
        for path in observations[..., 4:6]:
            axes.plot(path[:, 0], path[:, 1], color="#777777", linewidth=0.8, linestyle=":")
        axes.plot(aim[0], aim[1], marker="*", color="#d9730d", markersize=11)
        axes.set_xlabel("x (m)")
        axes.set_ylabel("y (m)")
        axes.set_aspect("equal", adjustable="datalim")


_episodes: dict[tuple[str, bytes, bool], tuple[float, bool]] = {}


def _alike(keys: Float64) -> list[np.ndarray]:
    """Rows of equal keys (n, width), in order, so that a layout is set once."""
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.reshape(-1)
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


@cache
def _policy(task_set: str) -> Any:
    with quiet():
        from metaworld.policies import ENV_POLICY_MAP

        policy: Any = ENV_POLICY_MAP[f"{task_set}-v3"]
        return policy()


@cache
def ml1_family(task_set: str) -> type[Ml1Family]:
    """The family of one of the fifty task sets."""
    facts = FACTS[task_set]
    names = ("object_x", "object_y", "object_z", "goal_x", "goal_y", "goal_z")
    spec = Spec(
        name=f"ml1/{task_set}",
        observation_names=OBSERVATIONS,
        action_dim=4,
        horizon=HORIZON,
        episodes=2,
        task_names=names[: facts.width],
        tasks_differ_in="reward",
        collection_start="origin",
        goal=facts.goal,
        solid_goal=facts.solid_goal,
        infos={"qpos": facts.coordinates},
    )
    title = "".join(part.title() for part in task_set.split("-"))
    return type(f"Ml1{title}", (Ml1Family,), {"task_set": task_set, "spec": spec})
