"""How long the belief takes to a given validation loss: the plain loop, and our best settings.

The level is what the published settings reach after 20 epochs over a small collection. Both sides
have the same model, the same relabelling and the same validation trials. The plain loop is not run
to the end: an update of it is timed, and since it computes what our full estimator computes
(`tests/benchmarks/test_agreement.py`), ours is run for as many updates to learn the level.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import cases
from benchmarks.cases import CASES, Case
from benchmarks.duels import vae_update
from benchmarks.settings import Settings
from models.kernels.parts import torch_resting
from pipeline.markdown import markdown_table
from stages.config import VaeConfig
from stages.train_vae import Training
from stages.trial_table import TrialTable
from stages.vae_batches import BatchSource

EPOCHS = 20
TARGETS = dict(zip(CASES, (20.0, 12.0, 25.0), strict=True))
"""How many times as fast as the plain loop we want to be at the level at least."""

_COLUMNS = (
    "case",
    "loss",
    "plain: updates",
    "seconds",
    "full estimator, same updates",
    "ours: updates",
    "seconds",
    "ratio",
    "wanted",
)
_TRIALS = {"gridworld": 128, "point_robot_sparse": 64, "cheetah_vel": 40}  # a task
_TASKS = {"gridworld": 21, "point_robot_sparse": 80, "cheetah_vel": 20}
_BEST: dict[str, dict[str, Any]] = {
    "gridworld": {"learning_rate": 5e-3, "muon": 2.0, "gradient_clip": 5.0},
    "point_robot_sparse": {
        "learning_rate": 5e-3,
        "muon": 2.0,
        "gradient_clip": 10.0,
        "trials_per_task": 4,
        "elbo": {"decoded_posteriors": 12},
    },
    "cheetah_vel": {
        "learning_rate": 3e-3,
        "muon": 2.0,
        "gradient_clip": 10.0,
        "trials_per_task": 4,
        "elbo": {"decoded_posteriors": 12},
    },
}
_CHECK_EVERY = 20  # updates between two looks at the validation loss, which are not timed
_PLAIN_UPDATES = 5
_MOST = 2  # times the reference's updates, after which ours gives up


def race(name: str, threads: int) -> dict[str, Any]:
    """Seconds of both sides to the level, as a row."""
    torch.set_num_threads(threads)
    case = cases.load_case(name)
    plain_seconds = _seconds_of_plain(case)
    config = case.config.vae
    table = _table(case)
    batches = -(-len(table.training[0]) // config.trials_per_task)
    updates = EPOCHS * batches * -(-len(table.tasks) // config.tasks_per_batch)
    with Settings.BEST.applied(), torch_resting(), tempfile.TemporaryDirectory() as folder:
        full = _training(case, config, table, updates, Path(folder))
        start = time.perf_counter()
        while not full.finished:
            full.update()
        full_seconds = time.perf_counter() - start
        level = full.source.validate(full.vae)[0]
        elbo = config.elbo.model_copy(update=_BEST[name].get("elbo", {}))
        best = config.model_copy(update=_BEST[name] | {"elbo": elbo})
        ours = _training(case, best, table, _MOST * updates, Path(folder))
        seconds, reached = 0.0, float("inf")
        while reached > level and not ours.finished:
            start = time.perf_counter()
            for _ in range(_CHECK_EVERY):
                ours.update()
            seconds += time.perf_counter() - start
            reached = ours.source.validate(ours.vae)[0]
    plain = updates * plain_seconds
    return {
        "case": name,
        "level": level,
        "reached": reached,
        "plain_updates": updates,
        "plain_seconds": plain,
        "full_seconds": full_seconds,
        "updates": ours.step,
        "seconds": seconds,
        "ratio": plain / seconds if reached <= level else None,
        "target": TARGETS[name],
        "settings": _BEST[name],
    }


def loss_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = []
    for row in rows:
        ratio = "not reached" if row["ratio"] is None else f"**{row['ratio']:.1f}**"
        cells = (
            row["case"],
            f"{row['level']:.1f}",
            f"{row['plain_updates']:,}",
            f"{row['plain_seconds']:,.0f}",
            f"{row['full_seconds']:,.0f}",
            f"{row['updates']:,}",
            f"{row['seconds']:,.1f}",
            ratio,
            f"{row['target']:g}",
        )
        lines.append(cells)
    return markdown_table(_COLUMNS, lines)


def _seconds_of_plain(case: Case) -> float:
    """Median seconds of an update of the plain loop, library's settings, drawing not counted."""
    plain = vae_update(case).plain
    plain()
    seconds = []
    for _ in range(_PLAIN_UPDATES):
        start = time.perf_counter()
        plain()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def _table(case: Case) -> TrialTable:
    """Random behaviour on every task, a tenth of it held out."""
    tasks = cases.make_tasks(case, _TASKS[case.name])
    log = cases.make_log(case, tasks, _TRIALS[case.name])
    parts = [log.trials(task) for task in range(len(tasks))]
    return TrialTable.split(
        parts, tasks, case.config.vae.validation_share, np.random.default_rng(0)
    )


def _training(
    case: Case, config: VaeConfig, table: TrialTable, updates: int, folder: Path
) -> Training:
    """A fresh model; the same validation trials whatever the settings of training."""
    config = config.model_copy(update={"updates": updates})
    source = BatchSource(table, case.family, config, 0, "cpu")
    return Training(cases.make_vae(case), source, config, folder)
