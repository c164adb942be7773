r"""What the posteriors of a batch decode: which steps, and under which tasks' rewards.

In the published method (BOReL, section 3.2) posterior i of a trial decodes the trial's own steps
under its own task g: $\ell(r_s(g), f(m_i, x_s))$. With rewards that can be recomputed, both can be
exchanged:

- `decoded_steps`: the steps are drawn from all logs. A task's own behaviour visits its own goal far
  more often than others do, so a decoder that sees only that learns "where a trial goes, the reward
  is"; steps that do not depend on the task remove that bias. Where rewards under another task are
  known for planned donors only, half of the steps are theirs and half the task's own.
- `task_averaging`: the loss of posterior i is averaged over all training tasks that would have
  given the same rewards up to step i,
  $\frac{1}{|G_i|} \sum_{g' \in G_i} \ell(r_s(g'), f(m_i, x_s))$ with
  $G_i = \{g' : r_t(g') = r_t,\ t \le i\}$. Where behaviour does not depend on the task this is
  the loss's conditional expectation given the history (Rao and Blackwell): the same minimum,
  without the noise of which task was drawn, which on the gridworld hides for thousands of updates
  that visited cells are worth remembering. Where it does, in a log's own trials, what behaviour
  tells of the task is left out of the targets, so the belief is the posterior given rewards alone
  whatever is encoded: the one that is right for a policy which is not told its task.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from algorithms.config import RelabellingConfig
from algorithms.donor_plans import DonorPlan
from algorithms.donors import Donors
from datasets.trials import Trials
from environments.base import TaskFamily

Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

_SAME_REWARD = 1e-5  # rewards closer than this are the same: float32 sums in another order


class TaskAverage(NamedTuple):
    """Rewards under N training tasks, and how likely each of them is at every posterior."""

    rewards: Float32  # (B, S, N) of the decoded steps
    weights: Float32  # (B, T + 1, N), sums to 1 over the tasks


class DecodedSteps(NamedTuple):
    """S steps for each of B trials, and their rewards."""

    observations: Float32  # (B, S, obs)
    actions: NDArray[Any]  # (B, S, act)
    next_observations: Float32  # (B, S, obs)
    rewards: Float32  # (B, S) under the trial's own task
    average: TaskAverage | None = None


def own_steps(trials: Trials) -> DecodedSteps:
    """The trials' own steps in order, S = T."""
    shape = (trials.count, trials.steps)
    return DecodedSteps(
        trials.observations[:, :, :-1].reshape(*shape, -1),
        trials.actions.reshape(*shape, -1),
        trials.next_observations.reshape(*shape, -1),
        trials.rewards.reshape(shape),
    )


def choose_decoded(
    rng: np.random.Generator,
    trials: Trials,
    own: Int64,
    donors: Donors,
    config: RelabellingConfig,
) -> DecodedSteps:
    """What the posteriors of a batch decode, as `config` asks.

    trials are the B that are encoded, own (B,) the task of each, an index into the donors' tasks;
    drawn steps come from the donors' pools.
    """
    family, tasks = donors.family, donors.tasks
    encoded = own_steps(trials)
    decoded = encoded
    if config.enabled and config.decoded_steps is not None:
        if donors.plan is not None:
            decoded = _draw_planned_steps(rng, donors, donors.plan, own, config.decoded_steps)
        else:
            steps = _draw_steps(rng, donors, len(own), config.decoded_steps)
            decoded = steps._replace(rewards=_rewards(family, steps, tasks[own][:, None]))
    if not (config.enabled and config.task_averaging):
        return decoded
    weights = explaining(agreement(encoded, own, family, tasks))
    return decoded._replace(average=TaskAverage(_task_rewards(family, decoded, tasks), weights))


def agreement(
    trials: DecodedSteps, own: Int64, family: TaskFamily, tasks: NDArray[np.float64]
) -> Bool:
    """Which tasks give each step the trial's reward, (B, T, N).

    trials are steps in order, own (B,) their tasks, which always agree.
    """
    rewards = _task_rewards(family, trials, tasks)
    agrees: Bool = np.abs(rewards - trials.rewards[..., None]) < _SAME_REWARD
    agrees[np.arange(len(own)), :, own] = True
    return agrees


