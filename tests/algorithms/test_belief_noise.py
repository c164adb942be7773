"""Noise on beliefs: on them alone, the same before and after a step, of the deviation asked for."""

from __future__ import annotations

import torch

from algorithms.belief_noise import with_belief_noise
from algorithms.learners.base import Batch, OtherOutcomes

AGENTS, SIZE, OBSERVATION, BELIEF = 1, 20_000, 3, 4


def make_batch(others: bool) -> Batch:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    width = OBSERVATION + BELIEF
    outcomes = OtherOutcomes(
        torch.tensor([5, 2]), torch.ones(AGENTS, 2), draw(AGENTS, 2), draw(AGENTS, 2, width)
    )
    return Batch(
        states=draw(AGENTS, SIZE, width),
        actions=draw(AGENTS, SIZE, 2),
        rewards=draw(AGENTS, SIZE),
        next_states=draw(AGENTS, SIZE, width),
        continues=torch.ones(AGENTS, SIZE),
        others=outcomes if others else None,
    )


def test_a_transitions_beliefs_are_moved_together_and_nothing_else() -> None:
    batch, deviations = make_batch(others=True), torch.tensor([0.1, 0.5, 1.0, 2.0])
    noisy = with_belief_noise(batch, deviations, torch.Generator().manual_seed(1))
    moved = noisy.states - batch.states
    torch.testing.assert_close(noisy.next_states - batch.next_states, moved, atol=1e-5, rtol=0)
    assert (moved[..., :OBSERVATION] == 0).all()
    found = moved[0, :, OBSERVATION:]
    torch.testing.assert_close(found.std(0), deviations, rtol=0.03, atol=0)
    assert (found.mean(0).abs() < 4 * deviations / SIZE**0.5).all()
    assert noisy.others is not None
    assert batch.others is not None
    gap = noisy.others.next_states - batch.others.next_states
    torch.testing.assert_close(gap, moved[:, [5, 2]], atol=1e-5, rtol=0)
    for name in ("actions", "rewards", "continues", "next_actions"):
        assert getattr(noisy, name) is getattr(batch, name)


def test_the_generator_decides() -> None:
    batch, deviations = make_batch(others=False), torch.ones(BELIEF)
    first, again, other = (
        with_belief_noise(batch, deviations, torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    )
    assert torch.equal(first.states, again.states)
    assert not torch.equal(first.states, other.states)
    assert first.others is None
