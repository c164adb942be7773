"""Donor plans: episodes of other tasks whose rewards under a task were recomputed in advance.

Where an exact reward needs a simulator's state (`Spec.infos`), recomputing it for every batch would
cost more than the training itself. So for every task some donor episodes are chosen once, spread
evenly over the other tasks, and their rewards under it are kept; batches draw among them. The law
of a relabelled trial is that of fresh draws as long as there are many more planned episodes than a
batch uses.

Where the goal is a body that can be touched (`Spec.solid_goal`), an episode that touches it in
either task could not have gone on so in the other: `shared` counts the steps before that, and a
plan that is `dropping` is drawn from in those only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from algorithms.errors import AlgorithmError
from datasets.checkpoints import load_tensors, save_tensors

Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

PLAN_FILE = "plan.safetensors"


@dataclass(frozen=True)
class DonorPlan:
    """P donor episodes for each of N tasks.

    `task`, `trial` and `episode` (N, P) say whose they are; `rewards` (N, P, H) f4 and
    `terminations` (N, P, H) are recomputed under the task; `shared` (N, P) counts the first steps
    that the task's own dynamics could have taken; `usable` (N, P) is what may be drawn, in its
    `shared` first steps alone if `dropping`.
    """

    task: Int64
    trial: Int64
    episode: Int64
    rewards: Float32
    terminations: Bool
    shared: Int64
    usable: Bool
    dropping: bool = False

    @property
    def horizon(self) -> int:
        """H, the steps of an episode."""
        return int(self.rewards.shape[2])

    def among(self, rows: Int64, firsts: Int64) -> DonorPlan:
        """The plan with only the donors among `rows` of a table of all trials usable.

        firsts (N,) is the row of each task's first trial.
        """
        return replace(self, usable=self.usable & np.isin(firsts[self.task] + self.trial, rows))

    @property
    def limit(self) -> Int64:
        """First steps of a usable episode that may be drawn, (N, P)."""
        return self.shared if self.dropping else np.full_like(self.shared, self.horizon)

    def allows(self, own: Int64, columns: Int64, ends: Int64) -> Bool:
        """Whether donors (n, slots) of the tasks own (n,) may be drawn up to step ends (slots,)."""
        target = own[:, None]
        return self.usable[target, columns] & (self.limit[target, columns] >= ends)

    def draw(self, rng: np.random.Generator, own: Int64, ends: Int64) -> Int64:
        """Donors for trials of the tasks own (n,), columns of the plan, (n, slots).

        Slot s takes steps of an episode up to step ends[s]. In a slot of one task's trials donors
        come equally often but for one; -1 where none may be drawn.
        """
        slots = len(ends)
        keys = rng.random((slots, len(own), self.usable.shape[1]))
        rank = _rank_within(own)  # of trials of one task the r-th takes the r-th best key
        for task in np.unique(own):
            places = np.flatnonzero(own == task)
            keys[:, places] = keys[:, places[:1]]
        allowed = self.usable[own] & (self.limit[own] >= ends[:, None, None])  # (slots, n, P)
        keys[~allowed] = np.inf
        counts = allowed.sum(2)
        order = np.argsort(keys, axis=-1)
        best = (rank % np.maximum(counts, 1))[..., None]
        picked: Int64 = np.take_along_axis(order, best, -1)[..., 0]
        return np.where(counts, picked, -1).T

    def draw_freely(self, rng: np.random.Generator, own: Int64, count: int) -> Int64:
        """Usable donors for the tasks own (n,), columns of the plan, (n, count), any often.

        Where a task has none, what stands there is not for use.
        """
        usable = self.usable[own]
        order = np.argsort(~usable, axis=1, kind="stable")  # the usable ones first
        drawn = rng.integers(0, np.maximum(usable.sum(1), 1)[:, None], (len(own), count))
        return np.take_along_axis(order, drawn, 1)


def _rank_within(own: Int64) -> Int64:
    """For each entry, how many equal ones stand before it."""
    order = np.argsort(own, kind="stable")
    ordered = own[order]
    begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[begins, len(own)])
    rank = np.empty(len(own), np.int64)
    rank[order] = np.arange(len(own)) - np.repeat(begins, lengths)
    return rank


def choose_donors(
    rng: np.random.Generator, trials: Sequence[int], episodes: int, count: int
) -> tuple[Int64, Int64, Int64]:
    """Whose episodes are planned: task, trial and episode, (N, count) each.

    trials gives how many each of the N tasks has. The other tasks take turns in random order, so
    that each gives equally many but for one; a task's episodes come once before any comes again.
    """
    tasks = len(trials)
    if tasks < 2:
        raise AlgorithmError("a donor plan needs at least two tasks, there is one")
    donors = np.empty((tasks, count), np.int64)
    picked = np.empty((tasks, count), np.int64)
    for target in range(tasks):
        others = np.delete(np.arange(tasks), target)
        rounds = -(-count // len(others))
        turns = np.concatenate([rng.permutation(others) for _ in range(rounds)])[:count]
        donors[target] = turns
        for donor in others.tolist():
            places = np.flatnonzero(turns == donor)
            room = trials[donor] * episodes
            passes = [rng.permutation(room) for _ in range(-(-len(places) // room))]
            if passes:
                picked[target, places] = np.concatenate(passes)[: len(places)]
    return donors, picked // episodes, picked % episodes


def save_plan(folder: Path, plan: DonorPlan) -> None:
    """Write the plan's file into `folder`."""
    names = [name for name in DonorPlan.__dataclass_fields__ if name != "dropping"]
    note = {"dropping": True} if plan.dropping else {}
    save_tensors(folder / PLAN_FILE, {name: getattr(plan, name) for name in names}, note)


def load_plan(folder: Path) -> DonorPlan:
    """Read a plan.

    Raises:
        DataError: the file is missing or damaged.
    """
    arrays, note = load_tensors(folder / PLAN_FILE)
    return DonorPlan(**arrays, dropping=bool(note.get("dropping", False)))
