"""Adam for networks of many agents, Muon for weight matrices; without `torch.optim`'s overhead.

Sources: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1; Jordan
et al., "Muon: an optimizer for hidden layers in neural networks", 2024, with the rates of Liu et
al., "Muon is scalable for LLM training", 2025, equation 4.

Small batched networks spend more time in Python between kernels than in them, so gradients come
straight from `torch.autograd.grad` (which computes those of the given parameters and no others)
and go to one fused kernel. Adam is elementwise: agents that share the tensors stay independent.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8

_MOMENTUM = 0.95
_RMS = 0.2  # of Muon's steps beside the rate, as Adam's are: one rate then serves both
_QUINTIC = (3.4445, -4.7750, 2.0315)  # x -> a x + b x^3 + c x^5 draws singular values towards 1
_ITERATIONS = 5


class Optimiser(ABC):
    """Descends by one rule over the parameters of networks that agents share."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], learning_rate: float, agents: int, clip: float
    ) -> None:
        """Prepare what all rules share.

        Args:
            parameters: their leading axis holds members; member i belongs to agent i % agents.
            learning_rate: step size.
            agents: how many agents share the tensors.
            clip: largest gradient norm of ONE agent over all its parameters; 0 is off.
        """
        self.parameters = list(parameters)
        self.learning_rate = learning_rate
        self.decay: float | Tensor = 1.0  # factor on the rate
        if self.parameters and self.parameters[0].device.type != "cpu":
            # a captured step would repeat a number for ever, and reads a tensor anew
            self.decay = torch.ones((), device=self.parameters[0].device)
        self.agents = agents
        self.clip = clip

    def step(self, losses: Tensor) -> None:
        """Descend the sum of `losses`, (agents,), by one step."""
        self._follow(list(torch.autograd.grad(losses.sum(), self.parameters)))

    def apply(self, gradients: Mapping[nn.Parameter, Tensor]) -> None:
        """Descend by one step along the gradients of all parameters."""
        self._follow([gradients[parameter] for parameter in self.parameters])

    @torch.no_grad()
    def _follow(self, gradients: list[Tensor]) -> None:
        """Clip and descend."""
        if self.clip > 0:
            clip_gradients(gradients, self.agents, self.clip)
        self.descend(gradients)

    def schedule(self, decay: float) -> None:
        """Take steps of `decay` times the learning rate from now on."""
        if isinstance(self.decay, Tensor):
            self.decay.fill_(decay)
        else:
            self.decay = decay

    @abstractmethod
    def descend(self, gradients: list[Tensor]) -> None:
        """One step along the gradients of `parameters`; not clipped."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds, as live tensors under flat names."""


class Adam(Optimiser):
    """Adam over the parameters of one network."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        learning_rate: float,
        *,
        agents: int = 1,
        clip: float = 0.0,
    ) -> None:
        """Start with zero moments; the arguments are `Optimiser`'s."""
        super().__init__(parameters, learning_rate, agents, clip)
        self._first = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self._second = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self._steps = [torch.zeros((), device=p.device) for p in self.parameters]

    def descend(self, gradients: list[Tensor]) -> None:
        """One step along the gradients of `parameters`; not clipped."""
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
            lr=self.learning_rate * self.decay,
            weight_decay=0.0,
            eps=_EPSILON,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        """Both moments and the step counts, as live tensors under flat names."""
        groups = {"first": self._first, "second": self._second, "steps": self._steps}
        return {f"{name}.{i}": t for name, group in groups.items() for i, t in enumerate(group)}


