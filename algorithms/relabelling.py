"""Reward relabelling (RR; BOReL, section 4): another task's behaviour under this task's reward.

Without it the behaviour of a log tells which task it is from, and a belief trained on it need not
look at rewards. Each of the first max(1, K // 2) episodes of a target trial is replaced by that of
a donor trial, rewards and terminations recomputed exactly under the target's task; the rest stays.

Deliberate deviations from the published code: donors are drawn afresh for every batch, without
replacement inside it and from original trials only; nothing is overwritten; terminations are
recomputed too. Two extensions, off by default: in a share `whole_trials` of the relabelled trials
every episode is a donor's, which shows long searches that find nothing; and with `until_success`
the task's own agent acts in the episodes after the first high reward, which shows how the find is
used, when it is no secret any more. In neither does behaviour tell the task before a reward does:
an agent that learns from what knows its goal expects a reward wherever it heads.

Where an exact reward needs simulator states, donors come from a plan (`algorithms.donor_plans`),
whose rewards were recomputed in advance.

A family whose tasks differ in dynamics is refused: behaviour under other dynamics has no exact
counterpart (policy replaying, in collection, takes its place).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from algorithms.config import RelabellingConfig
from algorithms.donor_plans import DonorPlan
from algorithms.donors import Donors, draw_donors
from algorithms.elbo_batch import is_high
from algorithms.errors import AlgorithmError
from datasets.trials import Trials
from environments.base import TaskFamily

Bool = NDArray[np.bool_]
Int64 = NDArray[np.int64]

_REDRAWS = 8


def check_relabelling(family: TaskFamily, tasks: int, config: RelabellingConfig) -> None:
    """Raise AlgorithmError where trials of `tasks` tasks of the family cannot be relabelled."""
    if not config.enabled:
        return
    spec = family.spec
    if spec.tasks_differ_in == "dynamics":
        raise AlgorithmError(
            f"rewards cannot be relabelled: tasks of {spec.name} differ in dynamics; set "
            "relabelling.enabled to false and use policy replaying in collection"
        )
    if (why := spec.why_not_hidden) is not None:
        raise AlgorithmError(
            f"there is nothing to relabel in {spec.name}: {why}; set relabelling.enabled to false"
        )
    if spec.infos and config.task_averaging:
        raise AlgorithmError(
            f"relabelling.task_averaging needs rewards under every task, but those of {spec.name} "
            "are known for planned donors only: set it to false"
        )
    if tasks < 2 and config.donors == "other-tasks":
        raise AlgorithmError("relabelling from other tasks needs at least two tasks, there is one")
    if (config.until_success or config.fruitless) and spec.binary_reward is None:
        raise AlgorithmError(
            "relabelling.until_success and .fruitless need a reward of two values, but "
            f"{spec.name} has another"
        )


def draw_targets(rng: np.random.Generator, trials: int, fraction: float) -> Int64:
    """Which of a batch's trials are relabelled: round(fraction * trials) of them, ascending."""
    chosen = rng.permutation(trials)[: round(fraction * trials)]
    return np.sort(chosen)


