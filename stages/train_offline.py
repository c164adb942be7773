"""Stage 4, train-offline: offline RL on hyper-states.

The hyper-states are one table on the device (`HyperStateTable`); a batch is three row gathers. On a
GPU drawing it and learning from it are one CUDA graph.
Tasks that do not all fit in there take turns (`Residents`). Which update rule learns from them is
one line of configuration. On the way the agent is evaluated on the test tasks; final and best
weights are both kept.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithms.agent_files import (
    BEST,
    FINAL,
    build_agent,
    describe_agent,
    save_description,
    save_weights,
)
from algorithms.belief_noise import with_belief_noise
from algorithms.capture import Captured, graphs_on
from algorithms.divergence import not_finite
from algorithms.errors import DivergenceError
from algorithms.filtering import OnlineFilter
from algorithms.learners.base import Batch, Learner
from algorithms.memory import keep_freed_memory
from algorithms.rollouts import MetaAgent, roll_out
from algorithms.vae_files import load_vae
from datasets.checkpoints import CheckpointFile
from datasets.files import fail_point, read_json
from environments.processes import ClosingSimulator, parallel_simulator
from environments.registry import load_family
from models.kernels.parts import torch_resting
from stages.config import OfflineConfig
from stages.context import Interrupted, StageContext
from stages.errors import StageError
from stages.precision import products
from stages.residents import Residents
from stages.seeds import numpy_generator, torch_generator, torch_seed
from stages.stored_tasks import StoredTasks
from stages.tensorboard import scalar_writer

Row = dict[str, float]
Sample = Callable[[torch.Generator], Batch]


class Evaluator:
    """Evaluates the agent in training on the test tasks, from the prior and from the origin."""

    def __init__(
        self, vae_folder: Path, meta: Mapping[str, Any], seed: int, device: str, workers: int = 1
    ) -> None:
        """Load the belief encoder.

        Raises:
            StageError: the hyper-states come from a model with another latent size.
        """
        self._family = load_family(meta["family"])
        vae = load_vae(vae_folder, device)
        found, wanted = meta["hyper_states"]["latent_dim"], vae.encoder.latent_dim
        if found != wanted:
            raise StageError(
                f"train-offline: the hyper-states have latent_dim {found}, the model has {wanted}; "
                "relabel with this model first"
            )
        self._filter = OnlineFilter(vae)
        self._tasks = np.array(meta["tasks_test"], np.float64)
        self._episodes = int(meta["episodes"])
        self._seed, self._device = seed, device
        self._name, self._workers = meta["family"], workers
        self._simulator: ClosingSimulator | None = None

    def close(self) -> None:
        """Let go of the simulator's processes, if there are any."""
        if self._simulator is not None:
            self._simulator.close()

    def returns(self, agent: MetaAgent) -> NDArray[np.float64]:
        """Return of each episode on each test task, (tasks, K)."""
        rng = numpy_generator(self._seed, "train-offline", "evaluation")  # the same every time
        if self._simulator is None:
            self._simulator = parallel_simulator(
                self._name, self._family, self._tasks, "origin", self._workers
            )
        return roll_out(
            self._family,
            self._tasks,
            agent,
            self._filter,
            self._episodes,
            "origin",
            rng,
            self._device,
            self._simulator,
        ).returns


