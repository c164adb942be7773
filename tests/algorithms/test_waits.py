"""No update makes the host wait for the device: what reads a value back is found on a CPU too."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from tape import do_as_on_a_gpu
from test_capture import batches, learner_of
from test_elbo import make_batch, make_vae
from torch import nn
from waits import Waits

from algorithms.config import ElboConfig, Rule
from algorithms.elbo import draw_posteriors, elbo
from algorithms.optimisers import optimise

ROWS, STATE, ACTIONS = 8, 4, 2


def test_waits_are_noticed() -> None:
    numbers = torch.randn(5)
    with Waits() as waits:
        float(numbers.sum())
        numbers[numbers > 0]
    assert waits.found == ["aten::_local_scalar_dense", "aten::index"]


@pytest.mark.parametrize("muon", [None, 1.0])
@pytest.mark.parametrize("rule", get_args(Rule))
def test_update_rules(rule: Rule, muon: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    do_as_on_a_gpu(monkeypatch)
    learner, batch = learner_of(rule, muon), next(batches(rule, "cpu"))
    learner.update(batch)  # whatever is prepared once
    with Waits() as waits:
        learner.update(batch)
    assert waits.found == []


def test_a_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a matrix alone: on a CPU Adam's kernel reads a rate that is a tensor."""
    do_as_on_a_gpu(monkeypatch)
    weight = nn.Parameter(torch.randn(4, 5))
    optimiser = optimise([weight], 1e-3, 1.0, clip=1.0)
    with Waits() as waits:
        optimiser.schedule(0.5)
        optimiser.step(weight.square().sum()[None])
    assert waits.found == []


@pytest.mark.parametrize(
    ("likelihood", "state", "discrete"),
    [
        ("bernoulli", True, False),
        ("bernoulli-by-product", False, False),
        ("squared-error", False, False),
        ("bernoulli-per-cell", False, True),
    ],
)
def test_the_elbo(likelihood: str, state: bool, discrete: bool) -> None:
    """In float64, which takes the way of other devices than CPUs."""
    vae, batch = make_vae(likelihood, state, discrete), make_batch(discrete, likelihood)
    trials, steps = batch.transitions.rewards.shape
    noise = torch.randn(trials, steps + 1, vae.encoder.latent_dim, dtype=torch.float64)
    optimiser = optimise(list(vae.parameters()), 1e-3, 1.0, clip=1.0)
    draws = torch.Generator().manual_seed(0)
    for _ in range(2):
        with Waits() as waits:
            decoding = draw_posteriors(trials, steps, 2, draws)
            optimiser.step(elbo(vae, batch, noise, ElboConfig(), decoding).loss[None])
    assert waits.found == []
