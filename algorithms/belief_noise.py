"""Noise on the beliefs that an offline agent learns from.

A policy and a critic on a belief's 2L numbers can tell few training tasks apart by details that
mean nothing, and act on them; the beliefs of a test task, which its own steps led to, have others.
Noise makes beliefs that are close count as the same. One draw a transition is added to the belief
before it and to those after it, so that what a step teaches the belief stays.
"""

from __future__ import annotations

import torch
from torch import Tensor

from algorithms.learners.base import Batch


def with_belief_noise(batch: Batch, deviations: Tensor, generator: torch.Generator) -> Batch:
    """The batch with Gaussian noise on its beliefs, the last coordinates of its states.

    Args:
        batch: states (A, B, S) and what follows them; untouched.
        deviations: (2L,), of the noise on each number of a belief.
        generator: on the batch's device.
    """
    width = len(deviations)
    shape = (*batch.states.shape[:2], width)
    noise = torch.randn(shape, generator=generator, device=batch.states.device) * deviations
    others = batch.others
    if others is not None:
        theirs = noise.index_select(1, others.places)
        others = others._replace(next_states=_added(others.next_states, theirs))
    return batch._replace(
        states=_added(batch.states, noise),
        next_states=_added(batch.next_states, noise),
        others=others,
    )


def _added(states: Tensor, noise: Tensor) -> Tensor:
    """States (A, n, S) with noise (A, n, 2L) on their beliefs."""
    width = noise.shape[-1]
    return torch.cat([states[..., :-width], states[..., -width:] + noise], -1)