def explaining(agrees: Bool) -> Float32:
    """Uniform weights over the tasks that explain each trial's first i rewards, (B, T + 1, N).

    agrees (B, T, N) as `agreement` gives it.
    """
    explains = np.concatenate([np.ones_like(agrees[:, :1]), agrees], 1)
    weights = np.logical_and.accumulate(explains, 1).astype(np.float32)
    weights /= weights.sum(-1, keepdims=True)
    return weights


def other_chances(agrees: Bool) -> Float32:
    """How likely another reward was at each step, given the rewards before it, (B, T).

    agrees (B, T, N) as `agreement` gives it.
    """
    before = explaining(agrees)[:, :-1]
    chances: Float32 = np.einsum("btn,btn->bt", before, ~agrees, dtype=np.float32)
    return chances


def _draw_steps(rng: np.random.Generator, donors: Donors, trials: int, count: int) -> DecodedSteps:
    """Steps (trials, count) drawn uniformly from the donors; rewards are the log's."""
    table, pool = donors.trials, np.concatenate(donors.pools)
    rows = pool[rng.integers(0, len(pool), (trials, count))]
    place = divmod(rng.integers(0, table.steps, rows.shape), table.rewards.shape[2])
    here = (rows, *place)
    following = (rows, place[0], place[1] + 1)
    return DecodedSteps(
        table.observations[here],
        table.actions[here],
        table.observations[following],
        table.rewards[here],
    )


def _draw_planned_steps(
    rng: np.random.Generator, donors: Donors, plan: DonorPlan, own: Int64, count: int
) -> DecodedSteps:
    """Steps (trials, count) whose rewards under the trials' tasks own (trials,) are known.

    Half are of the tasks' own logs, since there the rewards are that matter most; half are of their
    planned donors, if there are any.
    """
    assert donors.firsts is not None
    table = donors.trials
    shape = (len(own), count)
    steps, pieces = table.horizon, plan.horizon // table.horizon
    place = rng.integers(0, plan.horizon, shape)
    column = plan.draw_freely(rng, own, count)
    target = own[:, None]
    rows = donors.firsts[plan.task[target, column]] + plan.trial[target, column]
    episode = plan.episode[target, column]
    lots: NDArray[np.float64] = rng.random(shape)
    mine = lots < 0.5
    mine[~plan.usable[own].any(1)] = True
    theirs = place * plan.limit[target, column] // plan.horizon
    place = np.where(mine, place, theirs)
    rewards = plan.rewards[target, column, place]
    for trial, task in enumerate(own):
        pool = donors.pools[task]
        at = mine[trial]
        rows[trial, at] = pool[rng.integers(0, len(pool), at.sum())]
        episode[trial, at] = rng.integers(0, table.episodes // pieces, at.sum())
    slot, step = episode * pieces + place // steps, place % steps
    rewards = np.where(mine, table.rewards[rows, slot, step], rewards)
    return DecodedSteps(
        table.observations[rows, slot, step],
        table.actions[rows, slot, step],
        table.observations[rows, slot, step + 1],
        rewards,
    )


def _rewards(family: TaskFamily, steps: DecodedSteps, tasks: NDArray[np.float64]) -> Float32:
    rewards = family.reward(steps.observations, steps.actions, steps.next_observations, tasks)
    return rewards.astype(np.float32, copy=False)


def _task_rewards(family: TaskFamily, steps: DecodedSteps, tasks: NDArray[np.float64]) -> Float32:
    """Rewards of steps (B, S) under every task, (B, S, N)."""
    spread = steps._replace(
        observations=steps.observations[:, :, None],
        actions=steps.actions[:, :, None],
        next_observations=steps.next_observations[:, :, None],
    )
    return _rewards(family, spread, tasks)
