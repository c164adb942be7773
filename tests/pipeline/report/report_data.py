"""Small folders with everything that the stages write, made up but of the right shapes."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.checkpoints import save_tensors
from datasets.files import write_json
from environments.base import TaskFamily
from environments.registry import load_family
from pipeline.report.sources import ArtefactFacts, SeedFolders

LATENT = 5
MakeSeed = Callable[..., SeedFolders]


def seed_maker(root: Path) -> MakeSeed:
    """Writes one seed's artefacts below `root`: `make_seed("gridworld", seed=0)`."""

    def make(family: str, seed: int = 0, level: float = 0.9, tasks: int = 6) -> SeedFolders:
        folder = root / f"{family}-{seed}-{level}"
        return write_seed(folder, load_family(family), seed, level, tasks)

    return make


def write_seed(root: Path, family: TaskFamily, seed: int, level: float, count: int) -> SeedFolders:
    """All artefacts of one seed; the agent acts as an oracle whose noise falls with `level`."""
    rng = np.random.default_rng(seed)
    tasks = family.sample_tasks(count, np.random.default_rng(0))
    folders = {kind: root / kind for kind in ("trials", "vae", "agent", "scores")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    _write_curves(folders, family, rng)
    observations, actions, rewards = roll(family, tasks, rng, 1 - level)
    _write_scores(folders["scores"], family, tasks, rewards, rng)
    save_tensors(
        folders["scores"] / "rollouts.safetensors",
        {
            "observations": observations,
            "actions": actions,
            "rewards": rewards,
            "beliefs": _beliefs(family, tasks, rng),
        },
        {},
    )
    _write_diagnostics(folders["vae"], family, tasks, rng)
    return SeedFolders(seed, folders, lineage(seed))


def roll(
    family: TaskFamily, tasks: Any, rng: np.random.Generator, noise: float
) -> tuple[Any, Any, Any]:
    """Noisy oracle or random trials: observations (tasks, K, H + 1, obs), actions, rewards."""
    spec = family.spec
    simulator = family.simulator(tasks)
    lead = (len(tasks), spec.episodes, spec.horizon)
    observations = np.zeros((*lead[:2], spec.horizon + 1, spec.observation_dim), np.float32)
    actions = np.zeros((*lead, spec.action_dim), np.float32 if spec.n_actions is None else np.int64)
    rewards = np.zeros(lead, np.float32)
    for k in range(spec.episodes):
        observations[:, k, 0] = simulator.reset(rng)
        for h in range(spec.horizon):
            if family.has_oracle:
                action = family.scripted_actions(observations[:, k, h], tasks, rng, noise)
            else:
                action = family.random_actions((len(tasks),), rng)
            actions[:, k, h] = action
            step = simulator.step(action)
            observations[:, k, h + 1], rewards[:, k, h] = step.observations, step.rewards
    return observations, actions, rewards


def _write_scores(
    folder: Path, family: TaskFamily, tasks: Any, rewards: Any, rng: np.random.Generator
) -> None:
    returns = rewards.sum(axis=2).astype(float)
    returns[:, 0] *= 0.6
    by_policy = {
        "agent": returns,
        "agent_best": returns + 0.2,
        "blind": returns * 0.5 - rng.random(returns.shape),
    }
    scripted = {"oracle": family.oracle_returns(tasks), "search": family.search_returns(tasks)}
    by_policy |= {name: values for name, values in scripted.items() if values is not None}
    write_json(
        folder / "scores.json",
        {
            "domain": family.spec.name,
            "protocol": {
                "task_count": len(tasks),
                "test_tasks_seen": family.spec.name == "gridworld",
                "start": "origin",
                "episodes": family.spec.episodes,
                "horizon": family.spec.horizon,
                "policy": "deterministic",
                "checkpoint": "final",
            },
            "tasks": tasks.tolist(),
            "returns": {name: values.tolist() for name, values in by_policy.items()},
            "success": {
                "agent": [1.0] * (len(tasks) - 1) + [0.0],
                "agent_best": [1.0] * len(tasks),
            },
        },
    )


def _beliefs(family: TaskFamily, tasks: Any, rng: np.random.Generator) -> Any:
    steps = family.spec.episodes * family.spec.horizon + 1
    unit = (tasks - tasks.min(0)) / np.ptp(tasks, axis=0)
    means = (unit @ rng.normal(size=(tasks.shape[1], LATENT)))[:, None]
    progress = 1 - np.exp(-np.arange(steps) / 8)[None, :, None]
    mean = means * progress + 0.05 * rng.normal(size=(len(tasks), steps, LATENT))
    log_variance = -4 * progress + 0.2 * rng.normal(size=mean.shape)
    return np.concatenate([mean, log_variance], axis=-1).astype(np.float32)


def _write_diagnostics(
    folder: Path, family: TaskFamily, tasks: Any, rng: np.random.Generator
) -> None:
    observations, _, rewards = roll(family, tasks, rng, 0.8)
    count, steps = len(tasks), rewards[0].size
    truth = rewards.reshape(count, steps)
    trust = 1 - np.exp(-np.arange(steps) / 10)
    arrays: dict[str, Any] = {
        "rewards": truth,
        "reward_predictions": (truth * trust + 0.05 * rng.normal(size=truth.shape)).astype("f4"),
    }
    if family.spec.binary_reward:
        bins = {"predicted": [0.02, 0.5, 0.96], "observed": [0.01, 0.6, 0.99], "counts": [90, 5, 9]}
        arrays |= {f"reliability_{name}": np.array(values) for name, values in bins.items()}
    if family.spec.cells:
        cells = family.cell(observations[:, :, 1:]).reshape(count, steps)
        exact = family.posterior(cells, truth)  # type: ignore[attr-defined]
        arrays["posterior"] = exact.astype("f4")
        noisy = np.clip(0.9 * exact + 0.02 * rng.random(exact.shape), 0, 1)
        arrays["cell_probabilities"] = noisy.astype("f4")
    save_tensors(folder / "diagnostics.safetensors", arrays, {})


def _write_curves(
    folders: Mapping[str, Path], family: TaskFamily, rng: np.random.Generator
) -> None:
    steps = np.arange(0, 2001, 50)
    fall = np.exp(-steps / 500)

    def noisy(values: Any) -> Any:
        return values * (1 + 0.05 * rng.random(len(steps)))

    gap = np.where(steps % 500 == 0, noisy(0.1 + fall), np.nan)
    write_csv(
        folders["trials"] / "metrics.csv",
        {
            "step": steps,
            "return_mean": noisy(9 - 9 * fall),
            "return_p10": 7 - 9 * fall,
            "return_median": 9 - 9 * fall,
            "return_p90": 11 - 9 * fall,
        },
    )
    write_csv(
        folders["vae"] / "metrics.csv",
        {
            "step": steps,
            "train_loss": noisy(60 * fall + 1),
            "validation_loss": 70 * gap,
            "train_kl": noisy(3 - fall),
            "validation_kl": 3 * gap,
        },
    )
    write_csv(folders["agent"] / "metrics.csv", {"step": steps, "loss": noisy(fall)})
    write_csv(
        folders["agent"] / "evaluations.csv",
        {
            "step": steps[::5],
            "return_mean": noisy(30 - 25 * fall)[::5],
            "episode_1": noisy(6 - 5 * fall)[::5],
            "episode_2": noisy(9 - 7 * fall)[::5],
            "return_min": (25 - 27 * fall)[::5],
            "return_max": (35 - 23 * fall)[::5],
        },
    )


def write_csv(path: Path, columns: Mapping[str, Any]) -> None:
    """Columns as CSV, NaN as an empty cell."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(["" if np.isnan(value) else value for value in row])


def lineage(seed: int) -> tuple[ArtefactFacts, ...]:
    """Five artefacts that refer to each other; the first does not depend on the seed."""

    def facts(stage: str, kind: str, inputs: Sequence[str], own: int = seed) -> ArtefactFacts:
        return ArtefactFacts(
            stage=stage,
            kind=kind,
            fingerprint=f"{own:020x}",
            digest=f"{own:064x}",
            seed=own,
            config={"learning_rate": 3e-4, "model": {"layers": [32, 32]}, "note": "<b>ü</b>"},
            inputs={name: f"{name}/{own:020x}" for name in inputs},
            versions={"python": "3.11.7", "torch": "2.13.0"},
            seconds=75.0,
            finished="2026-11-21T09:00:00+00:00",
            size=1_250_000,
        )

    return (
        facts("collect", "trials", (), 0),
        facts("train-vae", "vae", ("trials",)),
        facts("relabel", "hyper-states", ("trials", "vae")),
        facts("train-offline", "agent", ("hyper-states", "vae")),
        facts("evaluate", "scores", ("trials", "vae", "agent")),
    )
