"""Transitions of whole tasks as one table on the device, a slot for each task.

A trial of K episodes of H steps is K * (H + 1) rows. The row after a step is its next hyper-state:
the true next observation inside an episode, the next episode's reset observation with the belief
carried on at its end, and the last observation at the end of the trial, which is a truncation and
bootstraps. Where behaviour was put together from pieces, a piece's end is no reset: what follows it
there is its own last observation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithms.learners.base import Batch, OtherOutcomes
from datasets.hyper_state_layout import HyperStateLayout

SMALLEST_DEVIATION = 1e-4


@dataclass(frozen=True)
class OtherTable:
    """The other outcomes of those transitions that have one; M, room for equally many a slot.

    index (transitions,) int64, an entry of the rest or -1; chances and rewards (M,); beliefs
    (M, 2L).
    """

    index: Tensor
    chances: Tensor
    rewards: Tensor
    beliefs: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Everything, slot after slot."""
        return self.index, self.chances, self.rewards, self.beliefs


@dataclass(frozen=True)
class HyperStateTable:
    """All transitions, trial after trial, slot after slot.

    rows (slots * trials * K * (H + 1), S); actions (slots * trials * T, act), or int64 without act
    if discrete; rewards, continues (slots * trials * T,). before and after (T,) are the rows of
    each step's hyper-states within its trial.
    """

    rows: Tensor
    actions: Tensor
    rewards: Tensor
    continues: Tensor
    before: Tensor
    after: Tensor
    others: OtherTable | None = None

    @classmethod
    def empty(
        cls, layout: HyperStateLayout, slots: int, beliefs: bool, others: int, device: str
    ) -> HyperStateTable:
        """Room for `slots` tasks of a store, with `others` other outcomes each; not filled in.

        Args:
            beliefs: whether rows are hyper-states; without, they are observations alone, and
                other outcomes are left out.
        """
        latent = 2 * layout.latent_dim
        trials = slots * layout.trials
        transitions = trials * layout.steps
        rows = trials * layout.episodes * (layout.horizon + 1)
        if layout.n_actions is None:
            actions = torch.empty(transitions, layout.action_dim, device=device)
        else:
            actions = torch.empty(transitions, dtype=torch.int64, device=device)
        room = None
        if beliefs and layout.outcomes:
            room = OtherTable(
                index=torch.empty(transitions, dtype=torch.int64, device=device),
                # an entry that no transition has is finite all the same: it is drawn at chance 0
                chances=torch.zeros(slots * others, device=device),
                rewards=torch.zeros(slots * others, device=device),
                beliefs=torch.zeros(slots * others, latent, device=device),
            )
        before, after = _places(layout)
        width = layout.observation_dim + (latent if beliefs else 0)
        return cls(
            rows=torch.empty(rows, width, device=device),
            actions=actions,
            rewards=torch.empty(transitions, device=device),
            continues=torch.empty(transitions, device=device),
            before=torch.from_numpy(before).to(device),
            after=torch.from_numpy(after).to(device),
            others=room,
        )

    @property
    def steps(self) -> int:
        """T, steps of a trial."""
        return len(self.before)

    @property
    def rows_each(self) -> int:
        """Rows of a trial, K * (H + 1)."""
        return len(self.rows) * self.steps // len(self.rewards)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Everything that tasks differ in, slot after slot."""
        own = (self.rows, self.actions, self.rewards, self.continues)
        return own if self.others is None else own + self.others.tensors

    def put(self, slot: int, task: HyperStateTable) -> None:
        """Copy a table of one task into a slot."""
        for own, new in zip(self.tensors, task.tensors, strict=True):
            own[slot * len(new) : (slot + 1) * len(new)].copy_(new)
        if self.others is not None and task.others is not None:
            each, room = len(task.others.index), len(task.others.chances)
            index = self.others.index[slot * each : (slot + 1) * each]
            index += slot * room * (index >= 0)

    def sample(
        self, size: int, generator: torch.Generator, fixed_shapes: bool | None = None
    ) -> Batch:
        """`size` transitions drawn uniformly, with a leading agents axis of one.

        With `fixed_shapes`, by default on other devices than CPUs, every transition has another
        outcome, of chance 0 where there is none: how many there are would have to be waited for.
        """
        if fixed_shapes is None:
            fixed_shapes = self.rows.device.type != "cpu"
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
            others=self._others(drawn, next_states, fixed_shapes),
        )

    def _others(self, drawn: Tensor, next_states: Tensor, fixed: bool) -> OtherOutcomes | None:
        """Other outcomes of the transitions drawn (B,): same next observation, other belief."""
        if self.others is None or not len(self.others.chances):
            return None
        index = self.others.index.index_select(0, drawn)
        if fixed:
            places, found = torch.arange(len(drawn), device=drawn.device), index.clamp_min(0)
            chances = self.others.chances.index_select(0, found) * (index >= 0)
        else:
            places = (index >= 0).nonzero().squeeze(1)
            found = index.index_select(0, places)
            chances = self.others.chances.index_select(0, found)
        beliefs = self.others.beliefs.index_select(0, found)
        observations = next_states.index_select(0, places)[:, : -beliefs.shape[1]]
        return OtherOutcomes(
            places=places,
            chances=chances[None],
            rewards=self.others.rewards.index_select(0, found)[None],
            next_states=torch.cat([observations, beliefs], 1)[None],
        )


def moments(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every hyper-state coordinate, (S,) each.

    Args:
        parts: all rows (n, S), at once or a part after the other, which are joined pairwise
            (Chan, Golub and LeVeque, 1983).
    """
    count, mean, variance = 0, torch.empty(0), torch.empty(0)
    for rows in parts:
        more, other_mean, other_variance = len(rows), *_moments(rows)
        if count == 0:
            count, mean, variance = more, other_mean, other_variance
            continue
        total, gap = count + more, other_mean - mean
        squares = (count - 1) * variance + (more - 1) * other_variance
        squares += gap**2 * (count * more / total)
        count, mean, variance = total, mean + gap * (more / total), squares / (total - 1)
    return mean.float(), variance.sqrt().float().clamp_min(SMALLEST_DEVIATION)


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (S,) of rows (n, S), in double."""
    means, variances = [], []
    for column in rows.unbind(1):  # one at a time: in double they would fill the memory
        wide = column.cpu().double()
        means.append(wide.mean())
        variances.append(wide.var())
    return torch.stack(means), torch.stack(variances)


def _places(layout: HyperStateLayout) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of a trial before and after each of its T steps, (T,) each."""
    piece, step = np.divmod(np.arange(layout.steps), layout.horizon)
    before = piece * (layout.horizon + 1) + step
    ends = (step == layout.horizon - 1) & ((piece + 1) % layout.pieces == 0)
    resets = ends & (piece < layout.episodes - 1)
    return before, before + np.where(resets, 2, 1)
