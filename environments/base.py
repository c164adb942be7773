"""What a task family is: a set of MDPs that share states and actions and differ in one vector.

A *task* is one MDP, given by a float64 vector at full precision. A *trial* is K episodes of H
steps on one task. Terminations are the environment's own; the end of an episode after H steps is
a time limit, so it is counted by the caller and never reported here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from environments.errors import TaskError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from environments.rendering.base import FrameSource

Scalar = TypeVar("Scalar", bound=np.generic)
Start = Literal["origin", "wide"]
Difference = Literal["reward", "dynamics"]
Goal = Literal["hidden", "visible", "fixed"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
Sim = Mapping[str, NDArray[Any]]
"""What an exact reward needs beyond observations: `Spec.infos` by name, (..., width) float64, and
`task`, (..., task), the task whose simulator lived through it."""
Actions = NDArray[Any]
"""float32 in [-1, 1] where actions are continuous, int64 in [0, n_actions) where discrete."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The constants of a task family. Sizes are those of one environment, without batch axes."""

    name: str
    observation_names: tuple[str, ...]
    action_dim: int  # 1 where actions are discrete
    n_actions: int | None = None  # None: continuous, float32 in [-1, 1]^action_dim
    horizon: int  # H, steps of an episode
    episodes: int  # K, episodes of a trial
    task_names: tuple[str, ...]
    tasks_differ_in: Difference
    cells: int | None = None  # cells of a per-cell reward head, None where there are none
    binary_reward: tuple[float, float] | None = None  # (low, high) where only these two occur
    collection_start: Start = "wide"  # where the published collection starts its episodes
    goal: Goal = "hidden"  # visible: the first observation tells it; fixed: all tasks share it
    solid_goal: bool = False  # the goal is a body that can be touched, so dynamics differ there
    infos: Mapping[str, int] = field(default_factory=dict)  # widths of what `reward` takes as `sim`

    @property
    def why_not_hidden(self) -> str | None:
        """How agents know the goal without looking for it; None if they do not."""
        if self.goal == "hidden":
            return None
        return (
            "the first observation tells the goal" if self.goal == "visible" else "tasks share it"
        )

    @property
    def observation_dim(self) -> int:
        """Width of an observation."""
        return len(self.observation_names)

    @property
    def task_dim(self) -> int:
        """Width of a task vector."""
        return len(self.task_names)


class Step(NamedTuple):
    """One step of n environments."""

    observations: Float32  # (n, obs), the true next ones, never those after a reset
    rewards: Float32  # (n,)
    terminations: Bool  # (n,), the environment's own; time limits are not terminations
    successes: Bool  # (n,), whether the step ends in the goal
    infos: Mapping[str, Float64] = {}  # `Spec.infos` by name, (n, width), after the step


class Simulator(ABC):
    """Steps n environments of one family at once; environment i runs task i."""

    tasks: Float64  # (n, task)
    start: Start

    @property
    def count(self) -> int:
        """How many environments are stepped."""
        return len(self.tasks)

    @abstractmethod
    def reset(self, rng: np.random.Generator) -> Float32:
        """Begin an episode everywhere; returns the observations, (n, obs)."""

    @abstractmethod
    def step(self, actions: Actions) -> Step:
        """Apply actions (n, act); raises TaskError where one is out of range or of wrong shape."""

    def render_state(self) -> Float64 | None:
        """What the family's `frame_source` draws from, (n, state); None where it draws nothing."""
        return None


