"""What the report reads: the stages' outputs of one run, seed by seed, as typed arrays.

A stage's file that is absent leaves its part of the report out; one that is there but wrong is
refused, because a report must not show half of a broken artefact.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.checkpoints import load_tensors
from datasets.errors import DataError
from datasets.files import read_json

Float64 = NDArray[np.float64]
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ArtefactFacts:
    """One artefact's manifest, as the lineage shows it."""

    stage: str  # "collect", "train-vae", ...
    kind: str
    fingerprint: str
    digest: str
    seed: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)  # input name -> kind/fingerprint
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None
    finished: str | None = None
    size: int | None = None  # bytes

    @property
    def reference(self) -> str:
        """How other artefacts name this one."""
        return f"{self.kind}/{self.fingerprint}"


@dataclass(frozen=True)
class SeedFolders:
    """Where the artefacts of one seed of a run lie, by kind, and their lineage."""

    seed: int
    folders: Mapping[str, Path]
    lineage: tuple[ArtefactFacts, ...] = ()


@dataclass(frozen=True)
class Curves:
    """A log by training step: `columns` name -> (points,), NaN where a value was not measured."""

    step: Float64
    columns: Mapping[str, Float64]

    @classmethod
    def read(cls, path: Path) -> Curves | None:
        """Parse `step,<metric>...`; None where the file is absent or has no rows.

        Raises:
            DataError: a row of another width, or a cell that is not a number; names the line.
        """
        if not path.is_file():
            return None
        with path.open(newline="") as stream:
            header, *rows = list(csv.reader(stream)) or [[]]
        if not rows:
            return None
        if not header or header[0] != "step":
            raise DataError(f"{path}: the first column is not 'step' but {header[:1]}")
        table = np.full((len(rows), len(header)), np.nan)
        for number, row in enumerate(rows):
            if len(row) != len(header):
                raise DataError(f"{path}, line {number + 2}: {len(row)} cells of {len(header)}")
            try:
                table[number] = [float(cell) if cell else np.nan for cell in row]
            except ValueError as error:
                raise DataError(f"{path}, line {number + 2}: {error}") from error
        return cls(table[:, 0], {name: table[:, i] for i, name in enumerate(header) if i})


@dataclass(frozen=True)
class Scores:
    """`scores.json` of one seed: returns policy -> (tasks, K), success policy -> (tasks,).

    episode_success policy -> (tasks, K); data_return is the mean return of an episode of the logs.
    Scores of before there were these two have neither.
    """

    domain: str
    protocol: Mapping[str, Any]
    tasks: Float64  # (tasks, task_dim)
    returns: Mapping[str, Float64]
    success: Mapping[str, Float64]
    episode_success: Mapping[str, Float64] = field(default_factory=dict)
    data_return: float | None = None

    @classmethod
    def read(cls, path: Path) -> Scores:
        """Parse and check shapes; raises DataError that names the file and the policy."""
        content = read_json(path)
        try:
            scores = cls(
                domain=str(content["domain"]),
                protocol=dict(content["protocol"]),
                tasks=np.asarray(content["tasks"], dtype=np.float64),
                returns={k: np.asarray(v, np.float64) for k, v in content["returns"].items()},
                success={k: np.asarray(v, np.float64) for k, v in content["success"].items()},
                episode_success={
                    k: np.asarray(v, np.float64)
                    for k, v in content.get("episode_success", {}).items()
                },
                data_return=content.get("data_return"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path} is not a scores file: {error!r}") from error
        count = len(scores.tasks)
        for policy, returns in scores.returns.items():
            if returns.ndim != 2 or len(returns) != count or not np.isfinite(returns).all():
                raise DataError(
                    f"{path}: returns of {policy!r} have shape {returns.shape} or are not finite; "
                    f"({count} tasks, K episodes) is needed"
                )
        if "agent" not in scores.returns:
            raise DataError(f"{path}: holds no returns of 'agent'")
        return scores


@dataclass(frozen=True)
class SeedOutputs:
    """All that one seed of a run has to show. Diagnostics and rollouts are named arrays."""

    seed: int
    scores: Scores
    rollouts: Arrays = field(default_factory=dict)
    collection: Curves | None = None
    belief_training: Curves | None = None
    offline_losses: Curves | None = None
    evaluations: Curves | None = None
    diagnostics: Arrays = field(default_factory=dict)
    diagnostics_note: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folders: SeedFolders) -> SeedOutputs:
        """Read every file that is there; `scores` must be.

        Raises:
            DataError: a file is damaged, or there are no scores.
        """
        where = folders.folders
        if "scores" not in where:
            raise DataError(f"seed {folders.seed} has no scores to report")
        diagnostics, note = _tensors(where, "vae", "diagnostics.safetensors")
        extra = where["vae"] / "diagnostics.json" if "vae" in where else None
        if extra is not None and extra.is_file():
            note = {**note, **read_json(extra)}
        return cls(
            seed=folders.seed,
            scores=Scores.read(where["scores"] / "scores.json"),
            rollouts=_tensors(where, "scores", "rollouts.safetensors")[0],
            collection=_curves(where, "trials", "metrics.csv"),
            belief_training=_curves(where, "vae", "metrics.csv"),
            offline_losses=_curves(where, "agent", "metrics.csv"),
            evaluations=_curves(where, "agent", "evaluations.csv"),
            diagnostics=diagnostics,
            diagnostics_note=note,
        )


def _curves(where: Mapping[str, Path], kind: str, name: str) -> Curves | None:
    return Curves.read(where[kind] / name) if kind in where else None


def _tensors(where: Mapping[str, Path], kind: str, name: str) -> tuple[Arrays, dict[str, Any]]:
    if kind not in where or not (where[kind] / name).is_file():
        return {}, {}
    arrays, note = load_tensors(where[kind] / name)
    return arrays, note if isinstance(note, dict) else {}
