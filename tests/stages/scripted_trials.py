"""A small folder of scripted trials, collected without the collect stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.trial_store import CollectionMeta, write_meta, write_trials
from datasets.trials import Trials
from environments.base import TaskFamily
from environments.registry import load_family


def write_scripted(
    folder: Path, domain: str, tasks: int = 3, trials: int = 6, horizon: int | None = None
) -> CollectionMeta:
    """Scripted trials of a domain's first tasks, from wide starts; returns the folder's meta."""
    family = load_family(domain)
    spec = family.spec
    rng = np.random.default_rng(0)
    drawn = family.sample_tasks(tasks + 1, rng)
    meta = CollectionMeta(
        family=domain,
        tasks_train=drawn[:tasks],
        tasks_test=drawn[tasks:],
        start="wide",
        behaviour="scripted",
        episodes=spec.episodes,
        horizon=horizon or spec.horizon,
        observation_dim=spec.observation_dim,
        action_dim=spec.action_dim,
        n_actions=spec.n_actions,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_meta(folder, meta)
    for index in range(tasks):
        one = scripted_trials(family, drawn[index], trials, meta.horizon, rng)
        write_trials(folder, meta, index, one)
    return meta


def scripted_trials(
    family: TaskFamily, task: np.ndarray, count: int, horizon: int, rng: np.random.Generator
) -> Trials:
    """`count` trials of noisy oracles on one task (task_dim,)."""
    spec = family.spec
    tasks = np.repeat(task[None], count, 0)
    simulator = family.simulator(tasks, "wide")
    shape = (count, spec.episodes, horizon)
    observations = np.empty((*shape[:2], horizon + 1, spec.observation_dim), np.float32)
    actions = np.empty((*shape, spec.action_dim), np.int64 if spec.n_actions else np.float32)
    rewards = np.empty(shape, np.float32)
    for k in range(spec.episodes):
        observations[:, k, 0] = simulator.reset(rng)
        for h in range(horizon):
            actions[:, k, h] = family.scripted_actions(observations[:, k, h], tasks, rng, 0.5)
            step = simulator.step(actions[:, k, h])
            observations[:, k, h + 1], rewards[:, k, h] = step.observations, step.rewards
    truncations = np.zeros(shape, np.bool_)
    truncations[..., -1] = True
    return Trials(observations, actions, rewards, np.zeros(shape, np.bool_), truncations)
