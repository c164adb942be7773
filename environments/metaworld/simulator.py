"""Stepping n environments of an ML1 family, one after the other, on the family's one engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from environments.base import Actions, Float32, Float64, Int64, Simulator, Start, Step
from environments.errors import TaskError
from environments.metaworld.engine import FRAME, engine_of

if TYPE_CHECKING:
    from environments.metaworld.family import MetaWorldFamily

MOST_WARM_UP, HELD = 5, 10
"""A wide start holds 0 to 5 random actions for 10 steps each before the episode begins."""


class MetaWorldSimulator(Simulator):
    """Environment i runs task i; those on the same task share its layout."""

    def __init__(self, family: MetaWorldFamily, tasks: Float64, start: Start) -> None:
        self.family = family
        self.tasks = tasks
        self.start = start
        self._time: int | None = None

    def reset(self, rng: np.random.Generator) -> Float32:
        """Begin an episode everywhere; returns the observations, (n, obs)."""
        return self.begin(rng.integers(0, 2**63, self.count))

    def begin(self, seeds: Int64) -> Float32:
        """Begin an episode everywhere, environment i from seed i, of (n,); the observations.

        An environment depends on its own seed only, so any split of them steps alike.
        """
        engine = engine_of(self.family.facts)
        if self._time is None:
            self._layouts = [engine.layout(task) for task in self.tasks]
            self._frames = np.empty((self.count, FRAME))
            self._states = np.empty((self.count, len(self._layouts[0].state)))
        self._time = 0
        for index, layout in enumerate(self._layouts):
            self._states[index], self._frames[index] = layout.state, layout.first
            if self.start == "wide":
                self._warm_up(index, np.random.default_rng(seeds[index]))
        return self._observations(self._frames)

    def render_state(self) -> Float64:
        """Positions of all joints, (n, nq), of which the scene is drawn."""
        if self._time is None:
            raise TaskError(f"{self.family.spec.name}: nothing to draw before the first reset")
        # an integration state begins with the time, then come the positions
        return self._states[:, 1 : 1 + self.family.facts.nq].copy()

    def _warm_up(self, index: int, rng: np.random.Generator) -> None:
        """Hold random actions for a while, as a look around before the episode."""
        engine, layout = engine_of(self.family.facts), self._layouts[index]
        engine.enter(layout)
        engine.restore(self._states[index])
        for _ in range(rng.integers(0, MOST_WARM_UP + 1)):
            action = rng.uniform(-1.0, 1.0, 4).astype(np.float32)
            for _ in range(HELD):
                engine.push(action)
            self._frames[index] = engine.frame(layout.env)
        engine.save(self._states[index])

    def step(self, actions: Actions) -> Step:
        """Apply actions (n, 4); raises TaskError where one is out of range or of wrong shape."""
        name, horizon = self.family.spec.name, self.family.spec.horizon
        if self._time is None:
            raise TaskError(f"{name}: step was called before the first reset")
        if self._time >= horizon:
            raise TaskError(f"{name}: step {horizon + 1} of an episode of {horizon}; reset first")
        actions = np.asarray(actions)
        self.family.check_actions(actions, self.count)
        self._time += 1
        return self._step(actions.astype(np.float32, copy=False))

    def _step(self, actions: Float32) -> Step:
        engine, n = engine_of(self.family.facts), self.count
        frames, rewards = np.empty((n, FRAME)), np.empty(n, np.float32)
        successes = np.empty(n, np.bool_)
        infos = {name: np.empty((n, width)) for name, width in self.family.spec.infos.items()}
        for index, layout in enumerate(self._layouts):
            engine.enter(layout)
            engine.restore(self._states[index])
            engine.push(actions[index])
            frames[index] = engine.frame(layout.env)
            rewards[index], successes[index] = engine.evaluate(
                layout.env, frames[index], actions[index]
            )
            engine.save(self._states[index])
            for name, column in infos.items():
                column[index] = getattr(engine.data, name)
        frames = np.clip(frames, *engine.bounds)
        observations = self._observations(frames)
        self._frames = frames
        return Step(observations, rewards, np.zeros(n, np.bool_), successes, infos)

    def _observations(self, frames: Float64) -> Float32:
        """This frame, the one before and no goal, (n, 39); a new array."""
        seen = np.zeros((self.count, 2 * FRAME + 3), np.float32)
        seen[:, :FRAME], seen[:, FRAME : 2 * FRAME] = frames, self._frames
        return seen
