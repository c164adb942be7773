"""Adam and Muon against torch's own, and the bound of the gradient's norm."""

from __future__ import annotations

import pytest
import torch
from tape import do_as_on_a_gpu
from torch import Tensor, nn

from algorithms.optimisers import Adam, Muon, clip_gradients, optimise, orthogonalise

AGENTS = 3


def parameters() -> list[nn.Parameter]:
    """Two networks' worth: twin members and one number an agent."""
    generator = torch.Generator().manual_seed(2)
    shapes = [(2 * AGENTS, 4, 5), (2 * AGENTS, 1, 5), (AGENTS,)]
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def losses(tensors: list[nn.Parameter], scale: float = 1.0) -> Tensor:
    """A loss of each agent from its own members."""
    parts = [t.reshape(-1, AGENTS, t[0].numel()).pow(4).sum((0, 2)) for t in tensors]
    return scale * torch.stack(parts).sum(0)


def test_steps_are_those_of_torch() -> None:
    ours, theirs = parameters(), parameters()
    adam = Adam(ours, 1e-2, agents=AGENTS)
    reference = torch.optim.Adam(theirs, 1e-2)
    for _ in range(5):
        adam.step(losses(ours))
        reference.zero_grad()
        losses(theirs).sum().backward()  # type: ignore[no-untyped-call]
        reference.step()
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1.0])
def test_each_agents_gradient_is_clipped_by_its_own_norm(scale: float) -> None:
    ours, reference = parameters(), parameters()
    gradients = list(torch.autograd.grad(losses(ours, scale).sum(), ours))
    clip_gradients(gradients, AGENTS, 0.5)
    expected = torch.autograd.grad(losses(reference, scale).sum(), reference)
    for agent in range(AGENTS):
        norm = torch.cat([g[agent::AGENTS].flatten() for g in expected]).norm()
        factor = min(1.0, 0.5 / float(norm))
        for gradient, unclipped in zip(gradients, expected, strict=True):
            torch.testing.assert_close(
                gradient[agent::AGENTS], factor * unclipped[agent::AGENTS], rtol=1e-4, atol=1e-7
            )


def test_a_nan_gradient_is_not_clipped_away() -> None:
    ours = parameters()
    adam = Adam(ours, 1e-2, agents=AGENTS, clip=0.5)
    bad = losses(ours) * torch.tensor([1.0, torch.nan, 1.0])
    adam.step(bad)
    assert bool(ours[2].isnan()[1])
    assert bool(ours[2].isfinite()[[0, 2]].all())


def matrix(rows: int, columns: int) -> Tensor:
    """A matrix whose singular values span a factor of 20."""
    generator = torch.Generator().manual_seed(rows)
    u = torch.linalg.qr(torch.randn(rows, rows, generator=generator))[0]
    v = torch.linalg.qr(torch.randn(columns, columns, generator=generator))[0]
    rank = min(rows, columns)
    result: Tensor = u[:, :rank] * torch.logspace(0, -1.3, rank) @ v[:, :rank].T
    return result


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (12, 5), (5, 12), (6, 1)])
def test_orthogonalised_matrices_keep_their_singular_vectors(rows: int, columns: int) -> None:
    stacked = torch.stack([matrix(rows, columns), 100 * matrix(rows, columns)])
    u, _, vh = torch.linalg.svd(stacked, full_matrices=False)
    core = u.mT @ orthogonalise(stacked) @ vh.mT
    values = core.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(core, torch.diag_embed(values), rtol=0, atol=1e-4)
    assert bool(((values > 0.65) & (values < 1.25)).all())


def test_the_factor_of_nothing_is_nothing() -> None:
    assert bool((orthogonalise(torch.zeros(1, 3, 4)) == 0).all())


def loss_of(weight: Tensor, bias: Tensor) -> Tensor:
    """A loss of a matrix and a vector, far from its minimum."""
    return (weight @ torch.arange(5.0) + bias - 3).pow(2).sum()[None] + weight.pow(4).sum()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim has Muon from 2.9 on")