class Muon(Optimiser):
    """Muon over the weight matrices of networks, Adam over their other parameters.

    A matrix moves along the orthogonal factor of its averaged gradient, so that directions in
    which the loss is flat are learned as fast as steep ones. Matrices are the last two axes of
    parameters, where neither is 1; leading axes hold members, which stay independent.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        learning_rate: float,
        *,
        factor: float = 1.0,
        agents: int = 1,
        clip: float = 0.0,
        stacked: Mapping[nn.Parameter, int] | None = None,
    ) -> None:
        """Start with zero moments.

        Args:
            parameters: of more than two axes, the leading one holds members.
            learning_rate: step size of Adam.
            factor: of the matrices' step size; a step of a matrix has the root mean square
                0.2 factor learning_rate, about Adam's.
            agents: as in `Optimiser`.
            clip: as in `Optimiser`.
            stacked: how many matrices lie above each other in a parameter, such as the three gates
                of a GRU; one where it is not given.
        """
        blocks = stacked or {}
        matrices = [p for p in parameters if p.dim() > 1 and min(p.shape[-2:]) > 1]
        chosen = set(matrices)
        rest = [p for p in parameters if p not in chosen]
        super().__init__([*matrices, *rest], learning_rate * factor, agents, clip)
        self._shapes = [(-1, p.shape[-2] // blocks.get(p, 1), p.shape[-1]) for p in matrices]
        self._momenta = [torch.zeros_like(p, requires_grad=False) for p in matrices]
        self._adam = Adam(rest, learning_rate, agents=agents)

    def descend(self, gradients: list[Tensor]) -> None:
        """One step along the gradients of `parameters`; not clipped."""
        count = len(self._momenta)
        rate = _RMS * self.learning_rate * self.decay
        for matrix, shape, gradient, momentum in zip(
            self.parameters[:count], self._shapes, gradients[:count], self._momenta, strict=True
        ):
            momentum.lerp_(gradient, 1 - _MOMENTUM)
            ahead = torch.lerp(gradient, momentum, _MOMENTUM)  # Nesterov's
            step = orthogonalise(ahead.reshape(shape))
            size = rate * math.sqrt(max(shape[1:]))
            step = step.reshape(matrix.shape)
            if isinstance(size, Tensor):  # as `alpha` it would be waited for
                matrix.sub_(step * size)
            else:
                matrix.sub_(step, alpha=size)
        self._adam.decay = self.decay
        self._adam.descend(gradients[count:])

    def state(self) -> dict[str, Tensor]:
        """Momenta and Adam's state, as live tensors under flat names."""
        momenta = {f"momentum.{i}": tensor for i, tensor in enumerate(self._momenta)}
        return momenta | self._adam.state()


def optimise(
    parameters: Sequence[nn.Parameter],
    learning_rate: float,
    muon: float | None,
    *,
    agents: int = 1,
    clip: float = 0.0,
    stacked: Mapping[nn.Parameter, int] | None = None,
) -> Optimiser:
    """Muon with matrices at the multiple `muon` of the rate, or Adam where that is None."""
    if muon is None:
        return Adam(parameters, learning_rate, agents=agents, clip=clip)
    return Muon(parameters, learning_rate, factor=muon, agents=agents, clip=clip, stacked=stacked)


def clip_gradients(gradients: Sequence[Tensor], agents: int, clip: float) -> None:
    """Scale each agent's gradients, in place, so that their joint norm is at most `clip`."""
    squares = torch.stack(
        [g.reshape(-1, agents, g[0].numel()).square().sum((0, 2)) for g in gradients]
    )
    # A NaN norm gives a NaN scale: divergence must surface, not be clipped away.
    scale = (clip / (squares.sum(0).sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        members = scale.repeat(gradient.shape[0] // agents)
        gradient.mul_(members.reshape(-1, *[1] * (gradient.dim() - 1)))


def orthogonalise(matrices: Tensor) -> Tensor:
    """About U V' of the singular value decompositions U S V' of matrices (N, rows, columns).

    Five Newton-Schulz iterations with Jordan's coefficients: singular values from 0.01 of the norm
    on end within [0.65, 1.25], which is as good for descent as exactly 1 and a tenth of the cost.
    """
    a, b, c = _QUINTIC
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = x if wide else x.mT.contiguous()
    return result
