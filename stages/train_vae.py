"""Stage 2, train-vae: the belief encoder and its decoders, from logged trials alone.

Every update draws tasks, trials of each, relabels rewards across tasks (RR) and descends the
negative ELBO. On a GPU an update is one CUDA graph, which reads the batch that the host has made
while the one before was running. Nothing is read from the device between log points, except that on
a CPU, where it is free, every loss is checked.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from algorithms.capture import Captured, graphs_on
from algorithms.donor_plans import load_plan
from algorithms.elbo import ElboTerms, elbo
from algorithms.elbo_batch import ElboBatch, check_likelihood
from algorithms.errors import DivergenceError
from algorithms.memory import keep_freed_memory
from algorithms.optimisers import Optimiser, optimise
from algorithms.relabelling import check_relabelling
from algorithms.vae_diagnostics import diagnose
from algorithms.vae_files import VaeDescription, describe, save_vae
from datasets.checkpoints import CheckpointFile, save_tensors
from datasets.files import write_json
from datasets.trial_store import read_meta
from environments.base import TaskFamily
from environments.registry import load_family
from models.kernels.parts import takes, torch_resting
from models.vae import Vae
from stages.config import VaeConfig
from stages.context import Interrupted, StageContext
from stages.precision import products
from stages.seeds import numpy_generator, torch_generator
from stages.tensorboard import scalar_writer
from stages.trial_table import TrialTable
from stages.vae_batches import TERMS, BatchSource

COLUMNS = ("step", *(f"{part}_{term}" for term in TERMS for part in ("train", "validation")))

_DIAGNOSED_TRIALS = 128
_DIAGNOSIS_SAMPLES = 32

Row = dict[str, float]


class Training:
    """The state of one run: everything that the next update depends on."""

    def __init__(self, vae: Vae, source: BatchSource, config: VaeConfig, folder: Path) -> None:
        self.vae, self.source, self.config = vae, source, config
        self.optimiser = _optimiser(vae, config)
        self.file = CheckpointFile(folder / "training.safetensors")
        self.step = 0
        self.rows: list[Row] = []
        self.saved_step = 0
        device = next(vae.parameters()).device
        self._totals = torch.zeros(len(TERMS), device=device)  # since the last log point
        self._summed = 0
        self._check_every = 1 if device.type == "cpu" else config.log_every
        self._descend = Captured(self._learn_from, graphs_on(device, [source.noise]))

    def update(self) -> None:
        """One gradient step; stops where the loss is not finite."""
        if self.config.learning_rate_decay:
            share = self.step / self.config.updates
            self.optimiser.schedule(0.5 * (1 + math.cos(math.pi * share)))
        self._descend(self.source.draw())
        self._summed += 1
        self.step += 1
        if self.step % self._check_every == 0:
            self._check(self._totals)

    def log(self, validate: bool) -> Row:
        """A row of the means since the last log point, and of the validation losses if asked."""
        row: Row = {"step": self.step}
        if self._summed and (self.step % self.config.log_every == 0 or self.finished):
            self._check(self._totals)
            means = (self._totals / self._summed).tolist()
            row |= {f"train_{term}": mean for term, mean in zip(TERMS, means, strict=True)}
            self._totals.zero_()
            self._summed = 0
        if validate:
            means = self.source.validate(self.vae)
            self._check(torch.tensor(means))
            row |= {f"validation_{term}": mean for term, mean in zip(TERMS, means, strict=True)}
        self.rows.append(row)
        return row

    @property
    def finished(self) -> bool:
        """Whether all updates are done."""
        return self.step >= self.config.updates

    def save(self) -> None:
        """Write a checkpoint, unless the run has diverged.

        Raises:
            DivergenceError: a weight is not finite; the checkpoint before is kept.
        """
        weights = self.vae.state_dict()
        self._check(torch.cat([self._totals, *(tensor.flatten() for tensor in weights.values())]))
        tensors = {f"weights.{name}": tensor for name, tensor in weights.items()}
        tensors |= {f"optimiser.{name}": tensor for name, tensor in self.optimiser.state().items()}
        tensors |= {"totals": self._totals, "noise": self.source.noise.get_state()}
        note = {
            "step": self.step,
            "summed": self._summed,
            "rows": self.rows,
            "batches": self.source.rng.bit_generator.state,
        }
        self.file.save({name: tensor.cpu().numpy() for name, tensor in tensors.items()}, note)
        self.saved_step = self.step

    def restore(self) -> None:
        """Go on from the last checkpoint, or make the first one."""
        stored = self.file.load()
        if stored is None:
            self.save()
            return
        tensors, note = {name: torch.from_numpy(a) for name, a in stored[0].items()}, stored[1]
        self.vae.load_state_dict(_under("weights.", tensors))
        for name, tensor in self.optimiser.state().items():
            tensor.copy_(tensors[f"optimiser.{name}"])
        self._totals.copy_(tensors["totals"])
        self.source.noise.set_state(tensors["noise"])
        self.source.rng.bit_generator.state = note["batches"]
        self.step, self._summed, self.rows = note["step"], note["summed"], note["rows"]
        self.saved_step = self.step

    def _learn_from(self, batch: ElboBatch) -> None:
        """What a graph records: on the device alone."""
        noise, decoding = self.source.draw_noise(batch)
        terms = elbo(self.vae, batch, noise, self.config.elbo, decoding)
        self.optimiser.step(terms.loss[None])
        self._totals += torch.stack(_detached(terms))

    def _check(self, values: Tensor) -> None:
        if bool(torch.isfinite(values).all()):
            return
        raise DivergenceError(
            f"train-vae: the loss or a weight became NaN or infinite by update {self.step}; the "
            f"checkpoint of update {self.saved_step} is kept in {self.file.path}. A smaller "
            "vae.learning_rate or vae.elbo weights may help"
        )


def train_vae(
    config: VaeConfig,
    seed: int,
    inputs: Mapping[str, Path],
    output: Path,
    context: StageContext,
) -> None:
    """Train on the trials in `inputs`; writes the model, its curves and diagnostics to `output`.

    Raises:
        AlgorithmError: relabelling or the likelihood does not fit the family.
        StageError: the trials are too few.
        DivergenceError: the loss became NaN or infinite; the last good checkpoint is kept.
        Interrupted: the user asked to stop; a checkpoint is saved.
    """
    torch.set_num_threads(context.threads)
    keep_freed_memory()
    meta = read_meta(inputs["trials"])
    family = load_family(meta.family)
    check_relabelling(family, len(meta.tasks_train), config.relabelling)
    check_likelihood(family, config.model.reward_decoder)
    split = numpy_generator(seed, "train-vae", "split")
    table = TrialTable.load(inputs["trials"], meta, config.validation_share, split)
    description = describe(config.model, meta.family, family.spec, meta.episodes, meta.horizon)
    vae = description.build(torch_generator(seed, "train-vae", "weights")).to(context.device)
    if config.model.normalise:
        vae.set_normalisation(*table.moments())
    plan = load_plan(inputs["donors"]) if "donors" in inputs else None
    source = BatchSource(table, family, config, seed, context.device, plan)
    training = Training(vae, source, config, context.checkpoints)
    training.restore()
    with products(context.device, context.precision):
        _train(training, context)
    _write(training, description, family, seed, output)


def _train(training: Training, context: StageContext) -> None:
    """Update until done; log, validate and checkpoint on the way."""
    config = training.config
    saved = time.monotonic()
    note = ""
    with (
        torch_resting(takes(next(training.vae.parameters()))),
        scalar_writer(context.logs) as write,
        context.progress(config.updates, "train-vae", "update", training.step) as bar,
    ):
        while not training.finished:
            training.update()
            validate = training.step % config.validate_every == 0 or training.finished
            if validate or training.step % config.log_every == 0 or training.finished:
                row = training.log(validate)
                write(row)
                note = "".join(f"loss {row[k]:.4g}" for k in ("train_loss",) if k in row) or note
            bar.advance(1, note)
            overdue = time.monotonic() - saved > context.checkpoint_seconds
            if overdue or context.interrupted or training.finished:
                training.save()
                saved = time.monotonic()
            if context.interrupted and not training.finished:
                raise Interrupted


def _write(
    training: Training, description: VaeDescription, family: TaskFamily, seed: int, output: Path
) -> None:
    """The artefact's files."""
    vae = training.vae.eval().requires_grad_(False)
    save_vae(output, vae, description)
    held_out = training.source.held_out
    chosen = np.linspace(0, held_out.count - 1, min(held_out.count, _DIAGNOSED_TRIALS)).astype(int)
    device = str(next(vae.parameters()).device)
    draws = torch_generator(seed, "train-vae", "diagnostics", device=device)
    arrays, summary = diagnose(vae, held_out.select(chosen), family, _DIAGNOSIS_SAMPLES, draws)
    save_tensors(output / "diagnostics.safetensors", arrays, summary)
    write_json(output / "diagnostics.json", summary)
    with (output / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in training.rows:
            values = (f"{row[name]:.8g}" if name in row else "" for name in COLUMNS[1:])
            writer.writerow([int(row["step"]), *values])


def _optimiser(vae: Vae, config: VaeConfig) -> Optimiser:
    gru = [p for layer in vae.modules() if isinstance(layer, nn.GRU) for p in layer.parameters()]
    return optimise(
        list(vae.parameters()),
        config.learning_rate,
        config.muon,
        clip=config.gradient_clip,
        stacked=dict.fromkeys(gru, 3),  # the gates
    )


def _detached(terms: ElboTerms) -> list[Tensor]:
    return [term.detach() for term in terms]


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
