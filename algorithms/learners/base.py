"""What every update rule is: a learner of `agents` independent agents, updated batch by batch.

All arrays lead with an `agents` axis, A. In collection A counts the tasks whose single-task agents
learn side by side; in offline meta-RL A is 1. A loss is a mean over the batch and a SUM over the
agents, so that agent i's parameters see agent i's data only, exactly as if it were trained alone.

Nothing here waits for the device: metrics stay on it until somebody reads them.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from algorithms.config import LearnerConfig
from algorithms.errors import AlgorithmError
from algorithms.optimisers import Optimiser, optimise
from models.mlp import EnsembleMLP

_SMALLEST_STD = 1e-6


class OtherOutcomes(NamedTuple):
    """What else could have come of M of a batch's transitions, and how likely it was."""

    places: Tensor  # (M,) int64, which of the B transitions
    chances: Tensor  # (A, M) in [0, 1]
    rewards: Tensor  # (A, M)
    next_states: Tensor  # (A, M, state_dim)


class Batch(NamedTuple):
    """Transitions, B for each of A agents."""

    states: Tensor  # (A, B, state_dim) f4
    actions: Tensor  # (A, B, action_dim) f4 in [-1, 1], or (A, B) int64 in [0, n_actions)
    rewards: Tensor  # (A, B) f4
    next_states: Tensor  # (A, B, state_dim) f4
    continues: Tensor  # (A, B) f4, 1 - termination; a truncation continues
    next_actions: Tensor | None = None  # like actions, the log's next ones; ReBRAC alone reads them
    others: OtherOutcomes | None = None


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The transitions on a device; a batch without other outcomes, as logs give it."""
    if batch.states.device == device:
        return batch
    return Batch(*(None if field is None else field.to(device) for field in batch[:6]))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Sizes:
    """The shapes a learner is built for."""

    state_dim: int
    action_dim: int
    n_actions: int | None = None  # None: continuous actions in [-1, 1]^action_dim
    agents: int = 1


class Learner(nn.Module, ABC):
    """An update rule with its networks, targets, optimisers and source of noise."""

    input_shift: Tensor  # (A, 1, state_dim)
    input_scale: Tensor  # (A, 1, state_dim)

    def __init__(
        self, config: LearnerConfig, sizes: Sizes, *, seed: int, device: torch.device | str
    ) -> None:
        """Prepare what all rules share; a subclass builds its networks after this.

        Args:
            config: hyper-parameters.
            sizes: shapes.
            seed: of the initial weights and of all noise, in [0, 2^63).
            device: where weights live and batches are expected.
        """
        super().__init__()
        self.config = config
        self.sizes = sizes
        self.device = torch.device(device)
        self.updates = 0  # calls of `update`
        # Weights are drawn on the CPU, so they are the same on every device.
        self._initial = torch.Generator().manual_seed(seed)
        noise_seed = int(torch.randint(2**62, (), generator=self._initial))
        self.generator = torch.Generator(self.device).manual_seed(noise_seed)
        self.optimisers: dict[str, Optimiser] = {}
        self.held: dict[str, Tensor] = {}  # other tensors that belong in the checkpoint
        self._tracked: list[tuple[list[Tensor], list[Tensor]]] = []
        shape = (sizes.agents, 1, sizes.state_dim)
        self.register_buffer("input_shift", torch.zeros(shape, device=self.device))
        self.register_buffer("input_scale", torch.ones(shape, device=self.device))
        self._normalises = False

    @property
    def compiles(self) -> bool:
        """Whether some of its networks are compiled loops on a CPU."""
        return any(isinstance(part, EnsembleMLP) and part.compiles for part in self.modules())

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One gradient step of every agent.

        Returns:
            detached metrics, (A,) each, on the device. Names that end in `loss` are the losses;
            one of them is NaN or infinite when the agent has diverged.
        """
        self.updates += 1
        return self.learn(batch)

    @property
    def phase(self) -> int:
        """Which of the ways that `learn` may take in Python the newest update takes."""
        return 0

    # ------------------------------------------------------------------ what a rule defines

    @abstractmethod
    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """What `update` does and returns; `updates` counts this one already.

        May be recorded and replayed (`algorithms.capture`): it reads of the learner what stays as
        it is, tensors, and `phase`, and writes tensors in place.
        """

    @abstractmethod
    def next_values(self, batch: Batch) -> Tensor:
        """What a target bootstraps from: the value of every next state, (A, B), no gradient."""

    @abstractmethod
    def act(self, states: Tensor, deterministic: bool) -> Tensor:
        """Actions of every agent.

        Args:
            states: (A, n, state_dim), not normalised.
            deterministic: the best action instead of an exploring one.

        Returns:
            (A, n, action_dim) f4 in [-1, 1], or (A, n) int64 of a discrete rule.
        """

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        r"""y = r + gamma c V(s') of every transition, (A, B).

        Where the batch knows of another outcome, with chance p, the target is the expectation
        :math:`(1 - p) y + p y_{other}`: what many transitions like it would average to.
        """
        logged = self._one_step(batch)
        if batch.others is None:
            return logged
        places, chances, rewards, next_states = batch.others
        other = batch._replace(
            states=batch.states.index_select(1, places),
            actions=batch.actions.index_select(1, places),
            rewards=rewards,
            next_states=next_states,
            continues=batch.continues.index_select(1, places),
            next_actions=_maybe_select(batch.next_actions, places),
            others=None,
        )
        averaged = logged.index_select(1, places).lerp(self._one_step(other), chances)
        return logged.index_copy(1, places, averaged)

    def _one_step(self, batch: Batch) -> Tensor:
        value = self.next_values(batch)
        return torch.addcmul(batch.rewards, batch.continues, value, value=self.config.discount)

    # ------------------------------------------------------------------ states and noise

    def set_normalisation(self, mean: Tensor, std: Tensor) -> None:
        """Read states as (s - mean) / std from now on.

        Args:
            mean: (state_dim,) for all agents alike, or (A, state_dim).
            std: like `mean`; entries below 1e-6 (constant inputs) count as 1.

        Raises:
            AlgorithmError: if a shape does not fit or a number is not finite.
        """
        agents, _, width = self.input_shift.shape
        for name, value in (("mean", mean), ("std", std)):
            if value.shape not in {(width,), (agents, width)}:
                raise AlgorithmError(
                    f"normalisation: {name} has shape {tuple(value.shape)}, expected ({width},) "
                    f"or ({agents}, {width})"
                )
            if not bool(torch.isfinite(value).all()):
                raise AlgorithmError(f"normalisation: {name} holds a NaN or an infinite number")
        scale = torch.where(std < _SMALLEST_STD, 1.0, 1.0 / std).to(self.input_scale)
        scale = scale.expand(agents, width).unsqueeze(1)
        self.input_scale.copy_(scale)
        self.input_shift.copy_(-mean.to(scale).expand(agents, width).unsqueeze(1) * scale)
        self._normalises = True

    def normalised(self, states: Tensor) -> Tensor:
        """States as the networks read them: (s - mean) / std, (A, n, state_dim)."""
        if not self._normalises:
            return states
        return torch.addcmul(self.input_shift, states, self.input_scale)

    def noise(self, agents: int, rows: int, width: int) -> Tensor:
        """Standard normal numbers of this learner's own generator, (agents, rows, width).

        They lie as (agents, width, rows), like a network's outputs, so that the two combine fast.
        """
        shape = (agents, width, rows)
        drawn = torch.randn(shape, generator=self.generator, device=self.device)
        return drawn.transpose(1, 2)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers from U(-1, 1) of this learner's own generator."""
        drawn = torch.rand(shape, generator=self.generator, device=self.device)
        return drawn.mul_(2.0).sub_(1.0)

    # ------------------------------------------------------------------ building blocks

    def network(self, members: int, *widths: int, layer_norm: bool = False) -> EnsembleMLP:
        """Freshly initialised networks, `members` an agent; member i is agent i % A's."""
        return EnsembleMLP(
            members * self.sizes.agents,
            widths,
            self._initial,
            layer_norm=layer_norm,
            device=self.device,
        )

    def target_of(self, network: EnsembleMLP) -> EnsembleMLP:
        """A copy of `network` without gradients that `track` lets follow it."""
        target = copy.deepcopy(network).requires_grad_(False)
        live = [parameter.detach() for parameter in network.parameters()]
        self._tracked.append((list(target.parameters()), live))
        return target

    def track(self) -> None:
        r"""Polyak averaging of all targets: :math:`\bar\theta += \rho (\theta - \bar\theta)`."""
        for targets, live in self._tracked:
            torch._foreach_lerp_(targets, live, self.config.polyak)

    def optimiser(
        self, name: str, parameters: Iterable[nn.Parameter], learning_rate: float
    ) -> Optimiser:
        """An optimiser of `parameters`, in the checkpoint under `name`."""
        self.optimisers[name] = optimise(
            list(parameters),
            learning_rate,
            self.config.muon,
            agents=self.sizes.agents,
            clip=self.config.gradient_clip,
        )
        return self.optimisers[name]

    # ------------------------------------------------------------------ saving

    def weights(self) -> dict[str, Tensor]:
        """Networks and normalisation, targets left out, under flat names: what acting needs."""
        return {
            name: value.detach().contiguous()
            for name, value in self.state_dict().items()
            if not name.startswith("target_")
        }

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take over what `weights` gave; targets become copies of their networks.

        Raises:
            AlgorithmError: if a name is missing or unknown, or a shape does not fit.
        """
        own = self.weights()
        _check_names("weights", own, weights)
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(weights[name])
            for targets, live in self._tracked:
                torch._foreach_copy_(targets, live)
        self._detect_normalisation()

    def to_checkpoint(self) -> dict[str, Tensor]:
        """Everything that `update` depends on: a restored learner goes on bit-equal."""
        state = {name: value.clone() for name, value in self._state().items()}
        state["generator"] = self.generator.get_state()
        state["updates"] = torch.tensor(self.updates)
        return state

    def from_checkpoint(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `to_checkpoint` gave.

        Raises:
            AlgorithmError: if a name is missing or unknown, or a shape does not fit.
        """
        own = self._state()
        rest = {name: value for name, value in state.items() if name in own}
        if not {"generator", "updates"} <= state.keys():
            raise AlgorithmError("checkpoint: the generator's state or the update count is missing")
        _check_names("checkpoint", own, rest)
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(rest[name])
        self.generator.set_state(state["generator"].cpu())
        self.updates = int(state["updates"])
        self._detect_normalisation()

    def _state(self) -> dict[str, Tensor]:
        """Live tensors of all networks, buffers and optimisers."""
        state = {f"network.{n}": v.detach() for n, v in self.state_dict().items()}
        state |= {f"held.{n}": v for n, v in self.held.items()}
        for name, optimiser in self.optimisers.items():
            state |= {f"optimiser.{name}.{n}": v for n, v in optimiser.state().items()}
        return state

    def _detect_normalisation(self) -> None:
        """Skip the normalisation of inputs where it would change nothing."""
        self._normalises = bool((self.input_scale != 1).any() | (self.input_shift != 0).any())


def _maybe_select(tensor: Tensor | None, places: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.index_select(1, places)


def _check_names(what: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Refuse tensors that do not fit one to one."""
    if differing := sorted(own.keys() ^ given.keys()):
        raise AlgorithmError(f"{what}: tensor {differing[0]!r} is missing or unknown")
    for name, value in own.items():
        if given[name].shape != value.shape:
            raise AlgorithmError(
                f"{what}: tensor {name!r} has shape {tuple(given[name].shape)}, "
                f"expected {tuple(value.shape)}"
            )


def twin_values(
    critic: EnsembleMLP, states: Tensor, actions: Tensor, *, frozen: bool = False
) -> Tensor:
    """Both critics' values of (s, a): (2, A, B) from states (A, B, S) and actions (A, B, act)."""
    values: Tensor = critic(torch.cat((states, actions), 2), frozen=frozen)
    return values.squeeze(2).view(2, states.shape[0], states.shape[1])
