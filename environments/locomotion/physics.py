"""Stepping many copies of one MuJoCo model: one call of `mujoco.rollout` an environment step.

A state is `mjSTATE_FULLPHYSICS`: time, qpos, qvel (none of these models has actuator states). Every
environment step starts the constraint solver from rest, where Gymnasium's environments start it
from the last step's solution. So the next state is a function of state and action alone, whatever
the number of threads and whichever environments are beside it; it agrees with Gymnasium's to the
solver's tolerance.
"""

from __future__ import annotations

import functools
import importlib.util
import multiprocessing
import os
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from mujoco import rollout

from environments.base import Actions, Float64
from environments.errors import TaskError

threads: int | None = None
"""Most threads of a simulator; None: every core in a main process, one in a worker process."""


class Physics:
    """One model, stepped `frame_skip` time steps at a time for a batch of states."""

    def __init__(self, asset: str, frame_skip: int, rows_per_thread: int) -> None:
        self.model = load_model(asset)
        self.frame_skip = frame_skip
        self.rows_per_thread = rows_per_thread  # fewer environments than this earn no thread
        self.nq, self.nv = int(self.model.nq), int(self.model.nv)
        self.width = mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        self._data = [mujoco.MjData(self.model)]

    @property
    def seconds(self) -> float:
        """Simulated time of an environment step."""
        return float(self.model.opt.timestep) * self.frame_skip

    def rest(self, count: int) -> Float64:
        """The model's own start for `count` environments, (count, width)."""
        state = np.zeros((count, self.width))
        state[:, 1 : 1 + self.nq] = self.model.qpos0
        return state

    def positions(self, states: Float64) -> Float64:
        """qpos of states (n, width), a view (n, nq)."""
        return states[:, 1 : 1 + self.nq]

    def velocities(self, states: Float64) -> Float64:
        """qvel of states (n, width), a view (n, nv)."""
        return states[:, 1 + self.nq : 1 + self.nq + self.nv]

    def step(self, states: Float64, actions: Actions) -> Float64:
        """States (n, width) after one environment step under actions (n, act)."""
        count = min(thread_limit(), max(1, len(states) // self.rows_per_thread))
        while len(self._data) < count:
            self._data.append(mujoco.MjData(self.model))
        held = np.repeat(actions[:, None].astype(np.float64), self.frame_skip, axis=1)
        after, _ = _pool(count).rollout(
            self.model, self._data[:count], states, held, nstep=self.frame_skip
        )
        return np.array(after[:, -1])


def thread_limit() -> int:
    """How many threads a simulator may use here: collection's workers have a core each."""
    if threads is not None:
        return threads
    return 1 if multiprocessing.parent_process() else len(os.sched_getaffinity(0))


@functools.cache
def load_model(asset: str) -> Any:
    """A model of Gymnasium's MuJoCo environments by file name; shared, so not to be changed.

    Raises:
        TaskError: the installed Gymnasium has no such file.
    """
    # Found without importing Gymnasium, which takes longer than all the rest.
    found = importlib.util.find_spec("gymnasium")
    folders = [] if found is None else list(found.submodule_search_locations or [])
    for folder in folders:
        path = Path(folder) / "envs" / "mujoco" / "assets" / asset
        if path.exists():
            return mujoco.MjModel.from_xml_path(str(path))
    raise TaskError(f"the model {asset} is not among the assets of Gymnasium: install gymnasium")


@functools.cache
def _pool(count: int) -> rollout.Rollout:
    """A pool of threads; one thread is the caller's own."""
    return rollout.Rollout(nthread=count if count > 1 else 0)
