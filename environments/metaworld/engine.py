"""One family's physics and rewards: Meta-World's own code, driven so that little of it is wasted.

A *layout* is what a reset on a task leaves behind: the attributes that Meta-World's code keeps, the
places of fixtures in the model, and the state of the physics. A reset depends on the task alone, so
it is done once a task; an episode then begins from the saved state. All layouts of a family share
one compiled model (15 to 23 MB) and one set of MuJoCo data, and whoever steps or evaluates sets
the whole state first. So a thousand simulators cost no more memory than one, and nothing lives on
between calls. Attributes of a layout may be views of that data, and are therefore never copied.

Deliberate deviations from Meta-World 3.1.1, none of which changes a reward, an observation of a
later step or the physics (the tests compare all fifty with it, bit for bit):

- The first observation of window-close is stale by 0.2 m there, and that of six others by less than
  0.1 mm; here it shows what is.
- bin-picking's reward keeps the distance of its first call after a reset. Here it is the one after
  one step of rest, which is the same number from the origin, so that the reward is a function.
- Quaternions, contact forces that no reward reads, and forces of joints are computed quicker or
  not at all.
"""

from __future__ import annotations

import math
import threading
import types
import warnings
from collections import OrderedDict
from typing import Any

import metaworld
import mujoco
import numpy as np

from environments.base import Float32, Float64
from environments.metaworld.facts import REWARD_VERSION, Facts

FRAME = 18  # numbers of one frame of an observation: hand, gripper, two objects
MOST_LAYOUTS = 1024  # kept by a process, a few kilobytes each
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
_NOTHING = np.zeros(4, np.float32)
_engines = threading.local()


def engine_of(facts: Facts) -> Engine:
    """The engine of a family in this thread, made when first asked for."""
    engines: dict[str, Engine] = _engines.__dict__.setdefault("by_key", {})
    if facts.key not in engines:
        engines[facts.key] = Engine(facts)
    return engines[facts.key]


class Layout:
    """What a reset on one task leaves behind."""

    def __init__(self, engine: Engine, task: Float64) -> None:
        self.env = engine.loaded(task)
        self.fixtures = [array.copy() for array in engine.movable]
        self.state = engine.state()  # (state,), before anything is recomputed for an observation
        mujoco.mj_kinematics(engine.model, engine.data)
        self.first = engine.frame(self.env)  # (18,)
        self.target: Float64 = np.array(self.env._target_pos)  # (3,)


