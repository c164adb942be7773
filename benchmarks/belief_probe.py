"""Where ML1's returns are lost: what beliefs know of the goal, and what rewards they expect.

    python -m benchmarks.belief_probe            # every complete run of an ml1/ preset in the store
    python -m benchmarks.belief_probe RUN --write  # and adds it to docs/belief_probe.json

A ridge regression on the belief's mean (its products in pairs too) is fitted to the goals of the
training tasks, at the ends of the episodes of the logs and of their relabelled copies. Its errors
there, on tasks that it was not fitted to, are what can be expected: in *logs* somebody who knows
the goal stands at it; the first episodes of *copies* are led by donors, who stand elsewhere. Held
against them: the error on the test tasks after every episode of the agent's own, and after the
offline episodes that *given context* shows. Where the agent's error is that of the copies, the
belief makes of its steps what it learned to; where it is larger, its steps are unlike the data.

The reward that the belief expects of each step, before the step, is held against the one received:
an expected reward above the received one is a belief that takes failing for succeeding.
`benchmarks.results` prints the file as a table.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from algorithms.filtering import belief_rewards, encode_trials
from algorithms.rollouts import gather_context
from algorithms.vae_files import load_vae
from datasets.checkpoints import load_tensors
from datasets.files import write_atomically
from datasets.hyper_states import HyperStates
from datasets.trial_store import CollectionMeta, read_meta
from datasets.trials import Trials
from environments.processes import parallel_simulator
from environments.registry import load_family
from models.vae import Vae
from pipeline.config import RunConfig
from pipeline.errors import StoreError
from pipeline.records import RunRecord, list_records, read_record
from pipeline.store import Store, default_root
from stages.seeds import numpy_generator, torch_generator

Float64 = NDArray[np.float64]

PATH = Path(__file__).resolve().parent.parent / "docs" / "belief_probe.json"
_FOLDS = 5
_RIDGE = 1.0  # beside features of unit variance and hundreds of rows: only against collinear ones
_CLIP = 4.0  # deviations, beyond which a quadratic would extrapolate
_BLOCK = 8  # trials encoded at once
_LATENTS = 20


class Probe:
    """Ridge regression from belief means (n, L) to goals (n, g)."""

    def __init__(self, means: Float64, goals: Float64) -> None:
        self._centre, self._scale = means.mean(0), means.std(0) + 1e-8
        features = self._features(means)
        penalty = _RIDGE * np.eye(features.shape[1])
        penalty[0, 0] = 0.0  # the constant is free
        self._weights = np.linalg.solve(features.T @ features + penalty, features.T @ goals)

    def errors(self, means: Float64, goals: Float64) -> Float64:
        """Distance of the goals read off the beliefs from the true ones, (n,)."""
        found: Float64 = np.linalg.norm(self._features(means) @ self._weights - goals, axis=-1)
        return found

    def _features(self, means: Float64) -> Float64:
        scaled = np.clip((means - self._centre) / self._scale, -_CLIP, _CLIP)
        first, second = np.triu_indices(scaled.shape[-1])
        pairs = scaled[:, first] * scaled[:, second]
        return np.concatenate([np.ones((len(scaled), 1)), scaled, pairs], 1)


def held_out_errors(means: Float64, goals: Float64, tasks: NDArray[np.int64]) -> Float64:
    """Errors on tasks that a probe was not fitted to, (n,): of (n, L), (n, g) and task numbers."""
    errors = np.empty(len(means))
    for fold in range(_FOLDS):
        out = tasks % _FOLDS == fold
        errors[out] = Probe(means[~out], goals[~out]).errors(means[out], goals[out])
    return errors


class Ends(NamedTuple):
    """Belief means at the ends of episodes, and whose goals they are of."""

    means: Float64  # (n, L)
    goals: Float64  # (n, g)
    tasks: NDArray[np.int64]  # (n,)

    def joined(self, other: Ends) -> Ends:
        """Both, one after the other."""
        return Ends(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


def goals_of(tasks: NDArray[np.float64]) -> Float64:
    """The last three numbers of ML1 tasks (n, 6), in metres."""
    return np.asarray(tasks[:, 3:], np.float64)


def probe_run(record: RunRecord, store: Store) -> dict[str, Any]:
    """All figures of one complete run; distances in centimetres.

    Raises:
        StoreError: it is no complete run of a Meta-World task set.
    """
    if record.status != "complete" or not record.domain.startswith("ml1/"):
        raise StoreError(f"{record.name} is not a complete run of an ml1/ preset")
    folders = {step: _folder(store, name) for step, name in record.artefacts.items()}
    config = RunConfig.model_validate(record.config)
    meta = read_meta(folders["collect"])
    vae = load_vae(folders["train-vae"], "cpu")
    logs, copies = _known(folders["relabel"], meta, config.relabel.relabelled_copies)
    means, goals, numbers = logs.joined(copies)
    probe, test_goals = Probe(means, goals), goals_of(meta.tasks_test)
    errors = held_out_errors(means, goals, numbers)
    led = errors[len(logs.means) :]
    arrays, _ = load_tensors(folders["evaluate"] / "rollouts.safetensors")
    count = len(arrays["rewards"]) // len(test_goals)  # trials a task
    own = np.repeat(test_goals, count, 0)
    ends = _ends(arrays["beliefs"], meta.horizon)
    spread = np.linalg.norm(test_goals - goals_of(meta.tasks_train).mean(0), axis=1).mean()
    found: dict[str, Any] = {
        "spread": 100 * float(spread),
        "logs": 100 * float(errors[: len(logs.means)].mean()),
        "copies": 100 * float(led.mean()) if len(led) else None,
        "own": [100 * float(probe.errors(belief, own).mean()) for belief in ends],
        "given": None,
    }
    episodes = config.evaluate.context_episodes
    if episodes:
        noise = config.evaluate.context_noise
        beliefs = _given(vae, meta, record.seed, episodes, noise)
        found["given"] = 100 * float(probe.errors(beliefs, test_goals).mean())
    return found | _rewards(vae, meta, arrays)


def _folder(store: Store, reference: str) -> Path:
    artefact = store.find(*store.parse(reference))
    if artefact is None:
        raise StoreError(f"{reference} is not in the store {store.root}")
    return artefact.folder


def _known(hyper_states: Path, meta: CollectionMeta, copies: int) -> tuple[Ends, Ends]:
    """Of the training tasks: ends of all logged episodes, and of those that donors lead."""
    store = HyperStates.open(hyper_states / "hyper_states.zarr")
    logged = store.layout.trials // (1 + copies)
    lead = max(1, meta.episodes // 2)
    found: tuple[list[Float64], list[Float64]] = [], []
    for task in range(store.layout.tasks):
        ends = _ends(store.read(["beliefs"], task)["beliefs"], meta.horizon)  # (K, trials, L)
        found[0].append(np.concatenate(list(ends[:, :logged])))
        found[1].append(np.concatenate(list(ends[:lead, logged:])))
    goals = goals_of(meta.tasks_train)
    parts = []
    for means in found:
        tasks = np.repeat(np.arange(len(means)), [len(part) for part in means])
        parts.append(Ends(np.concatenate(means), goals[tasks], tasks))
    return parts[0], parts[1]


def _ends(beliefs: NDArray[np.float32], horizon: int) -> Float64:
    """Belief means after each episode, (K, n, L), of beliefs (n, T + 1, 2L)."""
    latent = beliefs.shape[-1] // 2
    ends = beliefs[:, horizon::horizon, :latent]
    return np.asarray(ends.transpose(1, 0, 2), np.float64)


def _given(vae: Vae, meta: CollectionMeta, seed: int, episodes: int, noise: float) -> Float64:
    """Belief means of the test tasks after the episodes that evaluation shows, (n, L)."""
    family, tasks = load_family(meta.family), meta.tasks_test
    rng = numpy_generator(seed, "evaluate", "context")
    with parallel_simulator(meta.family, family, tasks, "origin") as simulator:
        shown = gather_context(family, tasks, simulator, episodes, noise, rng)
    trials = _trials(shown.observations, shown.actions, shown.rewards)
    return np.asarray(_ends(encode_trials(vae, trials, _BLOCK), meta.horizon)[-1])


def _trials(
    observations: NDArray[np.float32], actions: NDArray[Any], rewards: NDArray[np.float32]
) -> Trials:
    never = np.zeros(rewards.shape, np.bool_)
    return Trials(observations, actions, rewards, never, never)


def _rewards(vae: Vae, meta: CollectionMeta, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Expected against received rewards of the agent's own steps, episode by episode."""
    rewards = np.asarray(arrays["rewards"], np.float64)
    trials = _trials(arrays["observations"], arrays["actions"], arrays["rewards"])
    generator = torch_generator(0, "belief-probe", "latents")
    family = load_family(meta.family)
    told = belief_rewards(vae, trials, arrays["beliefs"], family, _LATENTS, generator, _BLOCK)
    gaps = np.asarray(told, np.float64).reshape(rewards.shape) - rewards
    return {
        "reward_deviation": float(rewards.std()),
        "reward_error": np.sqrt((gaps**2).mean((0, 2))).tolist(),
        "reward_bias": gaps.mean((0, 2)).tolist(),
    }


