"""One simulator's environments split over processes, for families whose steps are a Python loop.

Each environment depends on its own seed and actions only, so the result is the same, bit for bit,
for any number of processes. Arrays are shared; pipes carry a word a step. A process ends when its
pipe does, so it never outlives the one that started it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from environments.base import Actions, Float32, Float64, Int64, Simulator, Start, Step, TaskFamily
from environments.errors import TaskError

Arrays = dict[str, NDArray[Any]]


class Seeded(Protocol):
    """A simulator whose environments begin from seeds of their own."""

    def begin(self, seeds: Int64) -> Float32:
        """Begin an episode everywhere, environment i from seed i."""


class ClosingSimulator(Simulator):
    """A simulator that is closed after use; this one passes on to another and has nothing open."""

    def __init__(self, inner: Simulator) -> None:
        self._inner = inner
        self.tasks, self.start = inner.tasks, inner.start

    def reset(self, rng: np.random.Generator) -> Float32:
        """Begin an episode everywhere; returns the observations, (n, obs)."""
        return self._inner.reset(rng)

    def step(self, actions: Actions) -> Step:
        """Apply actions (n, act); raises TaskError where one is out of range or of wrong shape."""
        return self._inner.step(actions)

    def close(self) -> None:
        """End what was started; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def parallel_simulator(
    name: str, family: TaskFamily, tasks: Float64, start: Start = "origin", workers: int = 1
) -> ClosingSimulator:
    """The family's simulator, in up to `workers` processes where its steps are slow.

    `name` is what `load_family` finds the family by.
    """
    if workers > 1 and len(tasks) > 1 and type(family).slow_steps:
        return ParallelSimulator(name, family, tasks, start, workers)
    return ClosingSimulator(family.simulator(tasks, start))


class ParallelSimulator(ClosingSimulator):
    """Environments in contiguous parts, one part a process."""

    def __init__(
        self, name: str, family: TaskFamily, tasks: Float64, start: Start, workers: int
    ) -> None:
        super().__init__(family.simulator(tasks, start))  # checks; it builds nothing before a reset
        self._spec = family.spec
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        self._began = False
        spawn = multiprocessing.get_context("spawn")
        sizes = _sizes(self._spec.observation_dim, self._spec.action_dim, self._spec.infos)
        shared: dict[str, Any] = {}
        for field, (kind, width) in sizes.items():
            shared[field] = spawn.RawArray("b", self.count * width * np.dtype(kind).itemsize)
        self._arrays = _views(shared, sizes, self.count)
        bounds = np.linspace(0, self.count, min(workers, self.count) + 1).astype(int)
        for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            ours, theirs = spawn.Pipe()
            part = (name, self.tasks[low:high], start, low, high, self.count, shared)
            process = spawn.Process(target=_work, args=(theirs, part), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def reset(self, rng: np.random.Generator) -> Float32:
        """Begin an episode everywhere; returns the observations, (n, obs)."""
        return self.begin(rng.integers(0, 2**63, self.count))

    def begin(self, seeds: Int64) -> Float32:
        """Begin an episode everywhere, environment i from seed i, of (n,); the observations."""
        self._arrays["seeds"][:, 0] = seeds
        self._ask("begin")
        self._began = True
        return self._arrays["observations"].copy()

    def step(self, actions: Actions) -> Step:
        """Apply actions (n, act); raises TaskError where one is out of range or of wrong shape."""
        name, expected = self._spec.name, (self.count, self._spec.action_dim)
        if not self._began:
            raise TaskError(f"{name}: step was called before the first reset")
        actions = np.asarray(actions)
        self._family_check(actions, expected)
        arrays = self._arrays
        arrays["actions"][...] = actions
        self._ask("step")
        return Step(
            arrays["observations"].copy(),
            arrays["rewards"][:, 0].copy(),
            arrays["terminations"][:, 0].copy(),
            arrays["successes"][:, 0].copy(),
            {field: arrays[field].copy() for field in self._spec.infos},
        )

    def _family_check(self, actions: Actions, expected: tuple[int, ...]) -> None:
        """Refuse before anything is sent, naming environments by their index in the whole."""
        check = getattr(getattr(self._inner, "family", None), "check_actions", None)
        if check is not None:
            check(actions, self.count)
        elif actions.shape != expected:
            raise TaskError(
                f"{self._spec.name}: actions have shape {actions.shape}, expected {expected}"
            )

    def _ask(self, word: str) -> None:
        """Have every process do one thing, and raise what one of them could not do."""
        if not self._pipes:
            raise TaskError(f"{self._spec.name}: the simulator is closed")
        failures: list[str] = []
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.send(word)
        for index, pipe in enumerate(self._pipes):
            try:
                answer = pipe.recv()
            except (EOFError, OSError):
                answer = f"{self._spec.name}: process {index} of the simulator died"
            if answer:
                failures.append(answer)
        if failures:
            raise TaskError(failures[0])

    def close(self) -> None:
        """End the processes; a second call does nothing."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()
        self._pipes, self._processes = [], []


def _sizes(
    observation: int, action: int, infos: Mapping[str, int]
) -> dict[str, tuple[type[np.generic], int]]:
    """Type and width of what is shared, by name."""
    return {
        "seeds": (np.int64, 1),
        "observations": (np.float32, observation),
        "actions": (np.float32, action),
        "rewards": (np.float32, 1),
        "terminations": (np.bool_, 1),
        "successes": (np.bool_, 1),
        **{name: (np.float64, width) for name, width in infos.items()},
    }


def _views(
    shared: Mapping[str, Any], sizes: Mapping[str, tuple[type[np.generic], int]], count: int
) -> Arrays:
    """Arrays (n, width) on shared memory."""
    return {
        name: np.frombuffer(shared[name], dtype=kind).reshape(count, width)
        for name, (kind, width) in sizes.items()
    }


def _work(pipe: Connection, part: tuple[Any, ...]) -> None:
    """Step a part of the environments until the pipe ends."""
    from environments.registry import load_family

    name, tasks, start, low, high, count, shared = part
    family = load_family(name)
    spec = family.spec
    sizes = _sizes(spec.observation_dim, spec.action_dim, spec.infos)
    arrays = {field: array[low:high] for field, array in _views(shared, sizes, count).items()}
    simulator: Any = family.simulator(tasks, start)
    while True:
        try:
            word = pipe.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        answer = ""
        try:
            if word == "begin":
                arrays["observations"][...] = simulator.begin(arrays["seeds"][:, 0])
            else:
                _store(arrays, simulator.step(arrays["actions"]))
        except Exception as error:  # told to the process that asked, which raises it
            answer = str(error) if isinstance(error, TaskError) else f"{name}: {error!r}"
        try:
            pipe.send(answer)
        except OSError:
            return


def _store(arrays: Arrays, step: Step) -> None:
    """Write a step into the shared arrays."""
    arrays["observations"][...] = step.observations
    arrays["rewards"][:, 0] = step.rewards
    arrays["terminations"][:, 0] = step.terminations
    arrays["successes"][:, 0] = step.successes
    for name, column in step.infos.items():
        arrays[name][...] = column