class Training:
    """The state of one run: learner, random draws, curves, and the best weights so far.

    `actor` is the learner itself, or another one whose weights are a moving average of its.
    """

    def __init__(
        self,
        learner: Learner,
        actor: Learner,
        sample: Sample,
        draws: torch.Generator,
        config: OfflineConfig,
        folder: Path,
    ) -> None:
        """Start at update 0; batches are what `sample` draws, checkpoints go to `folder`."""
        self._learn: Captured[tuple[()], dict[str, Tensor]] = Captured(
            lambda _: learner.learn(sample(draws)),
            graphs_on(learner.device, (learner.generator, draws)),
        )
        self.learner, self.actor, self.draws, self.config = learner, actor, draws, config
        if actor is not learner:
            actor.load_weights(learner.weights())
        self._averages = list(actor.weights().values())  # live tensors
        self._newest = list(learner.weights().values())
        self.file = CheckpointFile(folder / "training.safetensors")
        self.step = 0
        self.saved_step: int | None = None
        self.best = -np.inf
        self.best_step = 0
        self.best_weights: dict[str, Tensor] = {}
        self.metrics: list[Row] = []
        self.evaluations: list[Row] = []
        self._totals: dict[str, Tensor] = {}  # of the metrics since the last log point, (1,) each
        self._check_every = 1 if learner.device.type == "cpu" else config.log_every

    @property
    def finished(self) -> bool:
        """Whether all updates are done."""
        return self.step >= self.config.updates

    @property
    def agent(self) -> MetaAgent:
        """The agent as it stands."""
        return MetaAgent(self.actor, self.config.beliefs)

    def update(self) -> None:
        """One gradient step at the learning rate that this step has.

        Raises:
            DivergenceError: a loss is not finite; checked at every step where that is free.
        """
        if self.config.learning_rate_decay:
            left = 1.0 - self.step / self.config.updates
            factor = min(1.0, left / self.config.learning_rate_decay)
            for optimiser in self.learner.optimisers.values():
                optimiser.schedule(factor)
        totals = self._totals
        self.learner.updates += 1  # here: what is replayed counts nothing in Python
        for name, value in self._learn((), self.learner.phase).items():
            totals[name] = totals[name] + value if name in totals else value.clone()
        self.step += 1
        if self.actor is not self.learner:
            # at first a plain mean, so that the initial weights are soon forgotten
            rate = max(self.config.weight_averaging, 1.0 / (self.step + 1))
            torch._foreach_lerp_(self._averages, self._newest, rate)
        if self.step % self._check_every == 0:
            self._check({name: total for name, total in totals.items() if name.endswith("loss")})

    def log(self) -> Row:
        """A row of the metrics' means since the last log point."""
        self._check(self._totals)
        count = self.step % self.config.log_every or self.config.log_every
        row = {"step": float(self.step)}
        row |= {name: float(total.mean()) / count for name, total in self._totals.items()}
        self.metrics.append(row)
        self._totals = {}
        return row

    def evaluate(self, evaluator: Evaluator) -> Row:
        """One evaluation on the test tasks; keeps the best weights."""
        self._check(self.actor.weights())
        returns = evaluator.returns(self.agent)
        total = returns.sum(1)
        row = {"step": float(self.step), "return_mean": float(total.mean())}
        row |= {f"episode_{k + 1}": float(r) for k, r in enumerate(returns.mean(0))}
        row |= {"return_min": float(total.min()), "return_max": float(total.max())}
        self.evaluations.append(row)
        if row["return_mean"] > self.best:
            self.best, self.best_step = row["return_mean"], self.step
            self.best_weights = {k: v.clone() for k, v in self.actor.weights().items()}
        return row

    def save(self) -> None:
        """Write everything the next update depends on.

        Raises:
            DivergenceError: a weight is not finite; the checkpoint before is kept.
        """
        tensors = {f"learner.{k}": v for k, v in self.learner.to_checkpoint().items()}
        self._check(tensors)
        if self.actor is not self.learner:
            tensors |= {f"actor.{k}": v for k, v in self.actor.weights().items()}
        tensors |= {f"best.{k}": v for k, v in self.best_weights.items()}
        tensors |= {f"totals.{k}": v for k, v in self._totals.items()}
        tensors["draws"] = self.draws.get_state()
        note = {
            "step": self.step,
            "best": self.best if self.best_weights else None,
            "best_step": self.best_step,
            "metrics": _packed(self.metrics),
            "evaluations": _packed(self.evaluations),
            "totals": list(self._totals),
        }
        self.file.save({name: tensor.cpu().numpy() for name, tensor in tensors.items()}, note)
        self.saved_step = self.step

    def restore(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        stored = self.file.load()
        if stored is None:
            return
        arrays, note = stored
        tensors = {k: torch.from_numpy(v) for k, v in arrays.items()}
        self.learner.from_checkpoint(_under("learner.", tensors))
        if self.actor is not self.learner:
            self.actor.load_weights(_under("actor.", tensors))
        self.best_weights = _under("best.", tensors)
        totals = _under("totals.", tensors)
        self._totals = {name: totals[name].to(self.learner.device) for name in note["totals"]}
        self.draws.set_state(tensors["draws"])
        self.step, self.best_step = int(note["step"]), int(note["best_step"])
        self.saved_step = self.step
        self.best = -np.inf if note["best"] is None else float(note["best"])
        self.metrics, self.evaluations = _rows(note["metrics"]), _rows(note["evaluations"])

    def _check(self, tensors: Mapping[str, Tensor]) -> None:
        bad = not_finite(tensors)
        if bad is None:
            return
        kept = "no checkpoint was saved before"
        if self.saved_step is not None:
            kept = f"the checkpoint of update {self.saved_step} is kept in {self.file.path}"
        raise DivergenceError(
            f"train-offline: {bad} became NaN or infinite by update {self.step}; {kept}. A smaller "
            "offline.learner.learning_rate or a conservative rule (cql, iql, td3bc, rebrac) may "
            "help"
        )


def _packed(rows: list[Row]) -> list[list[Any]]:
    """Names, then values: JSON objects would not keep the columns' order."""
    return [list(rows[0]), *(list(row.values()) for row in rows)] if rows else []


def _rows(packed: list[list[Any]]) -> list[Row]:
    """The inverse of `_packed`."""
    return [dict(zip(packed[0], values, strict=True)) for values in packed[1:]]


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
        StageError: settings that do not fit the data, or hyper-states of another model.
        DataError: the hyper-states are damaged.
        AlgorithmError: the rule does not fit the kind of actions.
        DivergenceError: a loss became NaN or infinite; the last good checkpoint is kept.
        Interrupted: the user asked to stop; a checkpoint is saved.
    """
    torch.set_num_threads(context.threads)
    keep_freed_memory()
    meta = read_json(inputs["hyper-states"] / "meta.json")
    evaluator = Evaluator(inputs["vae"], meta, seed, context.device, context.workers)
    role = "agent" if config.beliefs else "blind"
    order = numpy_generator(seed, "train-offline", role, "rotation")
    tasks = StoredTasks(inputs["hyper-states"], config)
    residents = Residents(tasks, config, order, context.device)
    spec = load_family(meta["family"]).spec
    width = residents.table.rows.shape[1]
    description = describe_agent(config.learner, spec, width, config.beliefs, int(meta["episodes"]))
    weights_seed = torch_seed(seed, "train-offline", role, "learner")
    learner = build_agent(description, weights_seed, context.device)
    noise = config.belief_noise if config.beliefs else 0.0
    deviation: Tensor | None = None
    if config.normalise or noise:
        mean, deviation = residents.moments()
        if config.normalise:
            learner.set_normalisation(mean, deviation)
    draws = torch_generator(seed, "train-offline", role, "batches", device=context.device)
    actor = learner
    if config.weight_averaging:
        actor = build_agent(description, weights_seed, context.device)
    sample: Sample = partial(residents.table.sample, config.batch_size)
    if noise and deviation is not None:
        spread = noise * deviation[spec.observation_dim :].to(context.device)
        sample = _with_noise(sample, spread)
    training = Training(learner, actor, sample, draws, config, context.checkpoints)
    training.restore()
    with products(context.device, context.precision), closing(evaluator):
        _train(training, residents, evaluator, context)
    save_description(output, description)
    save_weights(output / FINAL, actor, training.step)
    actor.load_weights(training.best_weights)
    save_weights(output / BEST, actor, training.best_step)
    _write_curve(output / "metrics.csv", training.metrics)
    _write_curve(output / "evaluations.csv", training.evaluations)


def _with_noise(sample: Sample, deviations: Tensor) -> Sample:
    """A sampler whose beliefs are noisy, with deviations (2L,)."""

    def noisy(generator: torch.Generator) -> Batch:
        return with_belief_noise(sample(generator), deviations, generator)

    return noisy


def _train(
    training: Training, residents: Residents, evaluator: Evaluator, context: StageContext
) -> None:
    """Update until done; log, evaluate and checkpoint on the way."""
    config = training.config
    label = "train-offline" if config.beliefs else "train-blind"
    saved, note = time.monotonic(), ""
    with (
        scalar_writer(context.logs) as write,
        context.progress(config.updates, label, "update", training.step) as bar,
        torch_resting(training.learner.compiles),
    ):
        while not training.finished:
            residents.turn_to(training.step)
            training.update()
            if training.step % config.log_every == 0 or training.finished:
                write(training.log())
                note = _note(training)
                fail_point("train-offline-log")
            if training.step % config.evaluate_every == 0 or training.finished:
                write(training.evaluate(evaluator))
                note = _note(training)
            bar.advance(1, note)
            overdue = time.monotonic() - saved > context.checkpoint_seconds
            if overdue or context.interrupted or training.finished:
                training.save()
                saved = time.monotonic()
            if context.interrupted and not training.finished:
                raise Interrupted("train-offline: stopped after an update")


def _note(training: Training) -> str:
    """What stands behind the progress bar: the newest loss and score."""
    parts = []
    if training.metrics:
        losses = (v for k, v in training.metrics[-1].items() if k.endswith("loss"))
        parts.append(f"loss {next(losses):.3g}")
    if training.evaluations:
        parts.append(f"return {training.evaluations[-1]['return_mean']:.1f}")
    return ", ".join(parts)


def _write_curve(path: Path, rows: list[Row]) -> None:
    """Rows as CSV, one line a log point, steps as whole numbers."""
    with path.open("w", newline="") as file:
        names = list(rows[0])
        writer = csv.writer(file)
        writer.writerow(names)
        for row in rows:
            writer.writerow([int(row["step"]), *(f"{row[name]:.8g}" for name in names[1:])])
