"""Stage 4, train-offline: offline RL on hyper-states.

A trial of T steps is T + 1 rows of one table, so the row after a step is its next hyper-state: the
true next observation inside an episode, the next episode's reset observation with the belief
carried on at its end, and the last observation at the end of the trial, which is a truncation and
bootstraps. The table is moved to the device once; a batch is three row gathers.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from algorithms.agent_files import BEST, FINAL, build_agent, describe_agent, save_weights
from algorithms.errors import DivergenceError
from algorithms.filtering import OnlineFilter
from algorithms.learners.base import Batch, Learner
from algorithms.rollouts import MetaAgent, roll_out
from algorithms.vae_files import load_vae
from datasets.checkpoints import CheckpointFile
from datasets.files import read_json
from datasets.hyper_states import HyperStates
from environments.registry import load_family
from stages.config import OfflineConfig
from stages.context import Interrupted, StageContext
from stages.errors import StageError
from stages.seeds import numpy_generator, torch_generator, torch_seed
from stages.tensorboard import scalar_writer


@dataclass(frozen=True)
class HyperStateTable:
    """All transitions on the device: rows of (trial, time).

    rows (trials * (T + 1), S); actions (trials * T, act); rewards, continues (trials * T,).
    """

    rows: Tensor
    actions: Tensor
    rewards: Tensor
    continues: Tensor
    steps: int

    @classmethod
    def load(cls, folder: Path, config: OfflineConfig, device: str) -> HyperStateTable:
        """Read the Zarr store into one table.

        Raises:
            StageError: R+ is asked for and the store has none.
            DataError: the store is damaged or larger than `memory_gb`.
        """
        store = HyperStates.open(folder / "hyper_states.zarr")
        reward = "belief_rewards" if config.use_belief_rewards else "rewards"
        if reward not in store.names:
            raise StageError(
                "offline.use_belief_rewards: the hyper-states hold no R+; "
                "set relabel.belief_rewards to true as well"
            )
        names = ["observations", "actions", "terminations", reward]
        budget = int(config.memory_gb * 2**30) // 2  # the table is a copy beside what is read
        data = store.load([*names, "beliefs"] if config.beliefs else names, budget)
        data["rewards"] = data.pop(reward)
        lead = data["rewards"].shape[:2]
        trials, steps = lead[0] * lead[1], int(np.prod(data["rewards"].shape[2:]))
        observations = data["observations"]
        opening = observations[..., :-1, :].reshape(trials, steps, -1)
        closing = observations[:, :, -1, -1].reshape(trials, 1, -1)
        parts = [np.concatenate([opening, closing], axis=1)]
        if config.beliefs:
            parts.append(data["beliefs"].reshape(trials, steps + 1, -1))
        rows = np.concatenate(parts, axis=-1).reshape(trials * (steps + 1), -1)
        actions = data["actions"].reshape(trials * steps, -1)
        if actions.dtype.kind in "iu":
            actions = actions[:, 0].astype(np.int64)
        return cls(
            rows=torch.from_numpy(rows).to(device),
            actions=torch.from_numpy(actions).to(device),
            rewards=torch.from_numpy(data["rewards"].reshape(-1)).to(device),
            continues=(1.0 - torch.from_numpy(data["terminations"].reshape(-1)).float()).to(device),
            steps=steps,
        )

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """`size` transitions drawn uniformly, with a leading agents axis of one."""
        drawn = torch.randint(
            len(self.rewards), (size,), generator=generator, device=self.rewards.device
        )
        trial = torch.div(drawn, self.steps, rounding_mode="floor")
        here = drawn + trial
        # the action that follows; at a trial's end there is none, and the last one stands in
        following = torch.where(drawn % self.steps == self.steps - 1, drawn, drawn + 1)
        return Batch(
            states=self.rows.index_select(0, here)[None],
            actions=self.actions.index_select(0, drawn)[None],
            rewards=self.rewards.index_select(0, drawn)[None],
            next_states=self.rows.index_select(0, here + 1)[None],
            continues=self.continues.index_select(0, drawn)[None],
            next_actions=self.actions.index_select(0, following)[None],
        )

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every hyper-state coordinate, (S,) each."""
        wide = self.rows.double()
        return wide.mean(0).float(), wide.std(0).float().clamp_min(1e-4)


