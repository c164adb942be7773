"""Adam against torch's own, and the gradient norm's bound of each agent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from algorithms.learners.optimiser import Adam

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
        losses(theirs).sum().backward()
        reference.step()
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1.0])
def test_each_agents_gradient_is_clipped_by_its_own_norm(scale: float) -> None:
    ours, reference = parameters(), parameters()
    adam = Adam(ours, 1.0, agents=AGENTS, clip=0.5)
    gradients = list(torch.autograd.grad(losses(ours, scale).sum(), ours))
    adam._clip(gradients)
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
