"""Beliefs of stored trials against the online filter, belief rewards, and the model's files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from algorithms.elbo_batch import check_likelihood, is_high, make_batch
from algorithms.errors import AlgorithmError
from algorithms.filtering import (
    OnlineFilter,
    belief_rewards,
    encode_outcomes,
    encode_trials,
    predict_rewards,
)
from algorithms.vae_diagnostics import diagnose, reliability
from algorithms.vae_files import describe, load_description, load_vae, save_vae
from datasets.errors import DataError
from datasets.trials import Trials
from environments.registry import load_family
from models.config import EncoderConfig, RewardDecoderConfig, StateDecoderConfig, VaeModelConfig
from models.vae import Vae

N, K, H = 5, 2, 4
CELLS = VaeModelConfig(
    encoder=EncoderConfig(gru_size=8, action_embedding=0),
    reward_decoder=RewardDecoderConfig(likelihood="bernoulli-per-cell"),
)
SCALAR = VaeModelConfig(
    encoder=EncoderConfig(gru_size=8, sees_observation=True),
    reward_decoder=RewardDecoderConfig(likelihood="bernoulli"),
)
SQUARED = VaeModelConfig(encoder=EncoderConfig(gru_size=8))
CASES = [("gridworld", CELLS), ("point_robot_sparse", SCALAR), ("point_robot", SQUARED)]


def make_trials(name: str) -> Trials:
    """Random walks of one task."""
    family, rng = load_family(name), np.random.default_rng(0)
    spec = family.spec
    tasks = np.repeat(family.sample_tasks(1, rng), N, 0)
    simulator = family.simulator(tasks, "wide")
    observations = np.empty((N, K, H + 1, spec.observation_dim), np.float32)
    actions = family.random_actions((N, K, H), rng)
    rewards = np.empty((N, K, H), np.float32)
    for k in range(K):
        observations[:, k, 0] = simulator.reset(rng)
        for h in range(H):
            step = simulator.step(actions[:, k, h])
            observations[:, k, h + 1], rewards[:, k, h] = step.observations, step.rewards
    ends = np.zeros((N, K, H), np.bool_)
    return Trials(observations, actions, rewards, ends, ends)


def make_vae(name: str, model: VaeModelConfig) -> Vae:
    """An untrained model for a family."""
    spec = load_family(name).spec
    return describe(model, name, spec, K, H).build(torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "model"), CASES)
@pytest.mark.parametrize("block", [1, 2, 100])
def test_encoding_equals_the_online_filter(name: str, model: VaeModelConfig, block: int) -> None:
    vae, trials = make_vae(name, model), make_trials(name)
    beliefs = encode_trials(vae, trials, block)
    online = OnlineFilter(vae)
    np.testing.assert_allclose(online.reset(N), beliefs[:, 0], atol=1e-6)
    for k in range(K):
        for h in range(H):
            belief = online.update(
                trials.actions[:, k, h],
                trials.rewards[:, k, h],
                trials.observations[:, k, h + 1],
                trials.observations[:, k, h],
            )
            np.testing.assert_allclose(belief, beliefs[:, k * H + h + 1], atol=1e-5)


@pytest.mark.parametrize("block", [2, 100])
@pytest.mark.parametrize(("name", "model"), CASES[:2])
def test_other_outcomes_are_the_encoders_own(name: str, model: VaeModelConfig, block: int) -> None:
    """A loop over every step: count the tasks that disagree, replay the history with the other."""
    family, vae = load_family(name), make_vae(name, model)
    tasks = family.sample_tasks(12, np.random.default_rng(1))
    trials = make_trials(name)
    own = np.arange(N)
    flat = [a.reshape(N, K * H, -1) for a in (trials.observations[:, :, :-1], trials.actions)]
    after = trials.next_observations.reshape(N, K * H, -1)
    under = np.stack([family.reward(*flat, after, task) for task in tasks], -1)  # (N, T, tasks)
    rewards = under[own, :, own]
    trials = replace(trials, rewards=rewards.reshape(N, K, H).astype(np.float32))
    found = encode_outcomes(vae, trials, own, family, tasks, block)
    np.testing.assert_allclose(found.beliefs, encode_trials(vae, trials, block), atol=1e-6)
    chances, others = found.other_chances.reshape(N, -1), found.other_rewards.reshape(N, -1)
    low, high = family.spec.binary_reward or (0.0, 0.0)
    in_doubt = 0
    for trial in range(N):
        for t in range(K * H):
            explain = (under[trial, :t] == rewards[trial, :t, None]).all(0)
            differ = under[trial, t] != rewards[trial, t]
            chance = (explain & differ).sum() / explain.sum()
            assert chances[trial, t] == pytest.approx(chance, abs=1e-6)
            if not chance:
                assert not others[trial, t]
                assert not found.other_beliefs[trial, t].any()
                continue
            in_doubt += 1
            assert others[trial, t] == pytest.approx(low + high - rewards[trial, t], abs=1e-6)
            changed = trials.rewards[trial : trial + 1].copy()
            changed.reshape(-1)[t] = others[trial, t]
            history = replace(trials.select(slice(trial, trial + 1)), rewards=changed)
            belief = encode_trials(vae, history, 1)[0, t + 1]
            np.testing.assert_allclose(found.other_beliefs[trial, t], belief, atol=1e-5)
    assert in_doubt


def test_other_outcomes_need_two_rewards() -> None:
    trials = make_trials("point_robot")
    family = load_family("point_robot")
    with pytest.raises(AlgorithmError, match="need a reward of two values, but point_robot"):
        encode_outcomes(
            make_vae("point_robot", SQUARED), trials, np.zeros(N, int), family, np.zeros((1, 2)), 4
        )


def test_updating_before_reset_is_refused() -> None:
    online = OnlineFilter(make_vae("gridworld", CELLS))
    with pytest.raises(AlgorithmError, match="reset"):
        online.update(np.zeros((1, 1), np.int64), np.zeros(1), np.zeros((1, 2)), np.zeros((1, 2)))


@pytest.mark.parametrize(("name", "model"), CASES)
def test_belief_rewards_use_the_belief_before_the_step(name: str, model: VaeModelConfig) -> None:
    vae, trials, family = make_vae(name, model), make_trials(name), load_family(name)
    beliefs = encode_trials(vae, trials, 100)
    # With next to no variance, the average over samples is the prediction at the mean.
    beliefs[..., 5:] = -40
    found = belief_rewards(vae, trials, beliefs, family, 3, torch.Generator().manual_seed(0), 2)
    batch = make_batch(trials, family, model.reward_decoder)
    with torch.no_grad():
        before = torch.from_numpy(beliefs[:, :-1, :5])
        expected = predict_rewards(vae, before, batch, family).reshape(N, K, H)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    if family.spec.binary_reward is not None:
        low, high = family.spec.binary_reward
        assert (found >= low).all()
        assert (found <= high).all()


def test_belief_rewards_do_not_depend_on_the_reward_they_score() -> None:
    vae, trials, family = make_vae("gridworld", CELLS), make_trials("gridworld"), None
    family = load_family("gridworld")
    changed = trials.rewards.copy()
    changed[:, -1, -1] = 1.0
    other = Trials(
        trials.observations, trials.actions, changed, trials.terminations, trials.truncations
    )
    found = [
        belief_rewards(
            vae, one, encode_trials(vae, one, 9), family, 4, torch.Generator().manual_seed(0), 9
        )
        for one in (trials, other)
    ]
    np.testing.assert_array_equal(*found)


def test_belief_rewards_need_a_reward_decoder() -> None:
    model = VaeModelConfig(
        reward_decoder=RewardDecoderConfig(enabled=False),
        state_decoder=StateDecoderConfig(enabled=True),
    )
    vae, trials = make_vae("point_robot_wind", model), make_trials("point_robot_wind")
    beliefs = encode_trials(vae, trials, 9)
    family, draws = load_family("point_robot_wind"), torch.Generator()
    with pytest.raises(AlgorithmError, match=r"reward_decoder\.enabled was false"):
        belief_rewards(vae, trials, beliefs, family, 1, draws, 9)


def test_targets_are_one_for_the_high_reward() -> None:
    trials, family = make_trials("gridworld"), load_family("gridworld")
    batch = make_batch(trials, family, CELLS.reward_decoder)
    rewards = torch.from_numpy(trials.rewards.reshape(N, K * H))
    assert torch.equal(batch.targets == 1, rewards > 0)
    assert torch.equal(
        batch.cells, torch.from_numpy(family.cell(trials.next_observations)).flatten(1)
    )
    with pytest.raises(AlgorithmError, match="not one of two values"):
        is_high(trials.rewards, None)


@pytest.mark.parametrize(
    ("name", "likelihood", "message"),
    [
        ("point_robot", "bernoulli", "use squared-error"),
        ("point_robot_sparse", "bernoulli-per-cell", "use bernoulli"),
    ],
)
def test_a_likelihood_that_does_not_fit_is_refused(
    name: str, likelihood: str, message: str
) -> None:
    with pytest.raises(AlgorithmError, match=message):
        check_likelihood(load_family(name), RewardDecoderConfig(likelihood=likelihood))


@pytest.mark.parametrize(("name", "model"), CASES)
def test_a_saved_model_is_rebuilt(name: str, model: VaeModelConfig, tmp_path: Path) -> None:
    vae, trials = make_vae(name, model), make_trials(name)
    description = describe(model, name, load_family(name).spec, K, H)
    save_vae(tmp_path, vae, description)
    loaded = load_vae(tmp_path)
    assert load_description(tmp_path) == description
    assert not any(p.requires_grad for p in loaded.parameters())
    np.testing.assert_array_equal(encode_trials(vae, trials, 9), encode_trials(loaded, trials, 9))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    spec = load_family("gridworld").spec
    save_vae(tmp_path, make_vae("gridworld", CELLS), describe(SQUARED, "gridworld", spec, K, H))
    with pytest.raises(AlgorithmError, match="does not fit"):
        load_vae(tmp_path)
    (tmp_path / "vae.json").write_text("{}")
    with pytest.raises(AlgorithmError, match="not a model's description"):
        load_vae(tmp_path)
    (tmp_path / "vae.safetensors").write_bytes(b"torn")
    save_description = describe(CELLS, "gridworld", spec, K, H).model_dump_json()
    (tmp_path / "vae.json").write_text(save_description)
    with pytest.raises(DataError, match="damaged"):
        load_vae(tmp_path)


def test_reliability_of_perfect_and_of_wrong_predictions() -> None:
    truth = np.array([0.0, 1.0, 1.0, 0.0])
    *_, perfect = reliability(truth, truth)
    predicted, observed, counts, wrong = reliability(np.full(4, 0.9), truth)
    assert perfect == 0
    assert counts.tolist() == [4]
    assert wrong == pytest.approx(0.4)
    assert (predicted[0], observed[0]) == (pytest.approx(0.9), 0.5)


@pytest.mark.parametrize(("name", "model"), CASES)
def test_diagnostics_have_what_the_report_draws(name: str, model: VaeModelConfig) -> None:
    vae, trials, family = make_vae(name, model), make_trials(name), load_family(name)
    arrays, summary = diagnose(vae, trials, family, 4, torch.Generator().manual_seed(0))
    steps = K * H
    assert arrays["rewards"].shape == arrays["reward_predictions"].shape == (N, steps)
    assert arrays["belief_deviations"].shape == (steps + 1, 5)
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert summary["trials"] == N
    if name == "gridworld":
        shape = (N, steps + 1, 25)
        assert arrays["cell_probabilities"].shape == arrays["posterior"].shape == shape
        np.testing.assert_allclose(arrays["posterior"].sum(-1), 1, atol=1e-5)
        assert summary["calibration_error"] > 0
    assert ("reliability_predicted" in arrays) == (family.spec.binary_reward is not None)
