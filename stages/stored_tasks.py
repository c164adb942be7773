"""The tasks of a hyper-state store, each read whole into a table of one slot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from datasets.hyper_state_layout import HyperStateLayout
from datasets.hyper_states import HyperStates
from stages.config import OfflineConfig
from stages.errors import StageError
from stages.hyper_state_table import HyperStateTable, OtherTable

_OTHERS = ("other_chances", "other_rewards", "other_beliefs")


class StoredTasks:
    """What an agent learns from: the fields it needs, of every task of a store."""

    def __init__(self, folder: Path, config: OfflineConfig) -> None:
        """Open the Zarr store in `folder`.

        Raises:
            StageError: R+ is asked for and the store has none, or has other outcomes too.
            DataError: the store is damaged.
        """
        self._store = HyperStates.open(folder / "hyper_states.zarr")
        self.layout = self._store.layout
        _check_rewards(config, self.layout)
        self._beliefs = config.beliefs
        self._reward = "belief_rewards" if config.use_belief_rewards else "rewards"
        self._names = ["observations", "actions", "terminations", self._reward]
        self._most_others = 0
        if self._beliefs:
            self._names.append("beliefs")
            if self.layout.outcomes:
                self._names += _OTHERS
                self._most_others = max(map(self._count_others, range(len(self))))

    def __len__(self) -> int:
        """How many tasks there are."""
        return self.layout.tasks

    def room(self, slots: int, device: str = "cpu") -> HyperStateTable:
        """A table for `slots` tasks, not filled in."""
        return HyperStateTable.empty(self.layout, slots, self._beliefs, self._most_others, device)

    def bytes_held(self, slots: int) -> int:
        """What a table of so many slots takes, with a task on its way into it.

        That task is held up to three times: as stored, as decoded, and laid out. Zarr decodes field
        after field, so only the largest is there in all its forms.
        """
        tables = self.room(slots + 1, "meta").tensors
        decoded = self.layout.nbytes(self._names)
        largest = max(self.layout.field(name).nbytes for name in self._names)
        return sum(tensor.nbytes for tensor in tables) + (decoded + 2 * largest) // len(self)

    def read(self, task: int, into: HyperStateTable) -> None:
        """Fill a table of one slot, on the CPU.

        Raises:
            DataError: a chunk of the task is damaged, missing or moved.
        """
        fields = self._store.read(self._names, task)
        _write_rows(fields["observations"], fields.get("beliefs"), into.rows.numpy())
        into.actions.numpy()[...] = fields["actions"].reshape(into.actions.shape)
        into.rewards.numpy()[...] = fields[self._reward].reshape(-1)
        into.continues.numpy()[...] = ~fields["terminations"].reshape(-1)
        if into.others is not None:
            _write_others(fields, into.others)

    def rows(self, into: HyperStateTable) -> Iterator[Tensor]:
        """Hyper-states (trials * K * (H + 1), S) of task after task, each read over the last."""
        for task in range(len(self)):
            self.read(task, into)
            yield into.rows

    def _count_others(self, task: int) -> int:
        chances = self._store.read(["other_chances"], task)["other_chances"]
        return int(np.count_nonzero(chances > 0))


def _check_rewards(config: OfflineConfig, layout: HyperStateLayout) -> None:
    if not config.use_belief_rewards:
        return
    if not layout.belief_rewards:
        raise StageError(
            "offline.use_belief_rewards: the hyper-states hold no R+; "
            "set relabel.belief_rewards to true as well"
        )
    if layout.outcomes:
        raise StageError(
            "offline.use_belief_rewards: the hyper-states hold both outcomes of every step, which "
            "are averaged already; set relabel.relabelling.task_averaging to false"
        )


def _write_rows(
    observations: NDArray[np.float32],
    beliefs: NDArray[np.float32] | None,
    rows: NDArray[np.float32],
) -> None:
    """Fill hyper-states (trials * K * (H + 1), S) from a task's fields, which lead with trials."""
    trials, episodes, rows_each, width = observations.shape
    horizon = rows_each - 1
    whole = rows.reshape(trials, episodes, rows_each, -1)
    whole[..., :width] = observations
    if beliefs is not None:
        for episode in range(episodes):
            steps = slice(episode * horizon, (episode + 1) * horizon + 1)
            whole[:, episode, :, width:] = beliefs[:, steps]


def _write_others(fields: Mapping[str, NDArray[Any]], others: OtherTable) -> None:
    """Fill in a task's other outcomes, those that there are: most steps have none."""
    chances, rewards, beliefs = (fields[name] for name in _OTHERS)
    doubt = chances.reshape(-1) > 0
    count = int(doubt.sum())
    index = others.index.numpy()
    index[...] = -1
    index[doubt] = np.arange(count)
    others.chances.numpy()[:count] = chances.reshape(-1)[doubt]
    others.rewards.numpy()[:count] = rewards.reshape(-1)[doubt]
    others.beliefs.numpy()[:count] = beliefs.reshape(len(doubt), -1)[doubt]
