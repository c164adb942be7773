"""Refuses, before anything runs, settings that do not fit the task family.

The stages check the same when they start; here a run of hours is not begun that must fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.config import RunConfig
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from environments.base import Spec

DISCRETE_RULES = ("dqn", "cql")
CONTINUOUS_RULES = ("sac", "cql", "iql", "td3bc", "rebrac")


def check_fit(config: RunConfig) -> None:
    """Compare the whole configuration with its family.

    Raises:
        TaskError: there is no such family; names the nearest.
        ConfigError: a setting does not fit it; names the setting and what would be right.
    """
    from environments.registry import load_family

    for problem in _problems(config, load_family(config.collect.domain).spec):
        raise ConfigError(problem)


def _problems(config: RunConfig, spec: Spec) -> Iterator[str]:
    discrete = spec.n_actions is not None
    rules, kind = (DISCRETE_RULES, "discrete") if discrete else (CONTINUOUS_RULES, "continuous")
    learners = {"offline.learner.rule": config.offline.learner.rule}
    if config.collect.behaviour == "learner":
        learners["collect.learner.rule"] = config.collect.learner.rule
    for setting, rule in learners.items():
        if rule not in rules:
            yield (
                f"{setting} is {rule}, but actions of {spec.name} are {kind}: "
                f"use one of {', '.join(rules)}"
            )
    if spec.tasks_differ_in == "dynamics":
        remedy = f"the tasks of {spec.name} differ in dynamics, so rewards cannot be relabelled"
        if config.vae.relabelling.enabled:
            yield f"vae.relabelling.enabled is true, but {remedy}: set it to false"
        if config.relabel.relabelled_copies:
            yield f"relabel.relabelled_copies is set, but {remedy}: set it to 0"
    if config.relabel.relabelled_copies and not config.relabel.relabelling.enabled:
        yield (
            "relabel.relabelled_copies asks for relabelled trials, but "
            "relabel.relabelling.enabled is false: set one of them otherwise"
        )
    for section, relabelling in (
        ("vae.relabelling", config.vae.relabelling),
        ("relabel.relabelling", config.relabel.relabelling),
    ):
        for setting, off in (("until_success", "false"), ("fruitless", "0")):
            asked = relabelling.enabled and getattr(relabelling, setting)
            if asked and spec.binary_reward is None:
                yield (
                    f"{section}.{setting} needs a reward of two values, but {spec.name} has "
                    f"another: set it to {off}"
                )
        if relabelling.enabled:
            yield from _indivisible(f"{section}.piece_steps", relabelling.piece_steps, spec)
    collect, relabel = config.collect, config.relabel
    yield from _indivisible("collect.replaying_steps", collect.replaying_steps, spec)
    if collect.replaying_steps is not None and not collect.policy_replaying:
        yield (
            "collect.replaying_steps is about replayed trials, but collect.policy_replaying is 0: "
            "set one of them otherwise"
        )
    if relabel.keeps_outcomes and (
        spec.binary_reward is None or spec.tasks_differ_in == "dynamics"
    ):
        yield (
            "relabel.relabelling.task_averaging needs tasks that differ in a reward of two values, "
            f"but those of {spec.name} do not: set it to false"
        )
    if relabel.keeps_outcomes and config.offline.use_belief_rewards:
        yield (
            "offline.use_belief_rewards and relabel.relabelling.task_averaging both replace "
            "rewards by their expectation: set one of them to false"
        )
    collected = collect.random_trials + collect.iterations * collect.trials_per_iteration
    if relabel.skip_trials + (relabel.trials or 1) > collected:
        yield (
            f"relabel keeps {relabel.trials or 'all'} trials a task after the first "
            f"{relabel.skip_trials}, but collect makes {collected}: lower relabel.trials or "
            "relabel.skip_trials"
        )
    decoder = config.vae.model.reward_decoder
    if decoder.enabled and decoder.likelihood != "squared-error" and spec.binary_reward is None:
        yield (
            f"vae.model.reward_decoder.likelihood is {decoder.likelihood}, but rewards of "
            f"{spec.name} are not one of two values: use squared-error"
        )
    if decoder.enabled and decoder.likelihood == "bernoulli-per-cell" and spec.cells is None:
        yield (
            "vae.model.reward_decoder.likelihood is bernoulli-per-cell, but "
            f"{spec.name} has no cells: use bernoulli"
        )


def _indivisible(setting: str, steps: int | None, spec: Spec) -> Iterator[str]:
    """Says so where episodes cannot be cut into pieces of `steps`; None leaves them whole."""
    if steps is not None and spec.horizon % steps:
        yield (
            f"{setting} is {steps}, but episodes of {spec.name} have {spec.horizon} steps: "
            "use a divisor of that"
        )
