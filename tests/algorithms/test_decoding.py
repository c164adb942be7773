"""What posteriors decode: drawn steps, and the average over the tasks that explain a history."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_relabelling import collect

from algorithms.config import ElboConfig, RelabellingConfig
from algorithms.decoding import agreement, choose_decoded, explaining, own_steps
from algorithms.donors import Donors
from algorithms.elbo import elbo
from algorithms.elbo_batch import make_batch
from algorithms.relabelling import relabel_batch
from datasets.trials import Trials
from environments.base import TaskFamily
from environments.registry import load_family
from models.config import EncoderConfig, RewardDecoderConfig, VaeModelConfig
from models.vae import Vae

AVERAGED = RelabellingConfig(donors="any-task", whole_trials=1.0, task_averaging=True)


class Logs:
    """Trials of every goal of a family, five a task, and a relabelled batch of them."""

    def __init__(self, name: str, config: RelabellingConfig, tasks: int = 21) -> None:
        self.family: TaskFamily = load_family(name)
        every = self.family.all_tasks()
        drawn = self.family.sample_tasks(tasks, np.random.default_rng(0))
        self.tasks = drawn if every is None else every
        self.owner = np.repeat(np.arange(len(self.tasks)), 5)
        self.table = collect(self.family, self.tasks[self.owner], 1)
        pools = [np.flatnonzero(self.owner == task) for task in range(len(self.tasks))]
        self.donors = Donors(self.table, pools, self.family, self.tasks)
        self.config = config
        self.rng = np.random.default_rng(3)

    def batch(self, rows: np.ndarray) -> Trials:
        own = self.owner[rows]
        return relabel_batch(self.rng, self.table.select(rows), own, self.donors, self.config)

    def choose(self, batch: Trials, rows: np.ndarray):
        return choose_decoded(self.rng, batch, self.owner[rows], self.donors, self.config)


def test_a_trial_decodes_its_own_steps_by_default() -> None:
    logs, rows = Logs("gridworld", RelabellingConfig()), np.arange(0, 100, 7)
    batch = logs.batch(rows)
    decoded = logs.choose(batch, rows)
    assert decoded.average is None
    flat = batch.rewards.reshape(len(rows), -1)
    np.testing.assert_array_equal(decoded.rewards, flat)
    np.testing.assert_array_equal(
        decoded.next_observations[:, :-1],
        batch.next_observations.reshape(len(rows), -1, 2)[:, :-1],
    )


def test_drawn_steps_are_the_logs_under_the_trials_task() -> None:
    logs, rows = Logs("gridworld", RelabellingConfig(decoded_steps=50)), np.arange(0, 100, 7)
    decoded = logs.choose(logs.batch(rows), rows)
    assert decoded.rewards.shape == (len(rows), 50)
    expected = logs.family.reward(
        decoded.observations,
        decoded.actions,
        decoded.next_observations,
        logs.tasks[logs.owner[rows]][:, None],
    )
    np.testing.assert_array_equal(decoded.rewards, expected)
    every = own_steps(logs.table)
    known = np.concatenate(
        [every.observations, every.actions, every.next_observations], -1
    ).reshape(-1, 5)
    found = np.concatenate(
        [decoded.observations, decoded.actions, decoded.next_observations], -1
    ).reshape(-1, 5)
    assert {tuple(step) for step in found} <= {tuple(step) for step in known}
    assert len(np.unique(found, axis=0)) > 40


def test_explaining_weights_are_the_exact_posterior_of_the_gridworld() -> None:
    """All 21 goals are tasks there, so the average is over the exact Bayes posterior."""
    logs, rows = Logs("gridworld", AVERAGED), np.arange(100)
    batch = logs.batch(rows)
    weights = explaining(agreement(own_steps(batch), logs.owner[rows], logs.family, logs.tasks))
    cells = logs.family.cell(batch.next_observations).reshape(len(rows), -1)
    exact = logs.family.posterior(cells, batch.rewards.reshape(len(rows), -1))
    goals = logs.family.cell(logs.tasks.astype(np.float32))
    np.testing.assert_allclose(weights, exact[..., goals], atol=1e-6)


@pytest.mark.parametrize("name", ["gridworld", "point_robot", "point_robot_sparse"])
def test_explaining_weights_match_the_definition(name: str) -> None:
    logs, rows = Logs(name, AVERAGED), np.arange(0, 100, 9)
    batch = logs.batch(rows)
    own = logs.owner[rows]
    weights = explaining(agreement(own_steps(batch), own, logs.family, logs.tasks))
    for b in range(len(rows)):
        trial = batch.select(np.array([b]))
        fits = np.ones(len(logs.tasks), bool)
        for i in range(trial.steps + 1):
            np.testing.assert_allclose(weights[b, i], fits / fits.sum(), atol=1e-6)
            if i == trial.steps:
                break
            k, h = divmod(i, trial.rewards.shape[2])
            for g, task in enumerate(logs.tasks):
                reward = logs.family.reward(
                    trial.observations[0, k, h],
                    trial.actions[0, k, h],
                    trial.observations[0, k, h + 1],
                    task,
                )
                fits[g] &= abs(float(reward) - float(trial.rewards[0, k, h])) < 1e-5
        assert weights[b, -1, own[b]] > 0


def test_behaviour_tells_nothing_even_in_the_logs_own_trials() -> None:
    """A trial heads for its goal from the first step; all goals are as likely until a reward."""
    logs, rows = Logs("gridworld", AVERAGED.model_copy(update={"fraction": 0.0})), np.arange(100)
    trials = logs.batch(rows)
    np.testing.assert_array_equal(trials.actions, logs.table.actions[rows])
    average = logs.choose(trials, rows).average
    assert average is not None
    np.testing.assert_allclose(average.weights[:, 0], 1 / 21)
    unfound = (trials.rewards.reshape(100, -1)[:, :3] < 0).all(1)
    assert unfound.any()
    assert (average.weights[unfound, 3].max(-1) <= 1 / 17).all()


@pytest.mark.parametrize(
    ("name", "likelihood"),
    [
        ("gridworld", "bernoulli-per-cell"),
        ("gridworld", "bernoulli"),
        ("point_robot", "squared-error"),
    ],
)
def test_the_averaged_loss_is_the_mean_of_the_tasks_losses(name: str, likelihood: str) -> None:
    """Against one ELBO a task: weights are uniform here, so the mean is plain."""
    logs, rows = Logs(name, AVERAGED), np.array([0, 30])
    reward = RewardDecoderConfig(likelihood=likelihood, layers=(6, 5))
    spec = logs.family.spec
    vae = Vae(
        VaeModelConfig(encoder=EncoderConfig(latent_dim=3, gru_size=6), reward_decoder=reward),
        spec.observation_dim,
        spec.action_dim,
        spec.n_actions,
        spec.cells,
    )
    batch = logs.batch(rows)
    decoded = logs.choose(batch, rows)
    assert decoded.average is not None
    uniform = np.full_like(decoded.average.weights, 1 / len(logs.tasks))
    averaged = decoded._replace(average=decoded.average._replace(weights=uniform))
    noise = torch.randn(2, 33, 3, generator=torch.Generator().manual_seed(0))
    posteriors = torch.tensor([[0, 7, 32], [3, 3, 20]])

    def loss(chosen) -> torch.Tensor:
        made = make_batch(batch, logs.family, reward, "cpu", chosen)
        return elbo(vae, made, noise, ElboConfig(), posteriors).loss

    losses = [
        loss(decoded._replace(rewards=decoded.average.rewards[..., g], average=None))
        for g in range(len(logs.tasks))
    ]
    mean = torch.stack(losses).mean()
    found = loss(averaged)
    for one, other in zip(
        torch.autograd.grad(found, list(vae.parameters())),
        torch.autograd.grad(mean, list(vae.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    if likelihood != "squared-error":
        torch.testing.assert_close(found, mean, rtol=1e-5, atol=1e-4)


def test_nothing_is_drawn_where_relabelling_is_off() -> None:
    config = AVERAGED.model_copy(update={"enabled": False, "decoded_steps": 9})
    logs, rows = Logs("gridworld", config), np.arange(4)
    batch = logs.batch(rows)
    decoded = logs.choose(batch, rows)
    assert decoded.average is None
    np.testing.assert_array_equal(decoded.rewards, logs.table.rewards[rows].reshape(4, -1))
    assert isinstance(batch, Trials)