class TaskFamily(ABC):
    """A set of tasks with one simulator, one pure reward and, mostly, an oracle that knows them.

    Every method that takes observations, actions or tasks works over any leading axes, which
    broadcast against each other. `reward` is the code that `step` uses, on the same float32
    observations, so relabelling a trial to its own task reproduces its rewards exactly.
    """

    spec: ClassVar[Spec]
    slow_steps: ClassVar[bool] = False  # a simulator's step is Python, better done by processes
    has_success: ClassVar[bool] = True  # false where no step is one, as when following a velocity
    split_seeds: ClassVar[Mapping[str, int]] = {}
    """Splits whose name alone says the seed, as results that were published with it do."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What data of the family should say of their making (simulator versions), JSON values."""
        return {}

    # Tasks

    @abstractmethod
    def sample_tasks(self, count: int, rng: np.random.Generator) -> Float64:
        """Draw `count` distinct tasks, (count, task); raises TaskError if there are not so many."""

    def all_tasks(self) -> Float64 | None:
        """Every task of a finite family, (tasks, task); None where tasks are a continuum."""
        return None

    def validate_tasks(self, tasks: Float64) -> None:
        """Raise TaskError, with the task's index, unless tasks (n, task) are finite and legal."""
        width = self.spec.task_dim
        if tasks.ndim != 2 or tasks.shape[1] != width:
            raise TaskError(
                f"{self.spec.name}: tasks have shape {tasks.shape}, expected (n, {width}) "
                f"for {', '.join(self.spec.task_names)}"
            )
        if len(tasks) == 0:
            raise TaskError(f"{self.spec.name}: no tasks given, at least one is needed")
        for index in np.flatnonzero(~np.isfinite(tasks).all(axis=1))[:1]:
            raise TaskError(f"{self.spec.name}: task {index} is {tasks[index]}, not finite")

    def split(self, name: str, seed: int) -> tuple[Float64, Float64]:
        """Training and test tasks of a split that the field compares on, (n, task) and (m, task).

        Raises TaskError where the family has none of that name; most have none at all.
        """
        raise TaskError(f"{self.spec.name} has no split {name!r}: its tasks are drawn from a seed")

    # Dynamics

    @abstractmethod
    def simulator(self, tasks: Float64, start: Start = "origin") -> Simulator:
        """A simulator of len(tasks) environments; raises TaskError for an illegal task or start."""

    def check_actions(self, actions: Actions, count: int) -> None:
        """Raise TaskError unless actions are (count, act), of the right kind and in range."""
        name, n_actions = self.spec.name, self.spec.n_actions
        expected = (count, self.spec.action_dim)
        if actions.shape != expected:
            raise TaskError(f"{name}: actions have shape {actions.shape}, expected {expected}")
        kind = np.floating if n_actions is None else np.integer
        if not np.issubdtype(actions.dtype, kind):
            raise TaskError(f"{name}: actions are {actions.dtype}, expected {kind.__name__}")
        low, high = (-1, 1) if n_actions is None else (0, n_actions - 1)
        # Written so that NaN, which compares false, is refused as well.
        if not (actions.min() >= low and actions.max() <= high):
            row = np.flatnonzero(~((actions >= low) & (actions <= high)).all(axis=1))[0]
            raise TaskError(
                f"{name}: the action of environment {row} is {actions[row]}, "
                f"expected values in [{low}, {high}]"
            )

    @abstractmethod
    def reward(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Sim | None = None,
    ) -> Float32:
        """Reward r(s, a, s'; task) over the leading axes (...,), from (..., obs), (..., act), ...

        `sim` is needed where `spec.infos` names anything; others ignore it.
        """

    def learning_reward(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Sim | None = None,
    ) -> Float32:
        """What a collecting agent learns from, (...,); the data hold `reward` all the same."""
        return self.reward(observations, actions, next_observations, tasks, sim)

    @property
    def has_learning_reward(self) -> bool:
        """Whether collecting agents learn from another reward than is stored."""
        return type(self).learning_reward is not TaskFamily.learning_reward

    def termination(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Sim | None = None,
    ) -> Bool:
        """Whether the environment itself ends at s', (...,); here never: goals are stayed in."""
        return np.zeros(common_shape(observations, actions, next_observations, tasks), np.bool_)

    def ended_infos(self, last: Sim, shape: tuple[int, ...]) -> Sim:
        """`Spec.infos` of steps after the environment has ended, (*shape, width).

        A simulator that has ended stays where it is, so states stay those of the step that ended
        it, `last`; that holds those that are known. Infos that tell of a change are otherwise.
        """
        return {name: info for name, info in last.items() if name in self.spec.infos}

    @abstractmethod
    def success(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Sim | None = None,
    ) -> Bool:
        """Whether s' lies in the task's goal, (...,)."""

    def shared_prefix(self, own: Float64, target: Float64, sim: Sim) -> Int64:
        """First steps that the target task's physics would have taken too, (n,).

        Of n episodes lived under tasks `own` (n, task), with `Spec.infos` in `sim` (n, H, width),
        relabelled to tasks `target` (n, task). All of them, unless goals can be touched.
        """
        return np.full(len(own), next(iter(sim.values())).shape[1], np.int64)

    def cell(self, observations: Float32) -> Int64:
        """Cell index in [0, cells) of observations (..., obs), for per-cell reward heads."""
        raise TaskError(f"{self.spec.name} has no cells: its observations are continuous")

    # Reference behaviour

    def oracle_actions(self, observations: Float32, tasks: Float64) -> Actions:
        """Actions (..., act) of a stateless policy that knows the task; TaskError without one."""
        raise TaskError(f"{self.spec.name} has no oracle: no policy for it was written by hand")

    @property
    def has_oracle(self) -> bool:
        """Whether somebody wrote a policy that knows the task."""
        return type(self).oracle_actions is not TaskFamily.oracle_actions

    def oracle_returns(self, tasks: Float64, episodes: int | None = None) -> Float64 | None:
        """Return of `oracle_actions` per episode from the origin, (n, K), or None without one."""
        if not self.has_oracle:
            return None
        simulator = self.simulator(tasks, "origin")
        rng = np.random.default_rng(0)
        returns = np.zeros((len(tasks), episodes or self.spec.episodes))
        for episode in range(returns.shape[1]):
            observations = simulator.reset(rng)
            for _ in range(self.spec.horizon):
                step = simulator.step(self.oracle_actions(observations, tasks))
                returns[:, episode] += step.rewards
                observations = step.observations
        return returns

    def goal_blind_returns(self, tasks: Float64, episodes: int | None = None) -> Float64 | None:
        """Return per episode of the oracle kept from knowing the goal, (n, K), or None."""
        return None

    def oracle_success(self, tasks: Float64) -> Bool | None:
        """Whether any step of the oracle's episode from the origin succeeds, (n,), or None."""
        return None

    def goal_blind_success(self, tasks: Float64) -> Bool | None:
        """The same of the oracle kept from knowing the goal, (n,), or None."""
        return None

    def search_returns(self, tasks: Float64, episodes: int | None = None) -> Float64 | None:
        """Return per episode of a scripted search that does not know the task, (n, K), or None."""
        return None

    def random_actions(self, shape: tuple[int, ...], rng: np.random.Generator) -> Actions:
        """Uniform actions, (*shape, act)."""
        full = (*shape, self.spec.action_dim)
        if self.spec.n_actions is None:
            return rng.uniform(-1.0, 1.0, full).astype(np.float32)
        return rng.integers(0, self.spec.n_actions, full)

    def scripted_actions(
        self,
        observations: Float32,
        tasks: Float64,
        rng: np.random.Generator,
        noise: float | Float64,
    ) -> Actions:
        """The oracle made noisy, (..., act); `noise` may be one number a row, (...,).

        Continuous actions get Gaussian noise of standard deviation `noise` and are clipped to
        [-1, 1]; a discrete action is replaced by a uniform one with probability `noise`.
        """
        actions = self.oracle_actions(observations, tasks)
        noise = np.asarray(noise, np.float64)[..., None]
        if self.spec.n_actions is None:
            noisy = actions + noise * rng.standard_normal(actions.shape)
            return np.clip(noisy, -1.0, 1.0).astype(np.float32)
        uniform = self.random_actions(actions.shape[:-1], rng)
        return np.where(rng.random(actions.shape) < noise, uniform, actions)

    def frame_source(self, task: Float64, size: int, camera: str | None) -> FrameSource | None:
        """Draws `Simulator.render_state` of a task for videos; None: `plot_rollout` is used.

        Raises TaskError where there is no such camera, or no graphics library.
        """
        return None

    @abstractmethod
    def plot_rollout(self, axes: Axes, observations: Float32, task: Float64) -> None:
        """Draw arena, goal and the path of every episode of observations (K, H + 1, obs)."""


def spread(values: NDArray[Scalar], *arrays: NDArray[Any]) -> NDArray[Scalar]:
    """Values broadcast to the common shape of all axes but the last of each array, writeable."""
    shape = common_shape(*arrays)
    return values if values.shape == shape else np.broadcast_to(values, shape).copy()


def common_shape(*arrays: NDArray[Any]) -> tuple[int, ...]:
    """What all axes but the last broadcast to; quicker than `np.broadcast_shapes`."""
    return np.broadcast(*[array[..., 0] for array in arrays]).shape
