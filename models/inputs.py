"""What the belief's networks see of a transition, and how each part is embedded."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from models.config import DecoderInput
from models.layers import linear, mlp

InputName = TypeVar("InputName", bound=str)


class Transitions(NamedTuple):
    """Steps of trials in order; any leading axes, written (B, T) below."""

    observations: Tensor  # (B, T, obs) s, an episode's reset observation at its first step
    actions: Tensor  # (B, T, act) in [-1, 1], or (B, T, 1) int64 in [0, n_actions)
    rewards: Tensor  # (B, T)
    next_observations: Tensor  # (B, T, obs) the true s', also at an episode's end


def action_features(actions: Tensor, n_actions: int | None, dtype: torch.dtype) -> Tensor:
    """Actions (..., act) as numbers: continuous ones as they are, discrete ones one-hot."""
    if n_actions is None:
        return actions.to(dtype)
    rows = _identity(n_actions, dtype, actions.device).index_select(0, actions.flatten())
    return rows.view(*actions.shape[:-1], n_actions)


@cache
def _identity(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The identity matrix: a row of it is looked up faster than a one-hot row is made."""
    return torch.eye(size, dtype=dtype, device=device)


class InputEmbedding(nn.Module):
    """A ReLU embedding of every input, side by side.

    `sizes` gives for each input, in the order of concatenation, its width and the width of its
    embedding; the result has `self.width` features. Observations get `observation_layers` layers,
    everything else one.
    """

    def __init__(
        self,
        sizes: Mapping[InputName, tuple[int, int]],
        generator: torch.Generator,
        observation_layers: int = 1,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        for name, (inner, outer) in sizes.items():
            depth = observation_layers if name.endswith("observation") else 1
            if depth == 1:
                self.layers[name] = linear(inner, outer, generator)
            else:
                self.layers[name] = mlp((inner, *[outer] * depth), generator)
        self.width = sum(outer for _, outer in sizes.values())

    def forward(self, inputs: Mapping[InputName, Tensor]) -> Tensor:
        """Embed each of `inputs` (..., size) that has a layer; (..., width)."""
        return torch.cat(
            [layer(inputs[cast(InputName, name)]) for name, layer in self.layers.items()], -1
        ).relu()


def decoder_inputs(
    transitions: Transitions, n_actions: int | None, dtype: torch.dtype
) -> dict[DecoderInput, Tensor]:
    """The parts of transitions a decoder may be given, under the names of its configuration."""
    return {
        "action": action_features(transitions.actions, n_actions, dtype),
        "observation": transitions.observations,
        "next_observation": transitions.next_observations,
    }
