"""Shapes, types and chunks of a hyper-state store: one Zarr array a field, tasks first.

| field          | shape                            | type                         |
|----------------|----------------------------------|------------------------------|
| observations   | (tasks, trials, K, H+1, obs)     | f4                           |
| actions        | (tasks, trials, K, H, act)       | f4 in [-1, 1], i8 if discrete |
| rewards        | (tasks, trials, K, H)            | f4                           |
| terminations   | (tasks, trials, K, H)            | bool                         |
| beliefs        | (tasks, trials, T+1, 2L)         | f4, mean then log-variance   |
| belief_rewards | (tasks, trials, K, H), optional  | f4                           |
| other_chances  | (tasks, trials, K, H), optional  | f4 in [0, 1]                 |
| other_rewards  | (tasks, trials, K, H), optional  | f4, 0 where the chance is 0  |
| other_beliefs  | (tasks, trials, T, 2L), optional | f4, 0 where the chance is 0  |

The optional last three say what else could have come of a step: how likely that was, its reward and
the belief after it.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from datasets.errors import DataError

CHUNK_BYTES = 32 << 20
MAX_CHUNK_BYTES = (1 << 31) - (1 << 20)  # Blosc compresses just under 2 GiB at a time
FILL = {"f": float("nan"), "i": -1, "b": False}  # never-written data cannot pass for data


@dataclass(frozen=True)
class FieldLayout:
    """One array: shape (tasks, trials, ...), type, names of the axes, and trials a chunk."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: tuple[str, ...]

    @property
    def chunk(self) -> tuple[int, ...]:
        """(1, trials, ...): one task, and as many of its trials as fit `CHUNK_BYTES`."""
        trial_bytes = self.dtype.itemsize * int(np.prod(self.shape[2:]))
        return (1, min(self.shape[1], max(1, CHUNK_BYTES // trial_bytes)), *self.shape[2:])

    @property
    def chunk_bytes(self) -> int:
        """Size of a chunk in memory."""
        return self.dtype.itemsize * int(np.prod(self.chunk))

    @property
    def blocks(self) -> int:
        """Chunks a task."""
        return -(-self.shape[1] // self.chunk[1])

    @property
    def nbytes(self) -> int:
        """Size in memory of the whole array."""
        return self.dtype.itemsize * int(np.prod(self.shape))

    def chunk_key(self, task: int, block: int) -> str:
        """File of a chunk inside the array's folder: Zarr v3's default encoding with dots.

        Slashes would make five folders a chunk, each to be listed and synced.
        """
        return ".".join(["c", str(task), str(block), *("0" for _ in self.shape[2:])])


@dataclass(frozen=True)
class HyperStateLayout:
    """What a hyper-state store holds.

    Attributes:
        tasks, trials: how many, trials counted a task.
        episodes: K; or K * pieces, where behaviour changes inside episodes.
        horizon: H; or H / pieces.
        observation_dim, action_dim: lengths of one observation and action.
        latent_dim: L; a belief has 2L numbers.
        n_actions: number of discrete actions, None if continuous.
        belief_rewards: whether the optional field is there.
        outcomes: whether the three fields of other outcomes are there.
        pieces: into how many pieces each episode is cut; only its last one ends with a reset.

    Raises:
        DataError: a count that is not a whole number of at least 1, trials beyond 2 GiB.
    """

    tasks: int
    trials: int
    episodes: int
    horizon: int
    observation_dim: int
    action_dim: int
    latent_dim: int
    n_actions: int | None = None
    belief_rewards: bool = False
    outcomes: bool = False
    pieces: int = 1

    def __post_init__(self) -> None:
        """Checks the counts."""
        for name, value in asdict(self).items():
            if name in ("belief_rewards", "outcomes") or (name == "n_actions" and value is None):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise DataError(
                    f"hyper-states: {name} is {value!r}; a whole number of at least 1 is needed"
                )
        if self.episodes % self.pieces:
            raise DataError(
                f"hyper-states: {self.episodes} pieces are no whole episodes of {self.pieces} each"
            )
        for name, field in self.fields().items():
            if field.chunk_bytes > MAX_CHUNK_BYTES:
                raise DataError(
                    f"hyper-states: {name} of one trial take {field.chunk_bytes} bytes, "
                    f"but a chunk holds at most {MAX_CHUNK_BYTES}; shorten the trials"
                )

    @property
    def steps(self) -> int:
        """T = K*H."""
        return self.episodes * self.horizon

    def field(self, name: str) -> FieldLayout:
        """Layout of one field.

        Raises:
            DataError: no such field in this store.
        """
        layouts = self.fields()
        if name not in layouts:
            raise DataError(f"hyper-states have no field {name!r}, only {sorted(layouts)}")
        return layouts[name]

    def fields(self) -> dict[str, FieldLayout]:
        """Layout of every field by name."""
        lead, axes = (self.tasks, self.trials), ("task", "trial")
        each = (*lead, self.episodes, self.horizon)
        step_axes = (*axes, "episode", "step")
        action = np.dtype(np.float32 if self.n_actions is None else np.int64)
        float4 = np.dtype(np.float32)
        observations = (*lead, self.episodes, self.horizon + 1, self.observation_dim)
        beliefs = (*lead, self.steps + 1, 2 * self.latent_dim)
        layouts = {
            "observations": FieldLayout(observations, float4, (*step_axes, "observation")),
            "actions": FieldLayout((*each, self.action_dim), action, (*step_axes, "action")),
            "rewards": FieldLayout(each, float4, step_axes),
            "terminations": FieldLayout(each, np.dtype(bool), step_axes),
            "beliefs": FieldLayout(beliefs, float4, (*axes, "step", "belief")),
        }
        if self.belief_rewards:
            layouts["belief_rewards"] = FieldLayout(each, float4, step_axes)
        if self.outcomes:
            others = (*lead, self.steps, 2 * self.latent_dim)
            layouts["other_chances"] = FieldLayout(each, float4, step_axes)
            layouts["other_rewards"] = FieldLayout(each, float4, step_axes)
            layouts["other_beliefs"] = FieldLayout(others, float4, (*axes, "step", "belief"))
        return layouts

    def nbytes(self, names: Collection[str]) -> int:
        """Size in memory of these fields, all tasks."""
        return sum(self.field(name).nbytes for name in names)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "HyperStateLayout":
        """The inverse of `to_json`.

        Raises:
            DataError: unknown, missing or bad entries.
        """
        later = {"outcomes": False, "pieces": 1}  # stores written before there were any lack them
        if later.keys() | values.keys() != {f.name for f in fields(cls)}:
            raise DataError(f"hyper-states: not a layout: {values}")
        return cls(**{**later, **values})
