"""Milliseconds of an update on a device: as plain calls, and as one CUDA graph.

The belief's batch comes from the host at every update, as in training; hyper-states lie on the
device, and drawing from them is part of the update. FLOP/s are of the operations that nobody can do
without (`benchmarks.floor`).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from algorithms.capture import Captured, graphs_on, placed
from algorithms.elbo import elbo
from algorithms.elbo_batch import ElboBatch
from algorithms.optimisers import optimise
from benchmarks import cases, floor
from benchmarks.cases import CASES, Case, load_case
from benchmarks.machine import processor
from pipeline.markdown import markdown_table
from stages.context import Precision
from stages.precision import products
from stages.residents import Residents
from stages.stored_tasks import StoredTasks

TARGETS = {("VAE update", "cheetah_vel"): 0.015, ("offline RL update", "cheetah_vel"): 0.7e-3}
"""Seconds that a captured update may take on a GPU of the Hopper class."""

_SECONDS = 0.5  # of work that is timed, at least
_FIRST_UPDATES = 10  # not timed; a graph is recorded among them
_TASKS, _BYTES = 16, 64 << 20  # of the hyper-states that are learned from

_COLUMNS = ("update", "case", "device", "precision", "eager", "captured", "FLOP/s", "wanted")

Row = dict[str, Any]


@dataclass(frozen=True)
class Update:
    """An update, plain and captured (None where the device has no graphs)."""

    what: str
    case: str
    eager: Callable[[], object]
    captured: Callable[[], object] | None
    operations: int


def vae_update(case: Case, device: str) -> Update:
    """A gradient step on the ELBO of a published batch."""
    config = case.config.vae
    vae, batch = cases.make_vae(case).to(device), cases.make_elbo_batch(case)
    optimiser = optimise(list(vae.parameters()), config.learning_rate, None)
    draws = torch.Generator(device).manual_seed(0)
    trials, steps = batch.transitions.rewards.shape
    shape = (trials, steps + 1, config.model.encoder.latent_dim)

    def descend(there: ElboBatch) -> None:
        noise = torch.randn(shape, generator=draws, device=device)
        optimiser.step(elbo(vae, there, noise, config.elbo).loss[None])

    graphs = graphs_on(device, [draws])
    captured = Captured(descend, graphs)
    return Update(
        "VAE update",
        case.name,
        lambda: descend(placed(batch, device)),
        None if graphs is None else lambda: captured(batch),
        floor.elbo_update(vae, trials, steps),
    )


def offline_update(case: Case, device: str) -> Update:
    """A gradient step of the meta-agent on a draw of hyper-states."""
    config, spec = case.config.offline, case.family.spec
    with tempfile.TemporaryDirectory() as folder:
        cases.write_noise(case, Path(folder), _TASKS, _BYTES)
        tasks = StoredTasks(Path(folder), config)
        residents = Residents(tasks, config, np.random.default_rng(0), device)
        residents.turn_to(0)
    learner = cases.make_learner(case, "offline", device=device)
    draws = torch.Generator(device).manual_seed(0)

    def learn(_: tuple[()]) -> object:
        return learner.learn(residents.table.sample(config.batch_size, draws))

    graphs = graphs_on(device, [draws, learner.generator])
    captured = Captured(learn, graphs)
    each = floor.agent_update(config.learner, case.state_dim, spec.action_dim, spec.n_actions)
    return Update(
        "offline RL update",
        case.name,
        lambda: learn(()),
        None if graphs is None else lambda: captured(()),
        config.batch_size * each,
    )


def measure_updates(names: Sequence[str], device: str, command: str) -> list[Row]:
    """A row for every update, case and precision that the device has."""
    precisions: Sequence[Precision] = ("float32",) if device == "cpu" else ("float32", "tf32")
    rows = []
    for name in names:
        for make in (vae_update, offline_update):
            for precision in precisions:
                with products(device, precision):
                    rows.append(_row(make(load_case(name), device), device, precision, command))
    return rows


def device_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = []
    for row in rows:
        best = row["eager"] if row["captured"] is None else row["captured"]
        cells = (
            row["what"],
            row["case"],
            row["device"],
            row["precision"],
            _milliseconds(row["eager"]),
            _milliseconds(row["captured"]),
            f"{row['operations'] / best / 1e12:.3g} T",
            _milliseconds(row["target"]),
        )
        lines.append(cells)
    return markdown_table(_COLUMNS, lines)


def device_provenance(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which commands measured the rows, a line each."""
    lines = {f"- `{row['command']}`, torch {row['torch_version']}.": None for row in rows}
    return "\n".join(lines) + "\n"


def merged_updates(known: Sequence[Row], newer: Sequence[Row]) -> list[Row]:
    """The rows known, those measured again replaced, in the order of cases."""
    rows = {
        tuple(row[name] for name in ("case", "what", "device", "precision")): row
        for row in (*known, *newer)
    }
    return [rows[key] for case in CASES for key in rows if key[0] == case]


def _row(update: Update, device: str, precision: str, command: str) -> Row:
    captured = None if update.captured is None else _seconds(update.captured, device)
    name = processor() if device == "cpu" else torch.cuda.get_device_name(device)
    return {
        "what": update.what,
        "case": update.case,
        "device": name,
        "precision": precision,
        "eager": _seconds(update.eager, device),
        "captured": captured,
        "operations": update.operations,
        "target": TARGETS.get((update.what, update.case)),
        "torch_version": torch.__version__,
        "command": command,
    }


def _seconds(work: Callable[[], object], device: str) -> float:
    """Seconds of an update among many: the host waits for the device at the end alone."""
    for _ in range(_FIRST_UPDATES):
        work()
    _wait(device)
    updates, start = 0, time.perf_counter()
    while not updates or time.perf_counter() - start < _SECONDS:
        for _ in range(_FIRST_UPDATES):
            work()
        _wait(device)
        updates += _FIRST_UPDATES
    return (time.perf_counter() - start) / updates


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.3g} ms"
