"""Simulators whose steps are Python, spread over processes; the same bytes for any number of them.

Environments are independent, and an episode's random numbers come from a seed for each of them,
drawn here, so it does not matter which process steps which.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from environments.base import Actions, Float32, Float64, Simulator, Start, Step, TaskFamily
from environments.errors import TaskError


def parallel_simulator(
    name: str, family: TaskFamily, tasks: Float64, start: Start, workers: int
) -> Simulator:
    """A simulator of the tasks (n, task), in up to `workers` processes where steps are Python.

    `name` is the family's domain. Close it, or use it as a context manager.
    """
    if not family.slow_steps or workers < 2 or len(tasks) < 2:
        return family.simulator(tasks, start)
    family.validate_tasks(tasks)
    return ProcessSimulator(name, family, tasks, start, min(workers, len(tasks)))


class ProcessSimulator(Simulator):
    """n environments in several processes, each with a part of them."""

    def __init__(
        self, name: str, family: TaskFamily, tasks: Float64, start: Start, workers: int
    ) -> None:
        self.tasks, self.start = np.array(tasks, np.float64), start
        self._infos = family.spec.infos
        parts = np.array_split(self.tasks, workers)
        ends = np.cumsum([len(part) for part in parts])
        self._parts = [slice(int(e) - len(p), int(e)) for e, p in zip(ends, parts, strict=True)]
        spawn = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        for part in parts:
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(theirs, name, part, start), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def reset(self, rng: np.random.Generator) -> Float32:
        """Begin an episode everywhere; returns the observations, (n, obs)."""
        seeds = rng.integers(0, 2**63, len(self.tasks))
        return np.concatenate(self._ask("begin", [seeds[part] for part in self._parts]))

    def step(self, actions: Actions) -> Step:
        """Apply actions (n, act); raises TaskError where one is out of range or of wrong shape."""
        actions = np.asarray(actions)
        if len(actions) != len(self.tasks):
            raise TaskError(
                f"actions have shape {actions.shape}, but there are {len(self.tasks)} environments"
            )
        found = self._ask("step", [actions[part] for part in self._parts])
        infos = {n: np.concatenate([step.infos[n] for step in found]) for n in self._infos}
        joined = [np.concatenate([step[field] for step in found]) for field in range(4)]
        return Step(joined[0], joined[1], joined[2], joined[3], infos)

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(5)
            if process.is_alive():
                process.kill()
        self._pipes, self._processes = [], []

    def __del__(self) -> None:
        """As `close`, for who forgot."""
        if getattr(self, "_processes", None):
            self.close()

    def _ask(self, what: str, arguments: list[Any]) -> list[Any]:
        """What every process answers; the first failure is raised once all have answered."""
        for pipe, argument in zip(self._pipes, arguments, strict=True):
            pipe.send((what, argument))
        answers = [self._receive(pipe) for pipe in self._pipes]
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    def _receive(self, pipe: Connection) -> Any:
        try:
            return pipe.recv()
        except (EOFError, OSError) as error:
            raise ChildProcessError(
                "a simulator's process was killed, perhaps for want of memory; run again, with "
                "fewer workers if memory is short"
            ) from error


def _serve(pipe: Connection, name: str, tasks: Float64, start: Start) -> None:
    """A process: its part of the environments, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    from environments.registry import load_family

    simulator: Any = load_family(name).simulator(tasks, start)
    while True:
        try:
            what, argument = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = getattr(simulator, what)(argument)
        except Exception as error:
            answer = error
        pipe.send(answer)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
