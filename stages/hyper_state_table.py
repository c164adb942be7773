"""All transitions of a hyper-state store as one table on the device.

A trial of K episodes of H steps is K * (H + 1) rows. The row after a step is its next hyper-state:
the true next observation inside an episode, the next episode's reset observation with the belief
carried on at its end, and the last observation at the end of the trial, which is a truncation and
bootstraps. Where behaviour was put together from pieces, a piece's end is no reset: what follows it
there is its own last observation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithms.learners.base import Batch, OtherOutcomes
from datasets.hyper_state_layout import HyperStateLayout
from datasets.hyper_states import HyperStates
from stages.config import OfflineConfig
from stages.errors import StageError

SMALLEST_DEVIATION = 1e-4


@dataclass(frozen=True)
class OtherTable:
    """The other outcomes of those M transitions that have one.

    index (transitions,) int64, an entry of the rest or -1; chances and rewards (M,); beliefs
    (M, 2L).
    """

    index: Tensor
    chances: Tensor
    rewards: Tensor
    beliefs: Tensor


@dataclass(frozen=True)
class HyperStateTable:
    """All transitions, trial after trial, task after task.

    rows (trials * K * (H + 1), S); actions (trials * T, act), or (trials * T,) int64 if discrete;
    rewards, continues (trials * T,). before and after (T,) are the rows of each step's hyper-states
    within its trial.
    """

    rows: Tensor
    actions: Tensor
    rewards: Tensor
    continues: Tensor
    before: Tensor
    after: Tensor
    others: OtherTable | None = None

    @property
    def steps(self) -> int:
        """T, steps of a trial."""
        return len(self.before)

    @property
    def rows_each(self) -> int:
        """Rows of a trial, K * (H + 1)."""
        return len(self.rows) * self.steps // len(self.rewards)

    @classmethod
    def load(cls, folder: Path, config: OfflineConfig, device: str) -> HyperStateTable:
        """Read the Zarr store into one table.

        Raises:
            StageError: R+ is asked for and the store has none, or has other outcomes too.
            DataError: the store is damaged or larger than `memory_gb`.
        """
        store = HyperStates.open(folder / "hyper_states.zarr")
        layout = store.layout
        _check_rewards(config, layout)
        reward = "belief_rewards" if config.use_belief_rewards else "rewards"
        names = ["observations", "actions", "terminations", reward]
        if config.beliefs:
            names.append("beliefs")
        budget = int(config.memory_gb * 2**30) // 2  # the table is a copy beside what is read
        data = store.load(names, budget)
        actions = data["actions"].reshape(-1, layout.action_dim)
        if actions.dtype.kind in "iu":
            actions = actions[:, 0].astype(np.int64)
        rewards = data[reward].reshape(-1)
        continues = 1.0 - data["terminations"].reshape(-1).astype(np.float32)
        rows = _rows(data["observations"], data.get("beliefs"))
        del data
        others = None
        if config.beliefs and layout.outcomes:
            others = _read_others(store, device)
        before, after = _places(layout)
        return cls(
            rows=torch.from_numpy(rows).to(device),
            actions=torch.from_numpy(actions).to(device),
            rewards=torch.from_numpy(rewards).to(device),
            continues=torch.from_numpy(continues).to(device),
            before=torch.from_numpy(before).to(device),
            after=torch.from_numpy(after).to(device),
            others=others,
        )

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """`size` transitions drawn uniformly, with a leading agents axis of one."""
        drawn = torch.randint(
            len(self.rewards), (size,), generator=generator, device=self.rewards.device
        )
        trial = torch.div(drawn, self.steps, rounding_mode="floor")
        step = drawn - trial * self.steps
        first = trial * self.rows_each
        next_states = self.rows.index_select(0, first + self.after.index_select(0, step))
        # the action that follows; at a trial's end there is none, and the last one stands in
        following = drawn + (step < self.steps - 1)
        return Batch(
            states=self.rows.index_select(0, first + self.before.index_select(0, step))[None],
            actions=self.actions.index_select(0, drawn)[None],
            rewards=self.rewards.index_select(0, drawn)[None],
            next_states=next_states[None],
            continues=self.continues.index_select(0, drawn)[None],
            next_actions=self.actions.index_select(0, following)[None],
            others=self._others(drawn, next_states),
        )

    def _others(self, drawn: Tensor, next_states: Tensor) -> OtherOutcomes | None:
        """Other outcomes of the transitions drawn (B,): same next observation, other belief."""
        if self.others is None:
            return None
        index = self.others.index.index_select(0, drawn)
        places = (index >= 0).nonzero().squeeze(1)
        found = index.index_select(0, places)
        beliefs = self.others.beliefs.index_select(0, found)
        observations = next_states.index_select(0, places)[:, : -beliefs.shape[1]]
        return OtherOutcomes(
            places=places,
            chances=self.others.chances.index_select(0, found)[None],
            rewards=self.others.rewards.index_select(0, found)[None],
            next_states=torch.cat([observations, beliefs], 1)[None],
        )

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every hyper-state coordinate, (S,) each."""
        means, deviations = [], []
        for column in self.rows.unbind(1):  # one at a time: in double they would fill the memory
            wide = column.cpu().double()
            means.append(wide.mean())
            deviations.append(wide.std())
        return (
            torch.stack(means).float(),
            torch.stack(deviations).float().clamp_min(SMALLEST_DEVIATION),
        )


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


