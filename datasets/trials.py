"""Trials in memory: K episodes of H steps on one task, many trials of it as one set of arrays.

Step t of a trial is step h of episode k, t = k*H + h. Every episode keeps its own H+1 observations,
its reset included, so ``observations[:, :, 1:]`` are the true next observations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from datasets.checks import AnyArray, check_actions, check_array, check_finite
from datasets.errors import DataError

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

INFO_DTYPES = "bool or int64 or float32 or float64"


@dataclass(frozen=True, eq=False)
class Trials:
    """N trials of one task.

    Attributes:
        observations: (N, K, H+1, obs) f4.
        actions: (N, K, H, act) f4 in [-1, 1], or int64 >= 0 where actions are discrete.
        rewards: (N, K, H) f4, the reward of each step.
        terminations: (N, K, H) bool, the environment's own ends only.
        truncations: (N, K, H) bool, time limits.
        infos: further arrays by name, (N, K, H, ...), e.g. simulator states for relabelling.
    """

    observations: FloatArray
    actions: AnyArray
    rewards: FloatArray
    terminations: BoolArray
    truncations: BoolArray
    infos: Mapping[str, AnyArray] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """N, the number of trials."""
        return int(self.rewards.shape[0])

    @property
    def episodes(self) -> int:
        """K, the episodes of a trial."""
        return int(self.rewards.shape[1])

    @property
    def horizon(self) -> int:
        """H, the steps of an episode."""
        return int(self.rewards.shape[2])

    @property
    def steps(self) -> int:
        """T = K*H, the steps of a trial."""
        return self.episodes * self.horizon

    @property
    def next_observations(self) -> FloatArray:
        """(N, K, H, obs), a view: the true next observation of every step."""
        return self.observations[:, :, 1:]

    @property
    def arrays(self) -> dict[str, AnyArray]:
        """Every array by name; those of `infos` as ``infos/<name>``."""
        return {
            "observations": self.observations,
            "actions": self.actions,
            "rewards": self.rewards,
            "terminations": self.terminations,
            "truncations": self.truncations,
        } | {f"infos/{name}": array for name, array in self.infos.items()}

    def select(self, index: slice | Sequence[int] | npt.NDArray[Any]) -> Self:
        """The trials that a slice, an index array or a mask picks; a slice copies nothing."""
        chosen = index if isinstance(index, slice) else np.asarray(index)
        return self.from_arrays({name: array[chosen] for name, array in self.arrays.items()})

    def cut(self, steps: int) -> Self:
        """Every episode as H / steps shorter ones, in order: (N, K * H / steps, steps, ...).

        Raises:
            DataError: the episodes cannot be cut into equal pieces of that length.
        """
        n, k, h = self.rewards.shape
        if steps < 1 or h % steps:
            raise DataError(f"episodes of {h} steps cannot be cut into pieces of {steps}")
        # A piece ends with the observation that the next one begins with.
        kept = np.arange(0, h, steps)[:, None] + np.arange(steps + 1)
        observations = self.observations[:, :, kept.ravel()]
        cut = {
            name: array.reshape(n, k * h // steps, steps, *array.shape[3:])
            for name, array in self.arrays.items()
            if name != "observations"
        }
        cut["observations"] = observations.reshape(n, k * h // steps, steps + 1, -1)
        return self.from_arrays(cut)

    @classmethod
    def concatenate(cls, parts: "Sequence[Trials]") -> Self:
        """All trials of `parts`, in order.

        Raises:
            DataError: nothing to join, or parts whose shapes or infos differ; names both.
        """
        if not parts:
            raise DataError("no trials to concatenate")
        first = parts[0].arrays
        for number, part in enumerate(parts):
            if part.arrays.keys() != first.keys():
                raise DataError(f"part {number} has {sorted(part.arrays)}, part 0 {sorted(first)}")
            for name, array in part.arrays.items():
                if array.shape[1:] != first[name].shape[1:] or array.dtype != first[name].dtype:
                    raise DataError(
                        f"part {number}: {name} is {array.dtype} {array.shape[1:]} a trial, "
                        f"in part 0 {first[name].dtype} {first[name].shape[1:]}"
                    )
        return cls.from_arrays(
            {name: np.concatenate([part.arrays[name] for part in parts]) for name in first}
        )

    def validate(self, where: str = "trials", n_actions: int | None = None) -> Self:
        """Check shapes, types, finiteness and action bounds; returns itself.

        Args:
            where: how to call this data in messages, e.g. "task 3".
            n_actions: discrete actions must be below it; None if continuous or unknown.

        Raises:
            DataError: e.g. "task 3, trial 17, step 42: reward is NaN".
        """
        check_array(self.rewards, (None, None, None), "float32", f"{where}: rewards")
        n, k, h = self.rewards.shape
        shapes: dict[str, tuple[tuple[int | None, ...], str]] = {
            "observations": ((n, k, h + 1, None), "float32"),
            "actions": ((n, k, h, None), "float32 or int64"),
            "rewards": ((n, k, h), "float32"),
            "terminations": ((n, k, h), "bool"),
            "truncations": ((n, k, h), "bool"),
        }
        for name, array in self.arrays.items():
            rest = (None,) * (np.ndim(array) - 3)
            shape, dtypes = shapes.get(name, ((n, k, h, *rest), INFO_DTYPES))
            check_array(array, shape, dtypes, f"{where}: {name}")
            check_finite(array, where, name.removesuffix("s") if name in shapes else name, h)
        check_actions(self.actions, where, n_actions)
        return self

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray]) -> Self:
        """The inverse of `arrays`."""
        infos = {
            name.removeprefix("infos/"): array
            for name, array in arrays.items()
            if name.startswith("infos/")
        }
        return cls(
            arrays["observations"],
            arrays["actions"],
            arrays["rewards"],
            arrays["terminations"],
            arrays["truncations"],
            infos,
        )