class Engine:
    """Meta-World's environment of one family, its model and its data."""

    def __init__(self, facts: Facts) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Gymnasium, about its own boxes
            parent = metaworld.ALL_V3_ENVIRONMENTS[f"{facts.key}-v3"]
            self._blank: Any = _quick(parent)(reward_function_version=REWARD_VERSION)
        self.facts = facts
        self.model, self.data = self._blank.model, self._blank.data
        self.movable = (self.model.body_pos, self.model.body_quat, self.model.site_pos)
        self._pristine = [array.copy() for array in self.movable]
        self.needs_forces = facts.key == "stick-push"
        space = self._blank.sawyer_observation_space
        self.bounds = space.low[:FRAME], space.high[:FRAME]
        self._hand = self.data.body("hand").xpos
        self._claws = self.data.body("rightclaw").xpos, self.data.body("leftclaw").xpos
        self._size = mujoco.mj_stateSize(self.model, _STATE)
        self._seen = np.zeros(2 * FRAME + 3)
        self._layouts: OrderedDict[bytes, Layout] = OrderedDict()
        self._entered: Layout | None = None

    # Layouts

    def layout(self, task: Float64) -> Layout:
        """The layout of a task (task,), which must be a legal one: others never finish a reset."""
        key = task.tobytes()
        found = self._layouts.get(key)
        if found is None:
            found = self._layouts[key] = Layout(self, task)
            if len(self._layouts) > MOST_LAYOUTS:
                self._layouts.popitem(last=False)
        else:
            self._layouts.move_to_end(key)
        return found

    def loaded(self, task: Float64) -> Any:
        """A Meta-World environment on this engine's model and data, reset on a task."""
        env = object.__new__(type(self._blank))  # copy.copy would compile a model of its own
        env.__dict__.update(self._blank.__dict__)
        self._place(self._pristine)
        self._entered = None
        env._freeze_rand_vec, env._last_rand_vec = True, task.copy()
        env._partially_observable, env._set_task_called = True, True
        env.reset()
        if self.facts.key == "bin-picking":
            self._latch(env)
        return env

    def _latch(self, env: Any) -> None:
        """Have the first reward after a reset computed where nothing has been touched."""
        held = self.state()
        self.push(_NOTHING)
        self.evaluate(env, self.frame(env), _NOTHING)
        self.restore(held)

    def enter(self, layout: Layout) -> None:
        """Put the fixtures where a layout has them."""
        if self._entered is not layout:
            self._place(layout.fixtures)
            self._entered = layout

    def _place(self, fixtures: list[Float64]) -> None:
        for array, saved in zip(self.movable, fixtures, strict=True):
            array[...] = saved

    # Physics

    def state(self) -> Float64:
        """A copy of everything that the next step depends on beside the model, (state,)."""
        state = np.empty(self._size)
        mujoco.mj_getState(self.model, self.data, state, _STATE)
        return state

    def save(self, state: Float64) -> None:
        """Write the state into an array (state,)."""
        mujoco.mj_getState(self.model, self.data, state, _STATE)

    def restore(self, state: Float64) -> None:
        """Go on from a state; nothing is recomputed, which would change what the solver starts at.

        What was computed elsewhere is then still in the data, until a step overwrites it.
        """
        mujoco.mj_setState(self.model, self.data, state, _STATE)

    def push(self, action: Float32) -> None:
        """One step of an action (4,): where the hand is dragged to, and the gripper's force."""
        env, data = self._blank, self.data
        moved = data.mocap_pos[0] + action[:3] * env.action_scale
        data.mocap_pos[0] = np.minimum(np.maximum(moved, env.mocap_low), env.mocap_high)
        data.ctrl[0], data.ctrl[1] = action[3], -action[3]
        mujoco.mj_step(self.model, data, nstep=env.frame_skip)
        mujoco.mj_forward(self.model, data)

    # Observations and rewards

    def frame(self, env: Any, quaternions: bool = True) -> Float64:
        """Hand (3), gripper (1), and place and quaternion of two objects (14), (18,).

        Equal to Meta-World's bit for bit; without the quaternions where no reward reads them.
        """
        frame = np.zeros(FRAME)
        right, left = self._claws
        gap = right - left
        frame[:3] = self._hand
        frame[3] = min(max(math.sqrt(gap.dot(gap)) / 0.1, 0.0), 1.0)
        places = env._get_pos_objects()
        frame[4:7] = places[:3]
        if len(places) > 3:
            frame[11:14] = places[3:]
        if quaternions:
            turned = env._get_quat_objects()
            frame[7:11] = turned[:4]
            if len(places) > 3:
                frame[14:18] = turned[4:8]
        return frame

    def evaluate(self, env: Any, frame: Float64, action: Float32) -> tuple[float, bool]:
        """Reward and success of the data as they are, after an action (4,)."""
        seen = self._seen
        low, high = self.bounds
        np.minimum(np.maximum(frame, low), high, out=seen[:FRAME])
        reward, info = env.evaluate_state(seen, action)
        return reward, bool(info["success"])


def _quick(parent: type) -> type:
    """Meta-World's class with the same results sooner."""
    turned = parent.__dict__["_get_quat_objects"]
    names = {**turned.__globals__, "Rotation": _Rotation}
    rebound = types.FunctionType(turned.__code__, names, closure=turned.__closure__)
    changed = {"_get_quat_objects": rebound, "touching_object": _touching}
    if parent.__name__ != "SawyerStickPushEnvV3":
        changed["touching_object"] = lambda env, geom: False  # tells of a grasp, in no reward
    return type(parent.__name__, (parent,), changed)


def _touching(env: Any, geom: int) -> bool:
    """Whether both pads press on a geom: Meta-World's test, on all contacts at once."""
    pairs = env.data.contact.geom  # (contacts, 2)
    forces = env.data.efc_force[env.data.contact.efc_address]
    on = (pairs == geom).any(axis=1)
    pads = (env.data.geom(name).id for name in ("leftpad_geom", "rightpad_geom"))
    return all(sum(forces[on & (pairs == pad).any(axis=1)].tolist()) > 0 for pad in pads)


class _Rotation:
    """Stands in for SciPy's, whose checks take 30 times as long; same bits, (x, y, z, w)."""

    def __init__(self, matrix: Float64) -> None:
        self._matrix = matrix

    @classmethod
    def from_matrix(cls, matrix: Float64) -> _Rotation:
        """Of an orthogonal (3, 3)."""
        return cls(matrix)

    def as_quat(self) -> Float64:
        """The quaternion (4,) by way of its largest component."""
        (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = self._matrix.tolist()
        trace = xx + yy + zz
        largest = max(xx, yy, zz, trace)
        if largest == xx:
            x, y, z, w = 1 - trace + 2 * xx, yx + xy, zx + xz, zy - yz
        elif largest == yy:
            x, y, z, w = yx + xy, 1 - trace + 2 * yy, zy + yz, xz - zx
        elif largest == zz:
            x, y, z, w = zx + xz, zy + yz, 1 - trace + 2 * zz, yx - xy
        else:
            x, y, z, w = zy - yz, xz - zx, yx - xy, 1 + trace
        length = math.sqrt(x * x + y * y + z * z + w * w)
        return np.array((x / length, y / length, z / length, w / length))