class Evaluator:
    """Evaluates the agent in training on the test tasks, from the prior."""

    def __init__(self, vae_folder: Path, meta: Mapping[str, Any], seed: int, device: str) -> None:
        self._family = load_family(meta["family"])
        self._filter = OnlineFilter(load_vae(vae_folder, device))
        self._tasks = np.array(meta["tasks_test"], np.float64)
        self._episodes = int(meta["episodes"])
        self._seed, self._device = seed, device

    def returns(self, learner: Learner, beliefs: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return of each episode on each test task, (tasks, K); the same starts every time."""
        rng = numpy_generator(self._seed, "train-offline", "evaluation")
        agent = MetaAgent(learner, beliefs)
        return roll_out(
            self._family,
            self._tasks,
            agent,
            self._filter,
            self._episodes,
            "origin",
            rng,
            self._device,
        ).returns


class Training:
    """The state of one run: learner, random draws, curves, and the best weights so far."""

    def __init__(self, learner: Learner, draws: torch.Generator, config: OfflineConfig) -> None:
        self.learner, self.draws = learner, draws
        self._updates, self._decay = config.updates, config.learning_rate_decay
        self._rates = {name: adam.learning_rate for name, adam in learner.optimisers.items()}
        self.step = 0
        self.best = -np.inf
        self.metrics: list[dict[str, float]] = []
        self.evaluations: list[dict[str, float]] = []
        self.best_weights: dict[str, Tensor] = {}
        self.best_step = 0

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One gradient step at the learning rate that this step has."""
        if self._decay:
            factor = min(1.0, (1.0 - self.step / self._updates) / self._decay)
            for name, rate in self._rates.items():
                self.learner.optimisers[name].learning_rate = rate * factor
        self.step += 1
        return self.learner.update(batch)

    def save(self, file: CheckpointFile) -> None:
        """Write everything the next update depends on."""
        arrays = {f"learner.{k}": v.cpu().numpy() for k, v in self.learner.to_checkpoint().items()}
        arrays |= {f"best.{k}": v.cpu().numpy() for k, v in self.best_weights.items()}
        arrays["draws"] = self.draws.get_state().numpy()
        note = {
            "step": self.step,
            "best": self.best if self.best_weights else None,
            "best_step": self.best_step,
            "metrics": self.metrics,
            "evaluations": self.evaluations,
        }
        file.save(arrays, note)

    def restore(self, file: CheckpointFile) -> None:
        """Go on from a checkpoint, if there is one."""
        stored = file.load()
        if stored is None:
            return
        arrays, note = stored
        tensors = {k: torch.from_numpy(v) for k, v in arrays.items()}
        self.learner.from_checkpoint(_under("learner.", tensors))
        self.best_weights = _under("best.", tensors)
        self.draws.set_state(tensors["draws"])
        self.step, self.best_step = int(note["step"]), int(note["best_step"])
        self.best = -np.inf if note["best"] is None else float(note["best"])
        self.metrics, self.evaluations = note["metrics"], note["evaluations"]


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def train_offline(
    config: OfflineConfig,
    seed: int,
    inputs: Mapping[str, Path],
    output: Path,
    context: StageContext,
) -> None:
    """Train an agent on the hyper-states in `inputs`; writes weights, best weights and curves.

    Raises:
        StageError: settings that do not fit the data.
        DivergenceError: a loss became NaN or infinite; the last good checkpoint is kept.
        Interrupted: the user asked to stop; a checkpoint is saved.
    """
    torch.set_num_threads(context.threads)
    meta = read_json(inputs["hyper-states"] / "meta.json")
    family = load_family(meta["family"])
    table = HyperStateTable.load(inputs["hyper-states"], config, context.device)
    state_dim = table.rows.shape[1]
    describe_agent(
        output, config.learner, family.spec, state_dim, config.beliefs, int(meta["episodes"])
    )
    role = "agent" if config.beliefs else "blind"
    learner = build_agent(
        read_json(output / "agent.json"),
        torch_seed(seed, "train-offline", role, "learner"),
        context.device,
    )
    if config.normalise:
        learner.set_normalisation(*table.moments())
    draws = torch_generator(seed, "train-offline", role, "batches", device=context.device)
    training = Training(learner, draws, config)
    evaluator = Evaluator(inputs["vae"], meta, seed, context.device)
    file = CheckpointFile(context.checkpoints / "training.safetensors")
    training.restore(file)
    _train(training, table, evaluator, config, file, context)
    save_weights(output / FINAL, learner, training.step)
    learner.load_weights(training.best_weights)
    save_weights(output / BEST, learner, training.best_step)
    _write_curve(output / "metrics.csv", training.metrics)
    _write_curve(output / "evaluations.csv", training.evaluations)


def _train(
    training: Training,
    table: HyperStateTable,
    evaluator: Evaluator,
    config: OfflineConfig,
    file: CheckpointFile,
    context: StageContext,
) -> None:
    """Update until done; log, evaluate and checkpoint on the way."""
    saved = time.monotonic()
    label = "train-offline" if config.beliefs else "train-blind"
    totals: dict[str, Tensor] = {}
    with (
        scalar_writer(context.logs) as write,
        context.progress(config.updates, label, "update", training.step) as bar,
    ):
        pending = 0
        while training.step < config.updates:
            batch = table.sample(config.batch_size, training.draws)
            for name, value in training.update(batch).items():
                totals[name] = totals[name] + value if name in totals else value.clone()
            pending += 1
            last = training.step == config.updates
            if training.step % config.log_every == 0 or last:
                since = training.step % config.log_every or config.log_every
                row = _means(totals, since, training.step)
                training.metrics.append(row)
                write(row)
                totals = {}
                bar.advance(pending, _note(row, training))
                pending = 0
                # at a log point nothing is half summed, so this is where a run may be cut
                if training.step % config.evaluate_every < config.log_every or last:
                    write(_evaluate(training, evaluator, config.beliefs))
                overdue = time.monotonic() - saved > context.checkpoint_seconds
                if context.interrupted or overdue:
                    training.save(file)
                    saved = time.monotonic()
                if context.interrupted and not last:
                    raise Interrupted


def _means(totals: Mapping[str, Tensor], count: int, step: int) -> dict[str, float]:
    """Mean of every metric since the last log point; stops at once where one is not finite."""
    row = {"step": float(step)} | {k: float(v.mean()) / count for k, v in totals.items()}
    bad = [name for name, value in row.items() if not np.isfinite(value)]
    if bad:
        raise DivergenceError(
            f"train-offline: {bad[0]} is NaN or infinite near update {step}; the last good "
            "checkpoint is kept, a smaller offline.learner.learning_rate or a conservative rule "
            "(cql, iql, td3bc, rebrac) may help"
        )
    return row


def _evaluate(training: Training, evaluator: Evaluator, beliefs: bool) -> dict[str, float]:
    """One evaluation on the test tasks; keeps the best weights."""
    returns = evaluator.returns(training.learner, beliefs)
    total = returns.sum(1)
    row = {"step": float(training.step), "return_mean": float(total.mean())}
    row |= {f"episode_{k + 1}": float(r) for k, r in enumerate(returns.mean(0))}
    row |= {"return_min": float(total.min()), "return_max": float(total.max())}
    training.evaluations.append(row)
    if row["return_mean"] > training.best:
        training.best, training.best_step = row["return_mean"], training.step
        training.best_weights = {k: v.clone() for k, v in training.learner.weights().items()}
    return row


def _note(row: Mapping[str, float], training: Training) -> str:
    score = training.evaluations[-1]["return_mean"] if training.evaluations else float("nan")
    loss = next(value for name, value in row.items() if name.endswith("loss"))
    return f"loss {loss:.3g}, return {score:.1f}"


def _write_curve(path: Path, rows: list[dict[str, float]]) -> None:
    """Rows as CSV, one line a log point, steps as whole numbers."""
    with path.open("w", newline="") as file:
        names = list(rows[0]) if rows else ["step"]
        writer = csv.writer(file)
        writer.writerow(names)
        for row in rows:
            writer.writerow([int(row["step"]), *(f"{row[name]:.8g}" for name in names[1:])])
