"""The loss of all pairs: compiled, in blocks, and one network call a pair say the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from algorithms.pair_loss import PairLikelihood, pair_loss
from models.kernels.belief import pair_losses
from models.layers import linear


def network(*widths: int) -> nn.ModuleList:
    """Linear layers between successive widths."""
    draw = torch.Generator().manual_seed(0)
    return nn.ModuleList(linear(a, b, draw) for a, b in itertools.pairwise(widths))


def plain(p: Tensor, q: Tensor, y: Tensor, layers: nn.ModuleList, kind: PairLikelihood) -> Tensor:
    """The definition, pair by pair."""
    total = p.new_zeros(())
    score = binary_cross_entropy_with_logits if kind == "bernoulli" else mse_loss
    for trial, i, step in itertools.product(*map(range, (*p.shape[:2], q.shape[1]))):
        hidden = (p[trial, i] + q[trial, step]).relu()
        *middle, last = layers
        for layer in middle:
            hidden = layer(hidden).relu()
        wanted = y[trial, step] if y.ndim == 3 else y[trial, i, step]
        total = total + score(last(hidden), wanted, reduction="sum")
    return total


@pytest.mark.parametrize("kind", ["bernoulli", "squared-error"])
@pytest.mark.parametrize("widths", [(8, 8, 1), (5, 7, 6, 3), (4, 2)])
@pytest.mark.parametrize("each_posterior", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_ways_are_the_definition(
    kind: PairLikelihood, widths: tuple[int, ...], each_posterior: bool, dtype: torch.dtype
) -> None:
    """Float32 is compiled, float64 goes in blocks as on other devices."""
    draw = torch.Generator().manual_seed(1)
    layers = network(*widths).to(dtype)
    p, q = (torch.randn(3, n, widths[0], generator=draw, dtype=dtype) for n in (4, 9))
    shape = (3, 4, 9, widths[-1]) if each_posterior else (3, 9, widths[-1])
    y = torch.rand(shape, generator=draw, dtype=dtype)
    leaves = [p.requires_grad_(), q.requires_grad_(), *layers.parameters()]
    found, wanted = pair_loss(p, q, y, layers, kind, 20), plain(p, q, y, layers, kind)
    torch.testing.assert_close(found, wanted, rtol=2e-6, atol=0)
    by_found = torch.autograd.grad(3 * found, leaves)
    by_wanted = torch.autograd.grad(3 * wanted, leaves)
    torch.testing.assert_close(by_found, by_wanted, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert pair_loss(p, q, y, layers, kind, 20) == found.detach()


def test_more_steps_than_are_decoded_at_once() -> None:
    draw = torch.Generator().manual_seed(1)
    layers = network(6, 5, 1)
    p, q = torch.randn(2, 3, 6, generator=draw), torch.randn(2, 1100, 6, generator=draw)
    y = (torch.rand(2, 1100, 1, generator=draw) < 0.1).float()
    leaves = [p.requires_grad_(), q.requires_grad_(), *layers.parameters()]
    found = pair_loss(p, q, y, layers, "bernoulli", 20)
    exact = network(6, 5, 1).double()
    twins = [p.detach().double().requires_grad_(), q.detach().double().requires_grad_()]
    wanted = pair_loss(*twins, y.double(), exact, "bernoulli", 10**6)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=0)
    for a, b in zip(
        torch.autograd.grad(found, leaves),
        torch.autograd.grad(wanted, [*twins, *exact.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-4)


def test_sure_predictions_neither_overflow_nor_vanish() -> None:
    layers = network(1, 1)
    with torch.no_grad():
        layers[0].weight.fill_(1.0)
        layers[0].bias.fill_(-100.0)
    logits = torch.tensor([0.0, 60.0, 200.0])
    q = (logits + 100).view(1, 3, 1)
    p = torch.zeros(1, 1, 1)
    for y, wanted in ((0.0, 260.0), (1.0, 0.0)):
        targets = torch.full((1, 3, 1), y)
        expected = nn.functional.softplus(logits).sum() - y * logits.sum()
        found = pair_loss(p, q, targets, layers, "bernoulli", 10)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)
        assert found.item() == pytest.approx(wanted, abs=1.0)


def test_same_bytes_on_any_number_of_threads(with_threads: Callable[[int], None]) -> None:
    draw = torch.Generator().manual_seed(1)
    p, q, y = (torch.randn(5, *shape, generator=draw) for shape in ((6, 8), (8, 7), (1, 7)))
    layers = network(8, 4, 1)
    matrices = [layer.weight.detach().numpy() for layer in layers]
    biases = [layer.bias.detach().numpy() for layer in layers]
    results = set()
    for threads in (1, 2, 3, 16):
        with_threads(threads)
        losses, gradients = pair_losses(
            p.numpy(), q.numpy(), y.numpy(), matrices, biases, False, True
        )
        results.add(losses.tobytes() + b"".join(array.tobytes() for array in gradients))
    assert len(results) == 1
