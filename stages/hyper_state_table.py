"""All transitions of a hyper-state store as one table on the device.

A trial of T steps is T + 1 rows, so the row after a step is its next hyper-state: the true next
observation inside an episode, the next episode's reset observation with the belief carried on at
its end, and the last observation at the end of the trial, which is a truncation and bootstraps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithms.learners.base import Batch
from datasets.hyper_states import HyperStates
from stages.config import OfflineConfig
from stages.errors import StageError

SMALLEST_DEVIATION = 1e-4


@dataclass(frozen=True)
class HyperStateTable:
    """All transitions, trial after trial, task after task.

    rows (trials * (T + 1), S); actions (trials * T, act), or (trials * T,) int64 if discrete;
    rewards, continues (trials * T,); leaps (T,) how many steps later the next hyper-state lies.
    """

    rows: Tensor
    actions: Tensor
    rewards: Tensor
    continues: Tensor
    leaps: Tensor

    @property
    def steps(self) -> int:
        """T, steps of a trial."""
        return len(self.leaps)

    @classmethod
    def load(cls, folder: Path, config: OfflineConfig, device: str) -> HyperStateTable:
        """Read the Zarr store into one table.

        Raises:
            StageError: R+ is asked for and the store has none.
            DataError: the store is damaged or larger than `memory_gb`.
        """
        store = HyperStates.open(folder / "hyper_states.zarr")
        reward = "belief_rewards" if config.use_belief_rewards else "rewards"
        if reward not in store.names:
            raise StageError(
                "offline.use_belief_rewards: the hyper-states hold no R+; "
                "set relabel.belief_rewards to true as well"
            )
        names = ["observations", "actions", "terminations", reward]
        budget = int(config.memory_gb * 2**30) // 2  # the table is a copy beside what is read
        data = store.load([*names, "beliefs"] if config.beliefs else names, budget)
        actions = data["actions"].reshape(-1, data["actions"].shape[-1])
        if actions.dtype.kind in "iu":
            actions = actions[:, 0].astype(np.int64)
        steps = store.layout.episodes * store.layout.horizon
        rewards, continues, leaps = n_step(
            torch.from_numpy(data[reward].reshape(-1, steps)),
            1.0 - torch.from_numpy(data["terminations"].reshape(-1, steps)).float(),
            config.n_steps,
            config.learner.discount,
        )
        return cls(
            rows=torch.from_numpy(_rows(data)).to(device),
            actions=torch.from_numpy(actions).to(device),
            rewards=rewards.reshape(-1).to(device),
            continues=continues.reshape(-1).to(device),
            leaps=leaps.to(device),
        )

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """`size` transitions drawn uniformly, with a leading agents axis of one."""
        drawn = torch.randint(
            len(self.rewards), (size,), generator=generator, device=self.rewards.device
        )
        trial = torch.div(drawn, self.steps, rounding_mode="floor")
        here, step = drawn + trial, drawn - trial * self.steps
        leap = self.leaps.index_select(0, step)
        # the action that follows; at a trial's end there is none, and the last one stands in
        following = drawn + torch.minimum(leap, self.steps - 1 - step)
        return Batch(
            states=self.rows.index_select(0, here)[None],
            actions=self.actions.index_select(0, drawn)[None],
            rewards=self.rewards.index_select(0, drawn)[None],
            next_states=self.rows.index_select(0, here + leap)[None],
            continues=self.continues.index_select(0, drawn)[None],
            next_actions=self.actions.index_select(0, following)[None],
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


def n_step(
    rewards: Tensor, continues: Tensor, steps: int, discount: float
) -> tuple[Tensor, Tensor, Tensor]:
    r"""n-step returns of trials: what a one-step update rule needs to make n-step targets.

    :math:`R_t = \sum_{k=0}^{m-1} \gamma^k c_{t:t+k} r_{t+k}` and
    :math:`C_t = \gamma^{m-1} c_{t:t+m}`, so that :math:`R_t + \gamma C_t V(s_{t+m})` is the target,
    where m = min(n, T - t) and :math:`c_{i:j}` is the product of the continues from i up to j. They
    are not corrected for what the log's behaviour did in between (Hessel et al., AAAI 2018).

    Args:
        rewards: (trials, T).
        continues: (trials, T), 1 - termination.
        steps: n.
        discount: gamma.

    Returns:
        R and C, (trials, T), and m, (T,) int64.
    """
    length = rewards.shape[1]
    leaps = torch.arange(length, 0, -1, device=rewards.device).clamp(max=steps)
    returns, factors = rewards.clone(), continues.clone()
    for k in range(1, min(steps, length)):
        reached = length - k  # steps that have a k-th step after them
        returns[:, :reached] += discount**k * factors[:, :reached] * rewards[:, k:]
        factors[:, :reached] *= continues[:, k:]
    factors *= discount ** (leaps - 1).to(factors.dtype)
    return returns, factors, leaps


def _rows(data: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Hyper-states (trials * (T + 1), S) from fields that lead with (tasks, trials)."""
    observations = data["observations"]  # (tasks, trials, K, H + 1, obs)
    episodes, horizon, width = (
        observations.shape[2],
        observations.shape[3] - 1,
        observations.shape[4],
    )
    observations = observations.reshape(-1, episodes, horizon + 1, width)
    beliefs = data.get("beliefs")
    extra = 0 if beliefs is None else beliefs.shape[-1]
    rows = np.empty((len(observations), episodes * horizon + 1, width + extra), np.float32)
    for episode in range(episodes):
        steps = slice(episode * horizon, (episode + 1) * horizon)
        rows[:, steps, :width] = observations[:, episode, :-1]
    rows[:, -1, :width] = observations[:, -1, -1]
    if beliefs is not None:
        rows[..., width:] = beliefs.reshape(*rows.shape[:2], extra)
    return rows.reshape(-1, width + extra)
