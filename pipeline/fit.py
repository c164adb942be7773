"""Refuses, before anything runs, settings that do not fit the task family.

The stages check the same when they start; here a run of hours is not begun that must fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from environments.errors import TaskError
from pipeline.config import RunConfig
from pipeline.errors import ConfigError
from pipeline.presets import LoadedConfig
from pipeline.problems import located

if TYPE_CHECKING:
    from environments.base import Spec, TaskFamily

DISCRETE_RULES = ("dqn", "cql")
CONTINUOUS_RULES = ("sac", "cql", "iql", "td3bc", "rebrac")


Problem = tuple[str, str]
"""A setting in dotted form, and what is wrong with it, as one sentence goes on."""


def check_fit(loaded: LoadedConfig) -> None:
    """Compare the whole configuration with its family.

    Raises:
        ConfigError: there is no such family, or a setting does not fit it; names the setting,
            where it was written and what would be right.
    """
    from environments.registry import load_family

    config = loaded.config
    try:
        family = load_family(config.collect.domain)
    except TaskError as error:
        raise _refusal(loaded, "collect.domain", str(error)) from error
    for setting, text in _problems(config, family):
        raise _refusal(loaded, setting, f"{setting} {text}")


def _refusal(loaded: LoadedConfig, setting: str, text: str) -> ConfigError:
    return ConfigError(located(text, tuple(setting.split(".")), loaded.origins, loaded.preset))


def _problems(config: RunConfig, family: TaskFamily) -> Iterator[Problem]:
    spec = family.spec
    imported = config.collect.imported is not None  # whose tasks and trials are what they are
    text = config.collect.tasks.misfit(spec.name, family.all_tasks())
    if text is not None and not imported:
        yield "collect.tasks", text
    discrete = spec.n_actions is not None
    rules, kind = (DISCRETE_RULES, "discrete") if discrete else (CONTINUOUS_RULES, "continuous")
    learners = {"offline.learner.rule": config.offline.learner.rule}
    if config.collect.behaviour == "learner":
        learners["collect.learner.rule"] = config.collect.learner.rule
    for setting, rule in learners.items():
        if rule not in rules:
            text = f"is {rule}, but actions of {spec.name} are {kind}"
            yield setting, f"{text}: use one of {', '.join(rules)}"
    if spec.tasks_differ_in == "dynamics":
        remedy = f"the tasks of {spec.name} differ in dynamics, so rewards cannot be relabelled"
        if config.vae.relabelling.enabled:
            yield "vae.relabelling.enabled", f"is true, but {remedy}: set it to false"
        if config.relabel.relabelled_copies:
            yield "relabel.relabelled_copies", f"is set, but {remedy}: set it to 0"
    if config.relabel.relabelled_copies and not config.relabel.relabelling.enabled:
        yield (
            "relabel.relabelling.enabled",
            "is false, but relabel.relabelled_copies asks for relabelled trials: "
            "set one of them otherwise",
        )
    for section, relabelling in (
        ("vae.relabelling", config.vae.relabelling),
        ("relabel.relabelling", config.relabel.relabelling),
    ):
        for setting, off in (("until_success", "false"), ("fruitless", "0")):
            asked = relabelling.enabled and getattr(relabelling, setting)
            if asked and spec.binary_reward is None:
                yield (
                    f"{section}.{setting}",
                    f"needs a reward of two values, but {spec.name} has another: set it to {off}",
                )
        if relabelling.enabled:
            yield from _indivisible(f"{section}.piece_steps", relabelling.piece_steps, spec)
    collect, relabel = config.collect, config.relabel
    yield from _indivisible("collect.replaying_steps", collect.replaying_steps, spec)
    if collect.replaying_steps is not None and not collect.policy_replaying:
        yield (
            "collect.replaying_steps",
            "is about replayed trials, but collect.policy_replaying is 0: "
            "set one of them otherwise",
        )
    if relabel.keeps_outcomes and (
        spec.binary_reward is None or spec.tasks_differ_in == "dynamics"
    ):
        yield (
            "relabel.relabelling.task_averaging",
            "needs tasks that differ in a reward of two values, "
            f"but those of {spec.name} do not: set it to false",
        )
    if relabel.keeps_outcomes and config.offline.use_belief_rewards:
        yield (
            "offline.use_belief_rewards",
            "and relabel.relabelling.task_averaging both replace rewards by their expectation: "
            "set one of them to false",
        )
    collected = collect.random_trials + collect.iterations * collect.trials_per_iteration
    if not imported and relabel.skip_trials + (relabel.trials or 1) > collected:
        yield (
            "relabel.skip_trials" if relabel.trials is None else "relabel.trials",
            f"keeps {relabel.trials or 'all'} trials a task after the first "
            f"{relabel.skip_trials}, but collect makes {collected}: lower relabel.trials or "
            "relabel.skip_trials",
        )
    decoder, likelihood = config.vae.model.reward_decoder, "vae.model.reward_decoder.likelihood"
    if decoder.enabled and decoder.likelihood != "squared-error" and spec.binary_reward is None:
        yield (
            likelihood,
            f"is {decoder.likelihood}, but rewards of {spec.name} are not one of two values: "
            "use squared-error",
        )
    if decoder.enabled and decoder.likelihood == "bernoulli-per-cell" and spec.cells is None:
        yield likelihood, f"is bernoulli-per-cell, but {spec.name} has no cells: use bernoulli"


def _indivisible(setting: str, steps: int | None, spec: Spec) -> Iterator[Problem]:
    """Says so where episodes cannot be cut into pieces of `steps`; None leaves them whole."""
    if steps is not None and spec.horizon % steps:
        text = f"is {steps}, but episodes of {spec.name} have {spec.horizon} steps"
        yield setting, f"{text}: use a divisor of that"
