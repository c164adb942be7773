"""EnsembleMLP: values and written-out gradients against one `nn.Linear` after another."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from models.kernels.parts import torch_resting
from models.mlp import EnsembleMLP

SIZES = [(3, 5), (4, 6, 1), (2, 7, 6, 3), (1, 8, 8, 8, 2)]


def make(members: int, sizes: tuple[int, ...], *, layer_norm: bool = False) -> EnsembleMLP:
    """A network in float64."""
    generator = torch.Generator().manual_seed(1)
    return EnsembleMLP(members, sizes, generator, layer_norm=layer_norm).double()


def reference(network: EnsembleMLP, inputs: Tensor, member: int) -> Tensor:
    """One member by itself: (batch, inputs) to (batch, outputs), differentiated by autograd."""
    hidden = inputs
    for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        if layer > 0:
            hidden = torch.relu(hidden)
            if network.layer_norm:
                norm = nn.LayerNorm(hidden.shape[1], elementwise_affine=False)
                hidden = norm(hidden)
        hidden = linear(hidden, weight[member].T, bias[member, 0])
    return hidden


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("members", [1, 2, 5])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients_are_those_of_single_networks(
    sizes: tuple[int, ...], members: int, layer_norm: bool
) -> None:
    network = make(members, sizes, layer_norm=layer_norm)
    inputs = random(members, 9, sizes[0]).requires_grad_()
    outputs = network(inputs)
    expected = torch.stack([reference(network, inputs[i], i) for i in range(members)])
    assert outputs.shape == (members, 9, sizes[-1])
    torch.testing.assert_close(outputs, expected, rtol=1e-12, atol=1e-12)

    upstream = random(*outputs.shape, seed=2)
    wanted = [inputs, *network.parameters()]
    gradients = torch.autograd.grad(outputs, wanted, upstream)
    references = torch.autograd.grad(expected, wanted, upstream)
    for gradient, by_autograd in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient, by_autograd, rtol=1e-11, atol=1e-12)


def test_no_grad_gives_the_same_numbers() -> None:
    network, inputs = make(3, (2, 7, 1)), random(3, 4, 2)
    with torch.no_grad():
        assert torch.equal(network(inputs), network(inputs.clone()))
        plain = network(inputs)
    assert torch.equal(plain, network(inputs).detach())
    assert not plain.requires_grad


@pytest.mark.parametrize("groups", [1, 3])
def test_members_share_the_inputs_of_their_group(groups: int) -> None:
    network = make(6, (2, 5, 1))
    inputs = random(groups, 4, 2).requires_grad_()
    outputs = network(inputs)
    repeated = torch.stack([inputs[i % groups] for i in range(6)])
    expected = network(repeated)
    assert torch.equal(outputs, expected)
    gradients = torch.autograd.grad(outputs.sum(), inputs)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected.sum(), inputs))


def test_frozen_differentiates_by_the_inputs_only() -> None:
    network, inputs = make(2, (3, 5, 1)), random(2, 4, 3).requires_grad_()
    (expected,) = torch.autograd.grad(network(inputs).sum(), inputs)
    outputs = network(inputs, frozen=True)
    (gradient,) = torch.autograd.grad(outputs.sum(), inputs, retain_graph=True)
    assert torch.equal(gradient, expected)
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(outputs.sum(), list(network.parameters()))


@pytest.mark.parametrize("frozen", [False, True])
def test_first_evaluates_the_first_members(frozen: bool) -> None:
    network, inputs = make(6, (2, 5, 1)), random(3, 4, 2)
    outputs = network(inputs, first=3, frozen=frozen)
    torch.testing.assert_close(outputs, network(inputs)[:3], rtol=1e-12, atol=1e-12)


def test_members_never_mix() -> None:
    network, inputs = make(4, (2, 5, 2)), random(4, 3, 2)
    before = network(inputs).detach()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter[1] += 1.0
    after = network(inputs).detach()
    assert torch.equal(after[[0, 2, 3]], before[[0, 2, 3]])
    assert not torch.equal(after[1], before[1])


def test_initial_weights_come_from_the_generator_and_are_bounded() -> None:
    first, second = make(2, (4, 9, 1)), make(2, (4, 9, 1))
    for one, two in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)
    assert float(first.weights[0].detach().abs().max()) <= 0.5
    small = EnsembleMLP(2, (4, 9, 1), torch.Generator().manual_seed(1), last_scale=0.01)
    torch.testing.assert_close(small.weights[1].double(), first.weights[1] * 0.01)


def test_nan_inputs_surface() -> None:
    network, inputs = make(2, (2, 5, 1)), random(2, 3, 2)
    inputs[1, 0, 0] = torch.nan
    outputs = network(inputs)
    assert bool(outputs[1, 0].isnan())
    assert bool(outputs[0].isfinite().all())


@pytest.mark.parametrize(("members", "sizes"), [(0, (2, 3)), (1, (2,)), (1, (2, 0, 1))])
def test_senseless_sizes_are_refused(members: int, sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least one member and at least two positive sizes"):
        EnsembleMLP(members, sizes, torch.Generator())


WIDE = [(6, 129, 1), (2, 128, 130, 11), (5, 128, 128, 128, 3)]


def compiled(
    sizes: tuple[int, ...], batch: int, *, layer_norm: bool = False, groups: int = 2
) -> tuple[EnsembleMLP, Tensor, Tensor]:
    """Four members in float32, inputs of their groups, and a gradient of the outputs."""
    network = make(4, sizes, layer_norm=layer_norm).float()
    inputs = random(groups, batch, sizes[0]).float().requires_grad_()
    return network, inputs, random(4, batch, sizes[-1], seed=3).float()


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("batch", [64, 512, 1100])
@pytest.mark.parametrize("sizes", WIDE, ids=str)
def test_compiled_layers_agree_with_double_precision(
    sizes: tuple[int, ...], batch: int, layer_norm: bool
) -> None:
    network, inputs, upstream = compiled(sizes, batch, layer_norm=layer_norm)
    precise, exact = copy.deepcopy(network).double(), inputs.detach().double().requires_grad_()
    outputs, expected = network(inputs), precise(exact)
    torch.testing.assert_close(outputs.double(), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(network(inputs), outputs)
        torch.testing.assert_close(network(inputs[:, :9]), outputs[:, :9], rtol=1e-4, atol=1e-5)
    gradients = torch.autograd.grad(outputs, [inputs, *network.parameters()], upstream)
    wanted = torch.autograd.grad(expected, [exact, *precise.parameters()], upstream.double())
    for gradient, reference in zip(gradients, wanted, strict=True):
        error = (gradient.double() - reference).norm() / reference.norm()
        assert error < 1e-2  # 1e-6 but for units at zero, which fall on either side


@pytest.mark.parametrize("layer_norm", [False, True])
def test_compiled_layers_skip_rows_without_gradient(layer_norm: bool) -> None:
    network, inputs, upstream = compiled((5, 128, 128, 2), 700, layer_norm=layer_norm, groups=4)
    upstream[:, ::3] = 0
    upstream[1] = 0
    (wanted,) = torch.autograd.grad(network(inputs), inputs, upstream)
    (found,) = torch.autograd.grad(network(inputs, frozen=True), inputs, upstream)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert not found[:, ::3].any()
    assert not found[1].any()
    assert found[0, 1::3].any()


def test_compiled_layers_give_the_same_bytes_on_any_number_of_threads(
    with_threads: Callable[[int], None],
) -> None:
    network, inputs, upstream = compiled((6, 128, 128, 2), 1300)
    results = set()
    for threads in (1, 2, 3, 16):
        with_threads(threads)
        outputs = network(inputs)
        gradients = torch.autograd.grad(outputs, [inputs, *network.parameters()], upstream)
        results.add(b"".join(tensor.detach().numpy().tobytes() for tensor in (outputs, *gradients)))
    assert len(results) == 1


@pytest.mark.parametrize("layer_norm", [False, True])
def test_compiled_layers_let_nan_surface(layer_norm: bool) -> None:
    network, inputs, _ = compiled((3, 128, 128, 1), 600, layer_norm=layer_norm)
    with torch.no_grad():
        inputs[0, 550, 1] = torch.nan
    missing = network(inputs).detach().isnan().squeeze(2)
    assert missing[::2, 550].all()
    assert missing.sum() == 2  # members 0 and 2 read the first group


def test_torch_rests_on_one_thread_and_has_its_own_again(
    with_threads: Callable[[int], None],
) -> None:
    with_threads(3)
    with torch_resting():
        assert torch.get_num_threads() == 1
        with torch_resting():
            assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
