"""What a trained belief expected of each step of one trial: for pictures, no stage of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from algorithms.filtering import belief_rewards
from algorithms.vae_files import load_vae
from datasets.trials import Trials
from environments.base import Actions, Float32, TaskFamily
from stages.seeds import torch_generator

SAMPLES = 20  # latents


def predicted_rewards(
    vae: Path,
    family: TaskFamily,
    observations: Float32,
    actions: Actions,
    rewards: Float32,
    beliefs: Float32,
) -> Float32 | None:
    """The reward expected before each step for what was then done, (K, H); None: no decoder.

    That is the mean over latents drawn from the belief before the step, decoded for the transition
    (s, a, s') that followed, of observations (K, H + 1, obs), actions (K, H, act), rewards (K, H)
    and beliefs (T + 1, 2L).
    """
    model = load_vae(vae, "cpu")
    if model.reward_decoder is None:
        return None
    ends: NDArray[np.bool_] = np.zeros((1, *rewards.shape), np.bool_)
    trial = Trials(observations[None], actions[None], rewards[None], ends, ends)
    generator = torch_generator(0, "video", "latents")
    (expected,) = belief_rewards(model, trial, beliefs[None], family, SAMPLES, generator, 1)
    return np.asarray(expected, np.float32)
