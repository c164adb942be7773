"""State relabelling: the encoder called once a time step, over all trials of a task."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.reference.networks import PlainEncoder
from datasets.trials import Trials
from environments.base import Float32


@torch.no_grad()
def encode_trials(encoder: PlainEncoder, trials: Trials) -> Float32:
    """Beliefs (N, T + 1, 2L) of N trials; the hidden state is never reset inside a trial."""
    shape = (trials.count, trials.steps, 1)
    actions = torch.from_numpy(trials.actions.reshape(*shape, -1))
    rewards = torch.from_numpy(trials.rewards.reshape(shape))
    following = torch.from_numpy(trials.next_observations.reshape(*shape, -1))
    belief, hidden = encoder.prior(trials.count)
    beliefs = [belief]
    for step in range(trials.steps):
        belief, hidden = encoder(actions[:, step], rewards[:, step], following[:, step], hidden)
        beliefs.append(belief[:, 0])
    encoded: Float32 = torch.stack(beliefs, 1).numpy().astype(np.float32, copy=False)
    return encoded