def read_probes(path: Path = PATH) -> dict[str, Any]:
    """What was found, by run; empty where nothing was."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def main(arguments: list[str] | None = None, path: Path = PATH) -> int:
    """Probe runs, say what was found, and with --write keep it."""
    parser = argparse.ArgumentParser(prog="benchmarks.belief_probe", description=__doc__)
    parser.add_argument("runs", metavar="RUN", nargs="*")
    parser.add_argument("--write", action="store_true", help="add the figures to the file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    store = Store(default_root())
    rows = read_probes(path)
    for name in options.runs or _all_runs(store):
        record = read_record(store, name)
        row = probe_run(record, store)
        rows[name] = row | {"scores": record.artefacts["evaluate"]}
        sys.stdout.write(f"{name}: {_sentence(row)}\n")
        sys.stdout.flush()
    if options.write:
        write_atomically(path, (json.dumps(rows, indent=2, sort_keys=True) + "\n").encode())
    return 0


def _all_runs(store: Store) -> list[str]:
    records = list_records(store)
    return [r.name for r in records if r.status == "complete" and r.domain.startswith("ml1/")]


def _sentence(row: dict[str, Any]) -> str:
    own = ", ".join(f"{error:.1f}" for error in row["own"])
    bias = ", ".join(f"{gap:+.2f}" for gap in row["reward_bias"])
    given, copies = ("-" if x is None else f"{x:.1f}" for x in (row["given"], row["copies"]))
    return (
        f"goal known to {own} cm after its own episodes, {given} after given context, "
        f"{copies} after donors, {row['logs']:.1f} in logs (spread {row['spread']:.1f}); expected "
        f"minus received reward {bias} (deviation {row['reward_deviation']:.2f})"
    )


if __name__ == "__main__":
    raise SystemExit(main())
