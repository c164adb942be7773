"""A hand-made hyper-state store whose every number says where it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.hyper_state_layout import HyperStateLayout
from datasets.hyper_states import HyperStateWriter

TASKS, TRIALS, K, H, L = 2, 3, 2, 4, 2
T = K * H


def write_store(
    folder: Path,
    n_actions: int | None = None,
    belief_rewards: bool = False,
    outcomes: bool = False,
    pieces: int = 1,
    tasks: int = TASKS,
) -> None:
    """Observations (task, trial, episode, time); beliefs count t; terminations where t % 5 == 0.

    Other outcomes stand at odd steps: of reward r with chance 1 / (1 + r), reward -r, belief -b.
    """
    layout = HyperStateLayout(
        tasks,
        TRIALS,
        K,
        H,
        4,
        1,
        L,
        n_actions=n_actions,
        belief_rewards=belief_rewards,
        outcomes=outcomes,
        pieces=pieces,
    )
    step = np.arange(T).reshape(K, H)
    with HyperStateWriter(folder / "hyper_states.zarr", layout) as writer:
        for task in range(tasks):
            index = np.stack(np.meshgrid([task], *map(np.arange, (TRIALS, K, H + 1)),
                                         indexing="ij"), -1)[0]  # fmt: skip
            number = 100 * task + 10 * np.arange(TRIALS)[:, None, None] + step
            actions = number % n_actions if n_actions else number / 1000
            beliefs = 1000 * task + 100 * np.arange(TRIALS)[:, None] + np.arange(T + 1)
            fields = {
                "observations": index.astype(np.float32),
                "actions": actions[..., None].astype(np.int64 if n_actions else np.float32),
                "rewards": number.astype(np.float32),
                "terminations": np.broadcast_to(step % 5 == 0, number.shape).copy(),
                "beliefs": np.repeat(beliefs[..., None], 2 * L, -1).astype(np.float32),
            }
            if belief_rewards:
                fields["belief_rewards"] = -fields["rewards"]
            if outcomes:
                odd = np.broadcast_to(step % H % 2 == 1, number.shape)
                chances, rewards = 1 / (1 + fields["rewards"]), -fields["rewards"]
                fields["other_chances"] = np.where(odd, chances, 0).astype(np.float32)
                fields["other_rewards"] = np.where(odd, rewards, 0).astype(np.float32)
                odd_steps = odd.reshape(TRIALS, T, 1)
                others = np.where(odd_steps, -fields["beliefs"][:, :-1], 0)
                fields["other_beliefs"] = others.astype(np.float32)
            writer.write_task(task, fields)
