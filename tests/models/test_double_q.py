"""The compiled loops of double Q-learning against torch's own gradients."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from models.kernels.double_q import best_values, squared_errors
from models.kernels.parts import Float32

ACTIONS = 5


def networks(agents: int, widths: tuple[int, ...], seed: int) -> tuple[list[Tensor], list[Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    sizes = list(pairwise(widths))
    weights = [torch.randn(agents, *size, generator=draw) / size[0] ** 0.5 for size in sizes]
    return weights, [torch.randn(agents, 1, outer, generator=draw) for _, outer in sizes]


def values(states: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    hidden = states
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = (torch.relu(hidden) if layer else hidden) @ weight + bias
    return hidden


def arrays(tensors: list[Tensor]) -> list[Float32]:
    return [tensor.detach().numpy() for tensor in tensors]


@pytest.mark.parametrize("agents", [1, 3])
@pytest.mark.parametrize("batch", [1, 7, 513, 1100])
@pytest.mark.parametrize("hidden", [(), (6,), (16, 9), (8, 7, 64)])
def test_values_and_gradients_are_torchs(agents: int, batch: int, hidden: tuple[int, ...]) -> None:
    weights, biases = networks(agents, (3, *hidden, ACTIONS), 0)
    target_weights, target_biases = networks(agents, (3, *hidden, ACTIONS), 1)
    draw = torch.Generator().manual_seed(2)
    states = torch.randn(agents, batch, 3, generator=draw)
    targets = torch.randn(agents, batch, generator=draw)
    actions = torch.randint(ACTIONS, (agents, batch), generator=draw)

    best = values(states, weights, biases).argmax(2, keepdim=True)
    wanted = values(states, target_weights, target_biases).gather(2, best).squeeze(2)
    nets = (weights, biases, target_weights, target_biases)
    found = best_values(states.numpy(), *map(arrays, nets))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)

    leaves = [leaf.requires_grad_() for leaf in (*weights, *biases)]
    chosen = values(states, weights, biases).gather(2, actions[..., None]).squeeze(2)
    losses = (chosen - targets).square().mean(1)
    gradients = torch.autograd.grad(losses.sum(), leaves)
    errors, q, by_weights, by_biases = squared_errors(
        states.numpy(), actions.numpy(), targets.numpy(), arrays(weights), arrays(biases)
    )
    np.testing.assert_allclose(errors, losses.detach(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(q, chosen.detach().mean(1), rtol=1e-4, atol=1e-5)
    for ours, theirs in zip((*by_weights, *by_biases), gradients, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_the_same_bytes_on_any_number_of_threads(with_threads: Callable[[int], None]) -> None:
    weights, biases = map(arrays, networks(2, (3, 16, ACTIONS), 0))
    draw = np.random.default_rng(0)
    states = draw.standard_normal((2, 1100, 3)).astype(np.float32)
    actions = draw.integers(ACTIONS, size=(2, 1100))
    results = []
    for threads in (1, 2, 5):
        with_threads(threads)
        best = best_values(states, weights, biases, weights, biases)
        losses, q, *gradients = squared_errors(states, actions, best, weights, biases)
        each = (best, losses, q, *(array for group in gradients for array in group))
        results.append(b"".join(array.tobytes() for array in each))
    assert len(set(results)) == 1