def test_muon_steps_are_those_of_torch() -> None:
    goal = torch.eye(4, 5) + matrix(4, 5)  # all directions matter: bfloat16 would lose a flat one

    def loss(tensors: list[nn.Parameter]) -> Tensor:
        return (tensors[0] - goal).pow(2).sum()[None] + tensors[1].pow(4).sum()

    ours = [nn.Parameter(torch.zeros(4, 5)), nn.Parameter(torch.ones(4))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    muon = Muon(ours, 0.02, factor=5.0)
    reference = [
        torch.optim.Muon(
            theirs[:1], 0.1, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.Adam(theirs[1:], 0.02),
    ]
    for _ in range(4):
        muon.step(loss(ours))
        for p in theirs:
            p.grad = None
        loss(theirs).sum().backward()  # type: ignore[no-untyped-call]
        for optimiser in reference:
            optimiser.step()
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=5e-3)  # theirs is in bfloat16
    torch.testing.assert_close(ours[1], theirs[1], rtol=0, atol=5e-3)


def test_stacked_matrices_move_as_if_they_were_apart() -> None:
    parts = [nn.Parameter(matrix(4, 5)), nn.Parameter(3 * matrix(4, 5).flip(0))]
    whole = nn.Parameter(torch.cat([p.detach() for p in parts]))
    apart, together = Muon(parts, 0.1), Muon([whole], 0.1, stacked={whole: 2})
    for _ in range(3):
        apart.step(torch.cat([*parts]).pow(4).sum()[None])
        together.step(whole.pow(4).sum()[None])
    torch.testing.assert_close(whole.detach(), torch.cat([*parts]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_agents_of_muon_move_as_if_they_were_alone(clip: float) -> None:
    together = parameters()
    alone = [
        [nn.Parameter(p.detach()[agent::AGENTS].clone()) for p in together]
        for agent in range(AGENTS)
    ]
    muon = Muon(together, 0.1, agents=AGENTS, clip=clip)
    muons = [Muon(ps, 0.1, clip=clip) for ps in alone]
    for _ in range(3):
        muon.step(losses(together))
        for one, ps in zip(muons, alone, strict=True):
            one.step(torch.stack([p.pow(4).sum() for p in ps]).sum(0, keepdim=True))
    for agent, ps in enumerate(alone):
        for stacked, single in zip(together, ps, strict=True):
            torch.testing.assert_close(stacked[agent::AGENTS], single, rtol=1e-5, atol=1e-6)


def test_muon_learns_flat_directions_as_fast_as_steep_ones() -> None:
    rotation, goal = (torch.linalg.qr(matrix(rows, rows))[0][:6, :6] for rows in (7, 6))
    curvature = torch.logspace(0, -2, 6)
    lag = {}  # what is left of the way along the flattest direction, beside the steepest
    for kind, muon in (("adam", None), ("muon", 1.0)):
        weight = nn.Parameter(torch.zeros(6, 6))
        optimiser = optimise([weight], 0.05, muon)
        for _ in range(40):
            distance = rotation @ (weight - goal)
            optimiser.step((curvature[:, None] * distance.square()).sum()[None])
        left = (rotation @ (weight.detach() - goal)).norm(dim=1)
        lag[kind] = float(left[-1] / left[0])
    assert lag["muon"] < 2
    assert lag["adam"] > 4


def test_muon_clips_the_joint_norm_and_lets_nan_through() -> None:
    weight, bias = nn.Parameter(matrix(4, 5)), nn.Parameter(torch.ones(4))
    muon = Muon([weight, bias], 0.1, clip=0.5)
    muon.step(loss_of(weight, bias))
    state = muon.state()
    squares = (state["momentum.0"] / 0.05).square().sum() + (state["first.0"] / 0.1).square().sum()
    torch.testing.assert_close(squares.sqrt(), torch.tensor(0.5), rtol=1e-3, atol=0)
    muon.step(loss_of(weight, bias) * torch.nan)
    assert bool(weight.isnan().any())
    assert bool(bias.isnan().any())


def test_no_step_is_taken_where_the_schedule_has_ended() -> None:
    weight, bias = nn.Parameter(matrix(4, 5)), nn.Parameter(torch.ones(4))
    muon = Muon([weight, bias], 0.1)
    muon.schedule(0.0)
    muon.step(loss_of(weight, bias))
    torch.testing.assert_close(weight, nn.Parameter(matrix(4, 5)), rtol=0, atol=0)
    torch.testing.assert_close(bias, nn.Parameter(torch.ones(4)), rtol=0, atol=0)
    assert muon.decay == 0.0


def test_a_rate_in_a_tensor_gives_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on other devices than CPUs, where captured steps read it anew."""
    ways = []
    for _ in range(2):
        weight, bias = nn.Parameter(matrix(4, 5)), nn.Parameter(torch.ones(4))
        muon = Muon([weight, bias], 0.1)
        for decay in (1.0, 0.5, 0.0):
            muon.schedule(decay)
            muon.step(loss_of(weight, bias))
        ways.append((weight, bias))
        do_as_on_a_gpu(monkeypatch)
    assert isinstance(muon.decay, Tensor)
    torch.testing.assert_close(ways[0], ways[1])
