"""Layers initialised from an explicit generator (torch's constructors draw from the global one)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils import skip_init


def linear(inner: int, outer: int, generator: torch.Generator, bias: bool = True) -> nn.Linear:
    """A linear layer, weights and bias uniform in +-1/sqrt(inner)."""
    layer: nn.Linear = skip_init(nn.Linear, inner, outer, bias=bias)  # type: ignore[no-untyped-call]
    bound = inner**-0.5
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer


def mlp(widths: Sequence[int], generator: torch.Generator) -> nn.Sequential:
    """Linear layers between successive widths with ReLUs in between."""
    layers: list[nn.Module] = []
    for inner, outer in pairwise(widths):
        layers += [nn.ReLU(), linear(inner, outer, generator)]
    return nn.Sequential(*layers[1:])


def gru(inner: int, outer: int, generator: torch.Generator) -> nn.GRU:
    """A one-layer GRU over (batch, time, inner): each gate's weights orthogonal, biases zero."""
    layer = nn.GRU(inner, outer, batch_first=True, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith("bias"):
                parameter.zero_()
                continue
            for gate in parameter.chunk(3):
                nn.init.orthogonal_(gate, generator=generator)
    return layer
