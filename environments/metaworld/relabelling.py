"""Rewards and successes of steps that were lived through, under any task of the family.

What was lived through is `sim`: the task whose layout it happened in, and qpos after each step. The
layout stays its own; only the goal is that of the task asked about. In the task sets that hide
their goal this equals Meta-World with that object and that goal, bit for bit, as long as the
physics are the same; in all others, under the task that was lived in.
"""

from __future__ import annotations

import math
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from environments.base import Actions, Bool, Float32, Float64, Int64, Sim, common_shape
from environments.errors import TaskError
from environments.metaworld.engine import Engine, engine_of
from environments.metaworld.facts import Facts

READS_QUATERNION = frozenset({"assembly", "box-close", "disassemble", "hammer"})
"""Families whose reward depends on how an object is turned, not only on where it is."""


def relabel(
    facts: Facts, actions: Actions, tasks: Float64, sim: Sim | None, shape: tuple[int, ...]
) -> tuple[Float32, Bool]:
    """Rewards and successes over the leading axes that `shape` and all arrays broadcast to."""
    needed = ("qpos", "qvel", "task") if facts.key == "stick-push" else ("qpos", "task")
    if sim is None or not set(needed) <= set(sim):
        raise TaskError(
            f"{facts.name}: rewards follow from the simulator's states, "
            f"expected sim with {', '.join(map(repr, needed))}"
        )
    lived = {name: np.asarray(sim[name], np.float64) for name in needed}
    shape = np.broadcast_shapes(shape, common_shape(*lived.values()))
    count = math.prod(shape)
    owns, own = _distinct(lived.pop("task"), shape)
    goals, goal = _distinct(np.asarray(tasks, np.float64), shape)
    states = {name: _rows(array, shape) for name, array in lived.items()}
    taken = _rows(actions.astype(np.float32, copy=False), shape)
    rewards, successes = np.empty(count, np.float32), np.empty(count, np.bool_)
    engine = engine_of(facts)
    order = np.argsort(own, kind="stable")
    for index, rows in enumerate(np.split(order, np.searchsorted(own[order], range(1, len(owns))))):
        told = {name: array[rows] for name, array in states.items()}
        found = _relabel_own(engine, owns[index], goals, goal[rows], taken[rows], told)
        rewards[rows], successes[rows] = found
    return rewards.reshape(shape), successes.reshape(shape)


def _relabel_own(
    engine: Engine,
    own: Float64,
    goals: Float64,
    goal: Int64,
    actions: Float32,
    states: dict[str, NDArray[Any]],
) -> tuple[Float32, Bool]:
    """Of rows (n, ...) that all happened in the layout of one task; row i asks about a goal."""
    layout = engine.layout(own)
    targets = [engine.layout(task).target for task in goals]
    env, data = layout.env, engine.data
    kept = env._target_pos  # often a view that moves with the data, so it is put back, not copied
    targets = [
        kept if task.tobytes() == own.tobytes() else target
        for task, target in zip(goals, targets, strict=True)
    ]
    quaternions = engine.facts.key in READS_QUATERNION
    rewards, successes = np.empty(len(goal), np.float32), np.empty(len(goal), np.bool_)
    engine.enter(layout)
    engine.restore(layout.state)
    try:
        for row, (action, index) in enumerate(zip(actions, goal.tolist(), strict=True)):
            env._target_pos = targets[index]
            data.qpos[:] = states["qpos"][row]
            if engine.needs_forces:
                data.qvel[:] = states["qvel"][row]
                data.ctrl[0], data.ctrl[1] = action[3], -action[3]
                mujoco.mj_forward(engine.model, data)
            else:
                mujoco.mj_kinematics(engine.model, data)
            frame = engine.frame(env, quaternions)
            rewards[row], successes[row] = engine.evaluate(env, frame, action)
    finally:
        env._target_pos = kept
    return rewards, successes


def _distinct(tasks: Float64, shape: tuple[int, ...]) -> tuple[Float64, Int64]:
    """The different tasks of (..., task), and which of them each row of a shape has, (rows,)."""
    flat = np.ascontiguousarray(tasks.reshape(-1, tasks.shape[-1]))
    _, first, index = np.unique(
        flat.view(f"V{flat.strides[0]}").ravel(), return_index=True, return_inverse=True
    )
    spread = np.broadcast_to(index.reshape(tasks.shape[:-1]), shape)
    return flat[first], spread.reshape(-1)


def _rows(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """An array (..., width) broadcast and flattened to (rows, width)."""
    return np.broadcast_to(array, (*shape, array.shape[-1])).reshape(-1, array.shape[-1])