def relabel_rewards(
    trials: Trials,
    donors: Trials,
    family: TaskFamily,
    tasks: NDArray[np.float64],
    lead: int | None = None,
) -> Trials:
    """Trials that open with the donors' episodes, under their own tasks' rewards.

    trials and donors (N, K, H, ...), tasks (N, task_dim) of `trials`; `lead` episodes are the
    donors', max(1, K // 2) if None. Inputs are untouched, infos are dropped.
    """
    lead = max(1, trials.episodes // 2) if lead is None else lead
    observations, actions = donors.observations[:, :lead], donors.actions[:, :lead]
    step = (observations[:, :, :-1], actions, observations[:, :, 1:], tasks[:, None, None])
    rewards = family.reward(*step).astype(np.float32, copy=False)
    return Trials(
        observations=np.concatenate([observations, trials.observations[:, lead:]], 1),
        actions=np.concatenate([actions, trials.actions[:, lead:]], 1),
        rewards=np.concatenate([rewards, trials.rewards[:, lead:]], 1),
        terminations=np.concatenate([family.termination(*step), trials.terminations[:, lead:]], 1),
        truncations=np.concatenate([donors.truncations[:, :lead], trials.truncations[:, lead:]], 1),
    )


def relabel_batch(
    rng: np.random.Generator,
    batch: Trials,
    own: Int64,
    donors: Donors,
    config: RelabellingConfig,
) -> Trials:
    """The trials of a batch, (B, K, H, ...), a share of them relabelled; order is kept.

    own (B,) is the task of each, an index into the donors' tasks.
    """
    if not config.enabled:
        return batch
    order = draw_targets(rng, batch.count, config.fraction)
    whole = order[draw_targets(rng, len(order), config.whole_trials)]
    relabelled = batch
    for places, lead in (
        (np.setdiff1d(order, whole), max(1, batch.episodes // 2)),
        (whole, batch.episodes),
    ):
        if len(places):
            selected, owners = batch.select(places), own[places]
            changed = _led_by_donors(rng, selected, owners, lead, donors, config)
            if config.fruitless and lead == batch.episodes:
                changed = _fruitless(rng, changed, owners, donors, config)
            if config.until_success and lead == batch.episodes:
                kept = config.donors_after_success
                own_too = draw_targets(rng, len(places), 1 - kept) if kept else slice(None)
                changed = _own_after_success(changed, selected, donors.family, own_too)
            relabelled = _merged(relabelled, places, changed)
    return relabelled


def _led_by_donors(
    rng: np.random.Generator,
    trials: Trials,
    own: Int64,
    lead: int,
    donors: Donors,
    config: RelabellingConfig,
) -> Trials:
    """Trials of tasks own (N,), their first `lead` episodes freshly drawn donors' instead.

    Each comes from another donor, the same slot, and gets the reward of the trial's own task. With
    `piece_persistence` a donor goes on in the next slot, with a chance drawn for each trial.
    """
    if donors.plan is not None:
        return _led_by_planned(rng, trials, own, lead, donors, donors.plan, config)
    rows, slots = draw_donors(rng, own, donors.pools, config, lead), np.arange(lead)
    rows = _persisting(rng, rows, config)
    episodes = {name: getattr(donors.trials, name)[rows, slots] for name in _RELABELLED}
    leading = Trials(**episodes, infos={})
    return relabel_rewards(trials, leading, donors.family, donors.tasks[own], lead)


def _persisting(rng: np.random.Generator, drawn: Int64, config: RelabellingConfig) -> Int64:
    """Donors (n, slots), some of which go on in the slots after theirs."""
    if not config.piece_persistence:
        return drawn
    chances = rng.uniform(0, config.piece_persistence, (len(drawn), 1))
    begins = rng.random(drawn.shape) >= chances
    since = np.maximum.accumulate(np.where(begins, np.arange(drawn.shape[1]), 0), axis=1)
    return np.take_along_axis(drawn, since, axis=1)


def _led_by_planned(
    rng: np.random.Generator,
    trials: Trials,
    own: Int64,
    lead: int,
    donors: Donors,
    plan: DonorPlan,
    config: RelabellingConfig,
) -> Trials:
    """As `_led_by_donors`, from a plan; where trials are cut, slot s is piece s of an episode.

    A slot for which the plan has no donor keeps the trial's own steps.
    """
    assert donors.firsts is not None
    steps = trials.horizon
    pieces = plan.horizon // steps
    piece = np.arange(lead) % pieces
    ends = (piece + 1) * steps
    fresh = plan.draw(rng, own, ends)
    drawn = _persisting(rng, fresh, config)
    drawn = np.where(plan.allows(own, drawn, ends), drawn, fresh)
    target = own[:, None]
    rows = donors.firsts[plan.task[target, drawn]] + plan.trial[target, drawn]
    slots = plan.episode[target, drawn] * pieces + piece
    leading = {name: getattr(donors.trials, name)[rows, slots] for name in _RELABELLED}
    inside = (piece * steps)[:, None] + np.arange(steps)  # (lead, steps) of the whole episode
    there = (target[..., None], drawn[..., None], inside)
    leading |= {"rewards": plan.rewards[there], "terminations": plan.terminations[there]}
    alone = drawn < 0  # the trial's own steps stand
    for name, array in leading.items():
        array[alone] = getattr(trials, name)[:, :lead][alone]
    joined = {
        name: np.concatenate([leading[name], getattr(trials, name)[:, lead:]], 1)
        for name in _RELABELLED
    }
    return Trials(**joined, infos={})


def _fruitless(
    rng: np.random.Generator,
    trials: Trials,
    own: Int64,
    donors: Donors,
    config: RelabellingConfig,
) -> Trials:
    """Trials, a share of them without early episodes of donors that would find the goal.

    Early is before a slot of its own for each trial, uniform in 1 .. K, so that finds late in a
    search are seen as well. Donors are drawn again some times at most: where nearly everybody finds
    the goal, it is found.
    """
    chosen = draw_targets(rng, trials.count, config.fruitless)
    ends = rng.integers(1, trials.episodes + 1, len(chosen))
    early = np.zeros((trials.count, trials.episodes), bool)
    early[chosen] = np.arange(trials.episodes) < ends[:, None]
    for _ in range(_REDRAWS):
        finds = _finds(trials, donors.family) & early
        again = np.flatnonzero(finds.any(-1))
        if not len(again):
            break
        others = trials.select(again)
        fresh = _led_by_donors(rng, others, own[again], trials.episodes, donors, config)
        keep = ~finds[again]
        for name in _RELABELLED:
            getattr(fresh, name)[keep] = getattr(others, name)[keep]
        trials = _merged(trials, again, fresh)
    return trials


def _own_after_success(
    trials: Trials, own: Trials, family: TaskFamily, rows: Int64 | slice
) -> Trials:
    """Trials, with the `own` ones' episodes after that of the first high reward in those rows."""
    finds = _finds(trials, family)
    after = np.zeros_like(finds)
    after[rows, 1:] = np.logical_or.accumulate(finds, 1)[rows, :-1]
    kept = {name: getattr(trials, name).copy() for name in _RELABELLED}
    for name, array in kept.items():
        array[after] = getattr(own, name)[after]
    return replace(trials, **kept)


def _finds(trials: Trials, family: TaskFamily) -> Bool:
    """Which episodes find the goal, (N, K): those with a high reward."""
    found: Bool = is_high(trials.rewards, family.spec.binary_reward).max(-1) > 0
    return found


def _merged(batch: Trials, places: Int64, others: Trials) -> Trials:
    """A copy of the batch with other trials at `places`."""
    merged = {name: getattr(batch, name).copy() for name in _RELABELLED}
    for name, array in merged.items():
        array[places] = getattr(others, name)
    return replace(batch, **merged, infos={})


_RELABELLED = ("observations", "actions", "rewards", "terminations", "truncations")
