"""Logs as other programs write them, of a noisy oracle on tasks of our own families."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from datasets.trials import Trials
from environments.base import Start
from environments.registry import load_family


def logged(
    domain: str,
    task: Sequence[float],
    trials: int = 2,
    seed: int = 0,
    start: Start = "wide",
    scripted: bool = True,
) -> Trials:
    """Trials of one task, `(trials, K, H)`, recorded as the simulator gives them."""
    family = load_family(domain)
    spec, rng = family.spec, np.random.default_rng(seed)
    count = trials * spec.episodes
    tasks = np.repeat(np.asarray(task, np.float64)[None], count, axis=0)
    simulator = family.simulator(tasks, start)
    observations, actions, rewards, ends = [simulator.reset(rng)], [], [], []
    infos: dict[str, list[np.ndarray]] = {f"infos/{name}": [] for name in spec.infos}
    for _ in range(spec.horizon):
        if scripted:
            actions.append(family.scripted_actions(observations[-1], tasks, rng, 0.5))
        else:
            actions.append(family.random_actions((count,), rng))
        step = simulator.step(actions[-1])
        observations.append(step.observations)
        rewards.append(step.rewards)
        ends.append(step.terminations)
        for name in spec.infos:
            infos[f"infos/{name}"].append(step.infos[name])

    def folded(parts: list[np.ndarray]) -> np.ndarray:
        array = np.stack(parts, axis=1)
        return array.reshape(trials, spec.episodes, *array.shape[1:])

    truncations = np.zeros((trials, spec.episodes, spec.horizon), bool)
    truncations[..., -1] = True
    return Trials.from_arrays(
        {
            "observations": folded(observations),
            "actions": folded(actions),
            "rewards": folded(rewards),
            "terminations": folded(ends),
            "truncations": truncations,
            **{name: folded(parts) for name, parts in infos.items()},
        }
    )


def write_borel(folder: Path, trials: Trials, n_actions: int | None = None, **changes: Any) -> None:
    """One task's folder: a flag behind observations, starts carried over, actions one-hot."""
    folder.mkdir(parents=True)
    before, after = trials.observations[:, :, :-1].copy(), trials.next_observations
    before[:, 1:, 0] = after[:, :-1, -1]
    flags = np.zeros((*trials.rewards.shape, 1), np.float32)
    flags[:, :, -1] = 1
    actions = trials.actions
    if n_actions is not None:
        actions = np.eye(n_actions, dtype=np.float32)[trials.actions[..., 0]]
    arrays = {
        "obs": np.concatenate([before, np.roll(flags, 1, axis=2)], axis=-1),
        "next_obs": np.concatenate([after, flags], axis=-1),
        "actions": actions,
        "rewards": trials.rewards[..., None],
        "terminals": trials.rewards[..., None] > 0,
    }
    for name, array in arrays.items():
        flat = array.reshape(-1, array.shape[-1])
        np.save(folder / f"{name}.npy", changes.get(name, flat))


def episode_rows(trials: Trials) -> list[dict[str, np.ndarray]]:
    """Every episode's arrays under IDAQ's names, each (H, dim)."""
    h = trials.horizon
    return [
        {
            "obs": trials.observations[n, k, :h],
            "actions": trials.actions[n, k],
            "rewards": trials.rewards[n, k, :, None],
            "next_obs": trials.observations[n, k, 1:],
        }
        for n in range(trials.count)
        for k in range(trials.episodes)
    ]


def write_idaq(folder: Path, trials: Trials, kind: str = "npz") -> None:
    """One task's folder of episode files: "npz", "columns", "fields", or the original "objects"."""
    folder.mkdir(parents=True)
    for number, rows in enumerate(episode_rows(trials)):
        path = folder / f"trj_evalsample{number}_step49500.npy"
        if kind == "npz":
            np.savez(path.with_suffix(".npz"), **rows)  # type: ignore[arg-type]
        elif kind == "columns":
            np.save(path, np.concatenate(list(rows.values()), axis=1))
        elif kind == "fields":
            dtype = [(name, array.dtype, array.shape[1:]) for name, array in rows.items()]
            whole = np.zeros(len(rows["obs"]), dtype)
            for name, array in rows.items():
                whole[name] = array
            np.save(path, whole)
        else:
            objects = np.empty((trials.horizon, 4), object)
            for step in range(trials.horizon):
                for column, array in enumerate(rows.values()):
                    objects[step, column] = array[step]
            np.save(path, objects, allow_pickle=True)


def write_minari_file(folder: Path, logs: Sequence[tuple[Any, Trials]]) -> Path:
    """A data set's folder as Minari lays it out; each log is (task or None, trials)."""
    path = folder / "data" / "main_data.hdf5"
    path.parent.mkdir(parents=True)
    number = 0
    with h5py.File(path, "w") as file:
        for task, trials in logs:
            for n in range(trials.count):
                for k in range(trials.episodes):
                    group = file.create_group(f"episode_{number}")
                    group.attrs["id"] = number
                    if task is not None:
                        group.attrs["task"] = task
                    group["observations"] = trials.observations[n, k]
                    actions = trials.actions[n, k]
                    group["actions"] = actions if actions.dtype.kind == "f" else actions[:, 0]
                    group["rewards"] = trials.rewards[n, k]
                    group["terminations"] = trials.terminations[n, k]
                    group["truncations"] = trials.truncations[n, k]
                    number += 1
    return path
