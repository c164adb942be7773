"""All trials of a collection in memory, with a share of every task's held out for validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.trial_store import CollectionMeta, read_trials
from datasets.trials import Trials
from stages.errors import StageError

_CONSTANT = 1e-4  # deviations below it are of what does not change

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class TrialTable:
    """Rows are trials of all tasks, task after task.

    trials (rows, K, H, ...) without infos; task_of_row (rows,) indexes tasks (tasks, task_dim);
    training and validation hold, a task, its rows of either kind.
    """

    trials: Trials
    task_of_row: Int64
    tasks: NDArray[np.float64]
    training: tuple[Int64, ...]
    validation: tuple[Int64, ...]

    @property
    def firsts(self) -> Int64:
        """Row of each task's first trial, (tasks,)."""
        return np.searchsorted(self.task_of_row, np.arange(len(self.tasks)))

    def moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and inverse deviation of observations, (obs,) each, and of rewards, ().

        What never changes is not scaled up.
        """
        observations = self.trials.observations.reshape(-1, self.trials.observations.shape[-1])
        mean = observations.mean(0, dtype=np.float64)
        spread = observations.std(0, dtype=np.float64)
        wide = np.where(spread > _CONSTANT, spread, 1.0)
        rewards = max(float(self.trials.rewards.std(dtype=np.float64)), _CONSTANT)
        found = (mean, 1 / wide, np.array(1 / rewards))
        shift, scale, reward_scale = (torch.from_numpy(part.astype(np.float32)) for part in found)
        return shift, scale, reward_scale

    @classmethod
    def load(
        cls, folder: Path, meta: CollectionMeta, share: float, rng: np.random.Generator
    ) -> TrialTable:
        """Read every training task's trials; `share` of each task's, at least one, are held out.

        Raises:
            DataError: a file is missing or damaged.
            StageError: a task has a single trial, so none is left to train on.
        """
        parts = [
            replace(read_trials(folder, task, meta), infos={})
            for task in range(len(meta.tasks_train))
        ]
        return cls.split(parts, meta.tasks_train, share, rng)

    @classmethod
    def split(
        cls,
        parts: Sequence[Trials],
        tasks: NDArray[np.float64],
        share: float,
        rng: np.random.Generator,
    ) -> TrialTable:
        """A table of tasks' trials, without infos; `share` of each task's, at least one, held out.

        Raises:
            StageError: a task has a single trial, so none is left to train on.
        """
        counts = np.array([part.count for part in parts])
        if counts.min() < 2:
            task = int(counts.argmin())
            raise StageError(
                f"task {task} has one trial: at least two are needed, one of them for validation"
            )
        firsts = np.concatenate([[0], counts.cumsum()[:-1]])
        training, validation = [], []
        for first, count in zip(firsts, counts, strict=True):
            rows = first + rng.permutation(count)
            held = max(1, round(share * count))
            validation.append(rows[:held])
            training.append(np.sort(rows[held:]))
        return cls(
            Trials.concatenate(parts),
            np.repeat(np.arange(len(parts)), counts),
            tasks,
            tuple(training),
            tuple(validation),
        )

    def draw_rows(self, rng: np.random.Generator, tasks: int, trials_per_task: int) -> Int64:
        """Rows of a batch: `tasks` tasks without replacement, and training trials of each likewise.

        Fewer where there are fewer.
        """
        chosen = rng.choice(len(self.tasks), min(tasks, len(self.tasks)), replace=False)
        pools = (self.training[task] for task in chosen)
        return np.concatenate(
            [rng.choice(pool, min(trials_per_task, len(pool)), replace=False) for pool in pools]
        )

    def first_validation_rows(self, most: int) -> tuple[Int64, ...]:
        """Validation rows of every task, equally many a task and about `most` in all."""
        fewest = min(len(rows) for rows in self.validation)
        each = max(1, min(most // len(self.tasks), fewest))
        return tuple(rows[:each] for rows in self.validation)


def join_rows(rows: Sequence[Int64]) -> Int64:
    """Rows of all tasks, task after task."""
    return np.concatenate(rows)
