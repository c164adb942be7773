"""Gridworld: find a goal cell on a 5 x 5 grid (GridNavi of Zintgraf et al., VariBAD, 2020).

Reward +1 for a step that ends on the goal, -0.1 for any other; H = 15, K = 4. The goal is one of
21 cells: all but (0, 0), (0, 1), (1, 0), (1, 1). Evaluation starts in (0, 0), collection in any
cell but the goal (Dorfman et al., BOReL, 2021).

Deliberate deviations from the published code: none in the MDP. Observations carry no done flag
(trials keep the reset observation of every episode instead).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from environments.base import Actions, Bool, Float32, Float64, Int64, Spec, spread
from environments.errors import TaskError
from environments.observable import ObservableFamily

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDE = 5
STEP_REWARD, GOAL_REWARD = -0.1, 1.0
MOVES = np.array([(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)], dtype=np.float32)
"""Displacements (x, y) of the actions stay, up, right, down, left."""
STAY, UP, RIGHT, DOWN, LEFT = range(5)
GOALS = np.array(
    [(x, y) for y in range(SIDE) for x in range(SIDE) if x > 1 or y > 1], dtype=np.float64
)
"""The 21 goal cells, (21, 2)."""

# The scripted search. The first path enters a new candidate at every step from the second on,
# which no path can better. The 7 cells that it leaves out lie one each at distances 2 to 8, on
# one monotone path, so the second episode meets each of them as early as if it were known.
_FIRST_SEARCH = [RIGHT] * 4 + [UP] + [LEFT] * 2 + [UP, LEFT, UP] + [RIGHT] * 2 + [DOWN, RIGHT, UP]
_SECOND_SEARCH = [UP] * 4 + [RIGHT] * 4 + [STAY] * 7


class Gridworld(ObservableFamily):
    """21 tasks that differ in the goal cell, given as its (x, y)."""

    spec: ClassVar[Spec] = Spec(
        name="gridworld",
        observation_names=("x", "y"),
        action_dim=1,
        n_actions=len(MOVES),
        horizon=15,
        episodes=4,
        task_names=("goal_x", "goal_y"),
        tasks_differ_in="reward",
        cells=SIDE * SIDE,
        binary_reward=(STEP_REWARD, GOAL_REWARD),
    )

    def all_tasks(self) -> Float64:
        """The 21 goals, (21, 2)."""
        return GOALS.copy()

    def sample_tasks(self, count: int, rng: np.random.Generator) -> Float64:
        """Draw `count` distinct goals, (count, 2); raises TaskError beyond 21."""
        if not 0 < count <= len(GOALS):
            raise TaskError(f"gridworld: {count} tasks asked for, it has 1 to {len(GOALS)}")
        return GOALS[rng.permutation(len(GOALS))[:count]]

    def validate_tasks(self, tasks: Float64) -> None:
        """Raise TaskError unless every task is one of the 21 goal cells."""
        super().validate_tasks(tasks)
        legal = (tasks[:, None] == GOALS).all(axis=2).any(axis=1)
        for index in np.flatnonzero(~legal)[:1]:
            raise TaskError(
                f"gridworld: task {index} is the cell {tuple(tasks[index].tolist())}, "
                f"expected one of the {len(GOALS)} goal cells"
            )

    def wide_starts(self, tasks: Float64, rng: np.random.Generator) -> Float32:
        """Uniform over the 24 cells that are not the environment's goal, (n, 2)."""
        goal = self.cell(tasks)
        cell = rng.integers(0, SIDE * SIDE - 1, len(tasks))
        cell = cell + (cell >= goal)  # skips the goal without a rejection loop
        return np.stack([cell % SIDE, cell // SIDE], axis=1).astype(np.float32)

    def transition(self, observations: Float32, actions: Actions, tasks: Float64) -> Float32:
        """Move by one cell; a move off the grid stays."""
        moved: Float32 = observations + MOVES[actions[..., 0]]
        np.maximum(moved, 0, out=moved)
        np.minimum(moved, SIDE - 1, out=moved)  # both are quicker than a clip of few numbers
        return moved

    def reward(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Any = None,
    ) -> Float32:
        """+1 where s' is the goal, else -0.1, (...,)."""
        return _reward(self.success(observations, actions, next_observations, tasks))

    def outcome(
        self, observations: Float32, actions: Actions, next_observations: Float32, tasks: Float64
    ) -> tuple[Float32, Bool]:
        """Reward and success of a step."""
        reached = self.success(observations, actions, next_observations, tasks)
        return _reward(reached), reached

    def success(
        self,
        observations: Float32,
        actions: Actions,
        next_observations: Float32,
        tasks: Float64,
        sim: Any = None,
    ) -> Bool:
        """Whether s' is the goal, (...,)."""
        # Column by column: a reduction over an axis of two costs four times as much.
        goals = tasks.astype(np.float32)  # whole numbers; one type is compared twice as fast
        x_reached: Bool = next_observations[..., 0] == goals[..., 0]
        reached = x_reached & (next_observations[..., 1] == goals[..., 1])
        return spread(reached, observations, actions, next_observations, tasks)

    def cell(self, observations: Float32 | Float64) -> Int64:
        """Cell index 5 y + x of observations (..., 2), in [0, 25)."""
        x, y = observations[..., 0], observations[..., 1]
        return (y * SIDE + x).astype(np.int64)

    def oracle_actions(self, observations: Float32, tasks: Float64) -> Actions:
        """First along x, then along y, then stay; (..., 1) int64."""
        gap = tasks - observations
        along_x = np.where(gap[..., 0] > 0, RIGHT, LEFT)
        along_y = np.where(gap[..., 1] > 0, UP, np.where(gap[..., 1] < 0, DOWN, STAY))
        return np.where(gap[..., 0] != 0, along_x, along_y)[..., None].astype(np.int64)

    def search_returns(self, tasks: Float64, episodes: int | None = None) -> Float64:
        """Return per episode, (n, K), of a search that does not know the goal.

        Episode 1 walks a fixed path and stays once the reward is +1; episode 2 either goes
        straight to the goal found or walks the path through the cells left out; later ones know.
        """
        simulator = self.simulator(tasks, "origin")
        returns = np.zeros((len(tasks), episodes or self.spec.episodes))
        known = np.zeros(len(tasks), dtype=np.bool_)
        for episode in range(returns.shape[1]):
            path = _FIRST_SEARCH if episode == 0 else _SECOND_SEARCH
            observations = simulator.reset(np.random.default_rng(0))
            for move in path:
                # Going to a known goal is what the oracle does, and staying there too.
                exploit = self.oracle_actions(observations, tasks)
                step = simulator.step(np.where(known[:, None], exploit, move))
                returns[:, episode] += step.rewards
                known |= step.successes
                observations = step.observations
        return returns

    def posterior(self, next_cells: Int64, rewards: Float32) -> Float64:
        """Exact Bayes filter over the goal: (..., T) cells and rewards to (..., T + 1, 25).

        Entry t is P(goal = cell | the first t transitions) from a uniform prior over the 21
        goals. Rewards are noiseless, so a cell entered for -0.1 drops out for good, and one
        entered for +1 takes all. Raises TaskError where no goal explains the rewards.
        """
        prior = np.zeros(SIDE * SIDE)
        prior[self.cell(GOALS)] = 1.0
        entered = next_cells[..., None] == np.arange(SIDE * SIDE)
        rewarded = (np.asarray(rewards) > 0)[..., None]
        consistent = np.where(rewarded, entered, ~entered)  # (..., T, 25), the likelihood
        first = np.broadcast_to(prior, (*consistent.shape[:-2], 1, SIDE * SIDE))
        likelihood = np.concatenate([first, consistent], axis=-2)
        weights = np.minimum.accumulate(likelihood, axis=-2)
        total = weights.sum(axis=-1, keepdims=True)
        if not total.all():
            where = np.argwhere(total[..., 0] == 0)[0].tolist()
            raise TaskError(f"gridworld: no goal explains the rewards up to index {where}")
        posterior: Float64 = weights / total
        return posterior

    def plot_rollout(self, axes: Axes, observations: Float32, task: Float64) -> None:
        """Draw the grid, the goal and the path of every episode of (K, H + 1, 2)."""
        from environments.plots import draw_grid_rollout

        draw_grid_rollout(axes, observations, task, SIDE)


def _reward(reached: Bool) -> Float32:
    """+1 where the goal was reached, else -0.1."""
    return np.where(reached, np.float32(GOAL_REWARD), np.float32(STEP_REWARD))
