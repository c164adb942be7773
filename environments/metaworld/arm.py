"""One robot arm of Meta-World, driven without its registry, wrappers and pickled tasks.

What differs from `metaworld`'s own use, and why:
- tasks are set as vectors (a pickled `Task` ties data to a class path, and runs what it holds);
- contacts are looked for with arrays instead of a loop over all of them, and bodies and sites are
  found by number instead of by name: the same numbers, faster;
- window-close's first observation is made anew: metaworld returns one of before the reset;
- a step beyond the horizon is refused with a sentence.
Rewards are of version 2 and computed from the simulator's state and the float32 action stepped.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import mujoco
import numpy as np

from environments.base import Float32, Float64
from environments.errors import TaskError
from environments.metaworld.facts import FACTS

REWARD_VERSION = "v2"
HORIZON = 500
_WARM_UP = 25  # most steps of random actions before a wide start
_HELD = 5  # steps that each of them is held


class QuickParts:
    """Overrides of metaworld's look-ups by name; to be put before an environment class."""

    model: Any
    data: Any

    @property
    def tcp_center(self) -> Float64:
        """The middle between the two fingers, (3,)."""
        positions = self.data.site_xpos
        middle: Float64 = (
            positions[self._number("site", "rightEndEffector")]
            + positions[self._number("site", "leftEndEffector")]
        ) / 2.0
        return middle

    def get_endeff_pos(self) -> Float64:
        """The hand, (3,), a view of the simulator's state as metaworld's is."""
        position: Float64 = self.data.xpos[self._number("body", "hand")]
        return position

    def get_body_com(self, name: str) -> Float64:
        """A body's position, (3,), likewise a view."""
        position: Float64 = self.data.xpos[self._number("body", name)]
        return position

    def touching_object(self, object_geom_id: int) -> bool:
        """Whether both pads press on a geom."""
        contacts = self.data.contact
        first, second = contacts.geom1, contacts.geom2
        touched = (first == object_geom_id) | (second == object_geom_id)
        if not touched.any():
            return False
        return all(
            sum(self.data.efc_force[contacts.efc_address[touched & by]]) > 0
            for by in (
                (first == pad) | (second == pad)
                for pad in (
                    self._number("geom", "leftpad_geom"),
                    self._number("geom", "rightpad_geom"),
                )
            )
        )

    def _number(self, kind: str, name: str) -> int:
        known = self.__dict__.setdefault("_numbers", {})
        if name not in known:
            known[name] = getattr(self.data, kind)(name).id
        return int(known[name])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without metaworld's and gymnasium's warnings about constants and bounds."""
    level = logging.getLogger("gymnasium").level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("gymnasium").setLevel(logging.ERROR)
        try:
            yield
        finally:
            logging.getLogger("gymnasium").setLevel(level)


@cache
def arm_class(name: str) -> type[Any]:
    """The environment class of a task set, with its quick parts."""
    with quiet():
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        found = ALL_V3_ENVIRONMENTS[f"{name}-v3"]
    return type(found.__name__, (QuickParts, found), {})


class Arm:
    """One environment of a task set, on one task at a time."""

    def __init__(self, name: str) -> None:
        """Build the simulator (0.15 s)."""
        self.name = name
        with quiet():
            self.env = arm_class(name)(reward_function_version=REWARD_VERSION)
        space = self.env.sawyer_observation_space
        self._low, self._high = space.low[:18], space.high[:18]
        self.task: Float64 | None = None

    def reset(self, task: Float64) -> Float32:
        """Begin an episode on a task (task,); the first observation, (39,).

        The same whatever happened before; the task must be legal, or metaworld never returns.
        """
        env = self.env
        env._set_task_called = env._freeze_rand_vec = True
        env._last_rand_vec = np.array(task, np.float64)
        self.task = task
        observation, _ = env.reset()
        if self.name == "window-close":
            mujoco.mj_forward(env.model, env.data)
            observation = self._as_first()
        first: Float32 = observation.astype(np.float32)
        return first

    def warm_up(self, rng: np.random.Generator) -> Float32:
        """A random number of random held actions before the episode; its first observation."""
        for index in range(int(rng.integers(_WARM_UP + 1))):
            if index % _HELD == 0:
                action = rng.uniform(-1.0, 1.0, 4).astype(np.float32)
            self.env.step(action)
        self.env.curr_path_length = 0
        if hasattr(self.env, "_target_to_obj_init"):
            self.env._target_to_obj_init = None  # set by the first reward of an episode
        return self._as_first().astype(np.float32)

    def step(self, action: Float32) -> tuple[Float64, float, bool]:
        """Observation (39,), reward and success of one step.

        Raises:
            TaskError: the episode has had all its steps.
        """
        if self.env.curr_path_length >= HORIZON:
            raise TaskError(f"ml1/{self.name}: an episode has {HORIZON} steps; reset first")
        observation, reward, _, _, info = self.env.step(action)
        return observation, float(reward), bool(info["success"])

    def put_down(self, task: Float64, target: Float64 | None) -> None:
        """Lay out a task (task,) for `evaluate`, with another target position (3,) if given."""
        if self.task is None or not np.array_equal(self.task, task):
            self.reset(task)
            self._own_target = np.array(self.env._target_pos)
        self.env._target_pos = np.array(self._own_target if target is None else target)
        if hasattr(self.env, "_target_to_obj_init"):
            self.env._target_to_obj_init = None

    def evaluate(self, qpos: Float64, observation: Float32, action: Float32) -> tuple[float, bool]:
        """Reward and success where a step has led to qpos, under what was laid out.

        Positions are read off the state in full precision; of the recorded observation (39,) only
        what no reward depends on is taken, the objects' orientations.
        """
        env, data = self.env, self.env.data
        data.qpos[:] = qpos
        mujoco.mj_kinematics(env.model, data)
        seen = observation.astype(np.float64)
        seen[:3] = env.get_endeff_pos()
        apart = env.get_body_com("rightclaw") - env.get_body_com("leftclaw")
        seen[3] = min(float(np.linalg.norm(apart)) / 0.1, 1.0)
        objects = env._get_pos_objects()
        seen[4:7] = objects[:3]
        if len(objects) == 6:
            seen[11:14] = objects[3:]
        np.clip(seen[:18], self._low, self._high, out=seen[:18])
        reward, info = env.evaluate_state(seen, action)
        return float(reward), bool(info["success"])

    @property
    def qpos(self) -> Float64:
        """The simulator's position, a view, (coordinates,)."""
        position: Float64 = self.env.data.qpos
        return position

    def _as_first(self) -> Float64:
        """The observation of the state as it is, as an episode's first."""
        now = self.env._get_curr_obs_combined_no_goal()
        self.env._prev_obs = now
        return np.concatenate([now, now, np.zeros(3)])


@cache
def bounds(name: str) -> tuple[Float64, Float64]:
    """Lowest and highest tasks of a task set, (task,) each."""
    space = spare_arm(name).env._random_reset_space
    return np.array(space.low, np.float64), np.array(space.high, np.float64)


@cache
def spare_arm(name: str) -> Arm:
    """An arm of this process that nobody steps: for bounds, targets and rewards.

    It is not asked for contacts: no reward reads them, and no success but stick-push's.
    """
    arm = Arm(name)
    if name != "stick-push":
        arm.env.touching_object = lambda geom: False
    return arm


_targets: dict[tuple[str, bytes], Float64] = {}


def target(name: str, task: Float64) -> Float64:
    """Where the goal of a task lies, (3,)."""
    key = (name, task.tobytes())
    if key not in _targets:
        arm = spare_arm(name)
        arm.put_down(task, None)
        _targets[key] = np.array(arm.env._target_pos)
    return _targets[key]


def coordinates(name: str) -> int:
    """Length of `qpos`."""
    return FACTS[name].coordinates
