"""Scaled inputs of a belief: the same function of scaled data, offline and online."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from algorithms.filtering import OnlineFilter, encode_trials
from algorithms.vae_files import describe, load_vae, save_vae
from datasets.trials import Trials
from environments.registry import load_family
from models.config import VaeModelConfig
from models.vae import Vae

SHIFT = torch.tensor([3.0, -1.0])
SCALE = torch.tensor([0.5, 4.0])
REWARD = torch.tensor(0.25)


def make(normalise: bool) -> Vae:
    config = VaeModelConfig.model_validate(
        {"normalise": normalise, "encoder": {"gru_size": 16, "sees_observation": True}}
    )
    return Vae(config, 2, 2, generator=torch.Generator().manual_seed(3)).requires_grad_(False)


def make_trials(rng: np.random.Generator) -> Trials:
    shape = (4, 2, 5)
    ends = np.zeros(shape, np.bool_)
    return Trials(
        rng.normal(2, 1, (4, 2, 6, 2)).astype(np.float32),
        rng.uniform(-1, 1, (*shape, 2)).astype(np.float32),
        rng.normal(0, 5, shape).astype(np.float32),
        ends,
        ends,
    )


def test_beliefs_are_those_of_scaled_data() -> None:
    trials = make_trials(np.random.default_rng(0))
    vae, plain = make(True), make(False)
    assert np.array_equal(encode_trials(vae, trials, 4), encode_trials(plain, trials, 4))
    vae.set_normalisation(SHIFT, SCALE, REWARD)
    scaled = Trials(
        (trials.observations - SHIFT.numpy()) * SCALE.numpy(),
        trials.actions,
        trials.rewards * REWARD.numpy(),
        trials.terminations,
        trials.truncations,
    )
    found = encode_trials(vae, trials, 4)
    assert np.allclose(found, encode_trials(plain, scaled, 4), atol=1e-6)
    assert not np.allclose(found, encode_trials(plain, trials, 4), atol=1e-3)


def test_online_beliefs_are_those_of_whole_trials() -> None:
    trials = make_trials(np.random.default_rng(1))
    vae = make(True)
    vae.set_normalisation(SHIFT, SCALE, REWARD)
    online = OnlineFilter(vae)
    found = [online.reset(4)]
    for episode, step in np.ndindex(2, 5):
        found.append(
            online.update(
                trials.actions[:, episode, step],
                trials.rewards[:, episode, step],
                trials.observations[:, episode, step + 1],
                trials.observations[:, episode, step],
            )
        )
    whole = encode_trials(vae, trials, 4)
    assert np.allclose(torch.stack(found, 1).numpy(), whole, atol=1e-5)


def test_the_scales_are_kept_with_the_weights(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    vae = make(True)
    vae.set_normalisation(SHIFT, SCALE, REWARD)
    spec = load_family("point_robot").spec
    save_vae(folder, vae, describe(vae.config, "point_robot", spec, 2, 5))
    again = load_vae(folder)
    for name in ("input_shift", "input_scale", "reward_scale"):
        assert torch.equal(getattr(again, name), getattr(vae, name))


@pytest.mark.parametrize("normalise", [True, False])
def test_what_is_not_asked_for_leaves_no_trace(normalise: bool) -> None:
    config = VaeModelConfig(normalise=normalise)
    assert ("normalise" in config.model_dump()) == normalise
    assert ("input_shift" in make(normalise).state_dict()) == normalise
