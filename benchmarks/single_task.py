"""Agents that train on the test tasks themselves: what a meta-agent's last episode is held against.

    python -m benchmarks.single_task cheetah_vel  # --seed 0, writes docs/single_task.json

Where nobody wrote an oracle, an ordinary agent that learns one task is the comparison. Every test
task of a preset gets one, by the preset's own `collect` settings: the same rule, transitions and
updates as the agents that made the data. Afterwards it acts without noise for one episode from the
origin, as the meta-agent is evaluated. `benchmarks.results` sets its return beside the scores.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from algorithms.learners.base import Learner
from algorithms.memory import keep_freed_memory
from datasets.files import write_atomically
from environments.base import TaskFamily
from environments.registry import load_family
from pipeline.presets import load_config
from stages.collect import draw_tasks
from stages.collect_groups import Group, GroupJob
from stages.config import CollectConfig

PATH = Path(__file__).resolve().parent.parent / "docs" / "single_task.json"
Returns = dict[str, dict[str, Any]]


def single_task_returns(config: CollectConfig, seed: int) -> NDArray[np.float64]:
    """Return of one episode of each test task's own agent, (tasks,)."""
    family = load_family(config.domain)
    tasks = draw_tasks(family, config).test
    group = Group(GroupJob(config, seed, 0, tasks))
    while group.round < group.job.rounds:
        group.advance()
        sys.stderr.write(f"\rround {group.round} of {group.job.rounds}")
    if group.learner is None:
        raise ValueError(f"collect.behaviour is {config.behaviour}: there is no agent to compare")
    return episode_returns(family, tasks, group.learner)


@torch.no_grad()
def episode_returns(
    family: TaskFamily, tasks: NDArray[np.float64], learner: Learner
) -> NDArray[np.float64]:
    """Return of an episode without noise from the origin, agent i on task i, (tasks,)."""
    simulator = family.simulator(tasks, "origin")
    observations = simulator.reset(np.random.default_rng(0))
    returns = np.zeros(len(tasks))
    for _ in range(family.spec.horizon):
        actions = learner.act(torch.from_numpy(observations)[:, None], deterministic=True)
        step = simulator.step(actions.reshape(len(tasks), -1).numpy())
        returns += step.rewards
        observations = step.observations
    return returns


def read_returns(path: Path = PATH) -> Returns:
    """What was measured, by preset; empty where nothing was."""
    found: Returns = json.loads(path.read_text()) if path.exists() else {}
    return found


def current_mean(preset: str, path: Path = PATH) -> float | None:
    """Mean return of an episode, if it was measured with the preset's settings of today."""
    row = read_returns(path).get(preset)
    if row is None or row["collect"] != load_config(preset).config.collect.model_dump(mode="json"):
        return None
    return float(row["mean"])


def main(arguments: list[str] | None = None, path: Path = PATH) -> int:
    """Measure one preset and add it to the file."""
    parser = argparse.ArgumentParser(prog="benchmarks.single_task", description=__doc__)
    parser.add_argument("preset")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # as in collection
    keep_freed_memory()
    collect = load_config(options.preset).config.collect
    returns = single_task_returns(collect, options.seed)
    measured = {
        "mean": float(returns.mean()),
        "returns": returns.tolist(),
        "seed": options.seed,
        "collect": collect.model_dump(mode="json"),
    }
    rows = read_returns(path) | {options.preset: measured}
    write_atomically(path, (json.dumps(rows, indent=2) + "\n").encode())
    sys.stdout.write(f"\n{options.preset}: {returns.mean():.2f} an episode\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
