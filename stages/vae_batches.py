"""Batches for training the belief: drawn and relabelled afresh, or held out and fixed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithms.decoding import DecodedSteps, TaskAverage, choose_decoded
from algorithms.donor_plans import DonorPlan
from algorithms.donors import Donors
from algorithms.elbo import draw_posteriors, elbo
from algorithms.elbo_batch import ElboBatch, make_batch
from algorithms.errors import AlgorithmError
from algorithms.relabelling import relabel_batch
from datasets.trials import Trials
from environments.base import TaskFamily
from models.vae import Vae
from stages.config import VaeConfig
from stages.seeds import numpy_generator, torch_generator
from stages.trial_table import TrialTable, join_rows

TERMS = ("loss", "rec_reward", "rec_state", "kl")  # of ElboTerms, as the curves call them

_VALIDATION_TRIALS = 512  # most trials of the validation curve, equally many a task


class BatchSource:
    """Draws relabelled training batches, and holds the fixed validation batches."""

    def __init__(
        self,
        table: TrialTable,
        family: TaskFamily,
        config: VaeConfig,
        seed: int,
        device: str,
        plan: DonorPlan | None = None,
    ) -> None:
        pieces = config.relabelling.piece_steps
        if config.relabelling.enabled and pieces is not None:
            table = replace(table, trials=table.trials.cut(pieces))
        self._table, self._family, self._config = table, family, config
        self._device = device
        self._seed = seed
        self._training = self._donors(table.training, plan)
        if self._training.plan is not None:
            _check_donors(self._training.plan)
        self.rng = numpy_generator(seed, "train-vae", "batches")
        self.noise = torch_generator(seed, "train-vae", "noise", device=device)
        rows = join_rows(table.first_validation_rows(_VALIDATION_TRIALS))
        rng = numpy_generator(seed, "train-vae", "validation")
        self.held_out, decoded = self._relabel(rng, rows, self._donors(table.validation, plan))
        size = config.tasks_per_batch * config.trials_per_task
        self._validation = [
            self._to_batch(self.held_out.select(part), _part(decoded, part), device)
            for part in (slice(first, first + size) for first in range(0, len(rows), size))
        ]

    def draw(self) -> ElboBatch:
        """A training batch of B trials, relabelled, in the host's memory."""
        rows = self._table.draw_rows(
            self.rng, self._config.tasks_per_batch, self._config.trials_per_task
        )
        return self._to_batch(*self._relabel(self.rng, rows, self._training), "cpu")

    def draw_noise(self, batch: ElboBatch) -> tuple[Tensor, Tensor | None]:
        """A training batch's noise (B, T + 1, L), and which posteriors decode."""
        noise = self._draw_noise(batch, self.noise)
        trials, steps = batch.transitions.rewards.shape
        count = self._config.elbo.decoded_posteriors
        if count is None:
            return noise, None
        return noise, draw_posteriors(trials, steps, count, self.noise)

    @torch.no_grad()
    def validate(self, vae: Vae) -> list[float]:
        """The ELBO's terms on the held-out trials: the same trials, donors and noise every time."""
        noise = torch_generator(self._seed, "train-vae", "validation", device=self._device)
        total = torch.zeros(len(TERMS), device=self._device)
        for batch in self._validation:
            terms = elbo(vae, batch, self._draw_noise(batch, noise), self._config.elbo)
            total += torch.stack(terms) * len(batch.targets)
        means: list[float] = (total / self.held_out.count).tolist()
        return means

    def _donors(self, pools: tuple[NDArray[np.int64], ...], plan: DonorPlan | None) -> Donors:
        """Donors from these rows alone."""
        table = self._table
        if plan is None:
            return Donors(table.trials, pools, self._family, table.tasks)
        firsts = table.firsts
        kept = plan.among(np.concatenate(pools), firsts)
        return Donors(table.trials, pools, self._family, table.tasks, kept, firsts)

    def _relabel(
        self,
        rng: np.random.Generator,
        rows: NDArray[np.int64],
        donors: Donors,
    ) -> tuple[Trials, DecodedSteps]:
        """The trials of those rows, relabelled, and what their posteriors decode."""
        table, config = self._table, self._config.relabelling
        own = table.task_of_row[rows]
        trials = relabel_batch(rng, table.trials.select(rows), own, donors, config)
        return trials, choose_decoded(rng, trials, own, donors, config)

    def _to_batch(self, trials: Trials, decoded: DecodedSteps, device: str) -> ElboBatch:
        likelihood = self._config.model.reward_decoder
        return make_batch(trials, self._family, likelihood, device, decoded)

    def _draw_noise(self, batch: ElboBatch, generator: torch.Generator) -> Tensor:
        trials, steps = batch.transitions.rewards.shape
        shape = (trials, steps + 1, self._config.model.encoder.latent_dim)
        return torch.randn(shape, generator=generator, device=self._device)


def _check_donors(plan: DonorPlan) -> None:
    """Raise AlgorithmError where trials of a task would silently stay as logged in every batch."""
    if plan.dropping:  # then plan-donors has said so
        return
    lonely = np.flatnonzero(~plan.usable.any(1))
    if len(lonely):
        raise AlgorithmError(
            f"none of the donor episodes planned for task {lonely[0]} is among the training "
            f"trials ({plan.usable.shape[1]} a task are planned): raise donors.episodes"
        )


def _part(decoded: DecodedSteps, rows: slice) -> DecodedSteps:
    """What the trials `rows` of a batch decode."""
    average = decoded.average
    if average is not None:
        average = TaskAverage(average.rewards[rows], average.weights[rows])
    return DecodedSteps(
        decoded.observations[rows],
        decoded.actions[rows],
        decoded.next_observations[rows],
        decoded.rewards[rows],
        average,
    )
