"""Until when an episode's physics are those of another task, where goals can be touched.

In eight families the goal is a body: a net, a shelf, a coffee machine. Two tasks then share their
physics only until something that moves comes near that body, where either of them has it.
"""

from __future__ import annotations

import mujoco
import numpy as np

from environments.base import Float64, Int64
from environments.metaworld.engine import Engine, Layout, engine_of
from environments.metaworld.facts import Facts

MARGIN = 0.02
"""What counts as near, in metres: more than anything here moves in one step of 12.5 ms."""

STARTS_DIFFER = frozenset({"box-close"})
"""Families whose reset already pushes an object with the goal's body: they share no step at all."""


def untouched_steps(facts: Facts, own: Float64, target: Float64, qpos: Float64) -> Int64:
    """First steps of n episodes, qpos (n, H, nq), with nothing near the goal's body, (n,).

    Tested with the body where `own` (n, task) and where `target` (n, task) has it.
    """
    engine = engine_of(facts)
    steps = np.full(len(own), qpos.shape[1], np.int64)
    for episode, path in enumerate(qpos):
        home, there = engine.layout(own[episode]), engine.layout(target[episode])
        moved = np.flatnonzero((home.fixtures[0] != there.fixtures[0]).any(axis=1))
        if len(moved) and facts.key in STARTS_DIFFER:
            steps[episode] = 0
        elif len(moved):
            for layout in (home, there):
                steps[episode] = _first_contact(engine, layout, moved, path[: steps[episode]])
    return steps


def _first_contact(engine: Engine, layout: Layout, bodies: Int64, path: Float64) -> int:
    """Index of the first of qpos (H, nq) with a moving thing near one of the bodies, or H."""
    model, data = engine.model, engine.data
    fixed = _below(model, bodies)
    of_goal = fixed[model.geom_bodyid]  # (geoms,)
    moving = (model.body_weldid != 0)[model.geom_bodyid] & ~of_goal
    kept = model.geom_margin.copy()
    engine.enter(layout)
    engine.restore(layout.state)
    model.geom_margin[of_goal] = np.maximum(kept[of_goal], MARGIN)
    try:
        for time, qpos in enumerate(path):
            data.qpos[:] = qpos
            mujoco.mj_kinematics(model, data)
            mujoco.mj_collision(model, data)
            pairs = data.contact.geom  # (contacts, 2)
            first, second = pairs[:, 0], pairs[:, 1]
            near = (of_goal[first] & moving[second]) | (moving[first] & of_goal[second])
            if near.any():
                return time
    finally:
        model.geom_margin[:] = kept
    return len(path)


def _below(model: mujoco.MjModel, bodies: Int64) -> np.ndarray:
    """Which bodies are these or hang from them, (bodies,)."""
    below = np.zeros(model.nbody, np.bool_)
    below[bodies] = True
    for body in range(1, model.nbody):  # parents come before their children
        below[body] |= below[model.body_parentid[body]]
    return below