def _rows(
    observations: NDArray[np.float32], beliefs: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Hyper-states (trials * K * (H + 1), S) from fields that lead with (tasks, trials)."""
    episodes, rows_each, width = observations.shape[2:]
    horizon = rows_each - 1
    observations = observations.reshape(-1, episodes, rows_each, width)
    if beliefs is None:
        return observations.reshape(-1, width)
    beliefs = beliefs.reshape(len(observations), episodes * horizon + 1, -1)
    rows = np.empty((*observations.shape[:3], width + beliefs.shape[2]), np.float32)
    rows[..., :width] = observations
    for episode in range(episodes):
        steps = slice(episode * horizon, (episode + 1) * horizon + 1)
        rows[:, episode, :, width:] = beliefs[:, steps]
    return rows.reshape(-1, rows.shape[-1])


def _places(layout: HyperStateLayout) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of a trial before and after each of its T steps, (T,) each."""
    piece, step = np.divmod(np.arange(layout.steps), layout.horizon)
    before = piece * (layout.horizon + 1) + step
    ends = (step == layout.horizon - 1) & ((piece + 1) % layout.pieces == 0)
    resets = ends & (piece < layout.episodes - 1)
    return before, before + np.where(resets, 2, 1)


def _read_others(store: HyperStates, device: str) -> OtherTable:
    """The other outcomes in the store, read task by task: most steps have none."""
    layout = store.layout
    each = layout.trials * layout.steps
    index = np.full((layout.tasks, each), -1, np.int64)
    parts: list[dict[str, NDArray[Any]]] = []
    found = 0
    for task in range(layout.tasks):
        fields = store.read(["other_chances", "other_rewards", "other_beliefs"], task)
        flat = {name: array.reshape(each, -1) for name, array in fields.items()}
        doubt = flat["other_chances"][:, 0] > 0
        index[task, doubt] = found + np.arange(doubt.sum())
        found += int(doubt.sum())
        parts.append({name: array[doubt] for name, array in flat.items()})
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return OtherTable(
        index=torch.from_numpy(index.reshape(-1)).to(device),
        chances=torch.from_numpy(joined["other_chances"][:, 0]).to(device),
        rewards=torch.from_numpy(joined["other_rewards"][:, 0]).to(device),
        beliefs=torch.from_numpy(joined["other_beliefs"]).to(device),
    )
