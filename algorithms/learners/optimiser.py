"""Adam for networks of many agents, without the bookkeeping of `torch.optim`.

Source: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.

Small batched networks spend more time in Python between kernels than in them, so gradients come
straight from `torch.autograd.grad` (which computes those of the given parameters and no others)
and go to one fused kernel. Adam is elementwise: agents that share the tensors stay independent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Adam over the parameters of one network."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        learning_rate: float,
        *,
        agents: int = 1,
        clip: float = 0.0,
    ) -> None:
        """Start with zero moments.

        Args:
            parameters: their leading axis holds members; member i belongs to agent i % agents.
            learning_rate: step size.
            agents: how many agents share the tensors.
            clip: largest gradient norm of ONE agent over all its parameters; 0 is off.
        """
        self.parameters = list(parameters)
        self.learning_rate = learning_rate
        self.agents = agents
        self.clip = clip
        self._first = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self._second = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self._steps = [torch.zeros((), device=p.device) for p in self.parameters]

    def step(self, losses: Tensor) -> None:
        """Descend the sum of `losses`, (agents,), by one step."""
        gradients = list(torch.autograd.grad(losses.sum(), self.parameters))
        with torch.no_grad():
            if self.clip > 0:
                self._clip(gradients)
            adam(
                list(self.parameters),
                gradients,
                self._first,
                self._second,
                [],
                self._steps,
                fused=True,
                amsgrad=False,
                beta1=_BETA_1,
                beta2=_BETA_2,
                lr=self.learning_rate,
                weight_decay=0.0,
                eps=_EPSILON,
                maximize=False,
            )

    def _clip(self, gradients: list[Tensor]) -> None:
        """Scale each agent's gradients so that their joint norm is at most `clip`."""
        squares = torch.stack(
            [g.reshape(-1, self.agents, g[0].numel()).square().sum((0, 2)) for g in gradients]
        )
        # A NaN norm gives a NaN scale: divergence must surface, not be clipped away.
        scale = (self.clip / (squares.sum(0).sqrt() + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            members = scale.repeat(gradient.shape[0] // self.agents)
            gradient.mul_(members.reshape(-1, *[1] * (gradient.dim() - 1)))

    def state(self) -> dict[str, Tensor]:
        """Both moments and the step counts, as live tensors under flat names."""
        groups = {"first": self._first, "second": self._second, "steps": self._steps}
        return {f"{name}.{i}": t for name, group in groups.items() for i, t in enumerate(group)}
