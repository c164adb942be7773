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
    if not imported:
        if text := config.collect.sharing_misfit(spec):
            yield "collect.shared_experience", text
        yield from _task_problems(config, family)
        yield from _script_problem("collect.behaviour", config.collect.behaviour, family)
    if config.evaluate.context_episodes and not family.has_oracle:
        yield (
            "evaluate.context_episodes",
            f"is {config.evaluate.context_episodes}, but {spec.name} has no scripted policy to "
            "give a context: set it to 0",
        )
    discrete = spec.n_actions is not None
    if config.evaluate.exploration_noise and discrete:
        text = f"is {config.evaluate.exploration_noise:g}, but actions of {spec.name} are discrete"
        yield "evaluate.exploration_noise", f"{text}: set it to 0"
    rules, kind = (DISCRETE_RULES, "discrete") if discrete else (CONTINUOUS_RULES, "continuous")
    learners = {"offline.learner.rule": config.offline.learner.rule}
    if config.collect.behaviour == "learner":
        learners["collect.learner.rule"] = config.collect.learner.rule
    for setting, rule in learners.items():
        if rule not in rules:
            text = f"is {rule}, but actions of {spec.name} are {kind}"
            yield setting, f"{text}: use one of {', '.join(rules)}"
    yield from _relabelling_problems(config, spec)
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


def _task_problems(config: RunConfig, family: TaskFamily) -> Iterator[Problem]:
    """Says so where the family has no such split, or not so many tasks."""
    tasks = config.collect.tasks
    text = tasks.misfit(family.spec.name, family.all_tasks())
    if text is not None:
        yield "collect.tasks", text
    if tasks.split is None:
        return
    try:
        found = family.split(tasks.split, tasks.seed)
    except TaskError as error:
        yield "collect.tasks.split", f"cannot be used: {error}"
        return
    for role, wanted, known in zip(
        ("train", "test"), (tasks.train, tasks.test), found, strict=True
    ):
        if wanted > len(known):
            text = f"is {wanted}, but split {tasks.split!r} of {family.spec.name} has {len(known)}"
            yield f"collect.tasks.{role}", f"{text} such tasks: lower it"


def _script_problem(setting: str, behaviour: str, family: TaskFamily) -> Iterator[Problem]:
    if behaviour == "scripted" and not family.has_oracle:
        text = f"is scripted, but {family.spec.name} has no scripted policy"
        yield setting, f"{text}: choose learner, random or policy"


def _relabelling_problems(config: RunConfig, spec: Spec) -> Iterator[Problem]:
    """Says so where relabelling is asked for and rewards cannot be relabelled, or need not be."""
    remedy = None
    if spec.tasks_differ_in == "dynamics":
        remedy = f"the tasks of {spec.name} differ in dynamics, so rewards cannot be relabelled"
    elif (why := spec.why_not_hidden) is not None:
        remedy = f"there is nothing to relabel in {spec.name} ({why})"
    if remedy is not None:
        if config.vae.relabelling.enabled:
            yield "vae.relabelling.enabled", f"is true, but {remedy}: set it to false"
        if config.relabel.relabelled_copies:
            yield "relabel.relabelled_copies", f"is set, but {remedy}: set it to 0"
    if spec.infos and config.vae.relabelling.enabled and config.vae.relabelling.task_averaging:
        yield (
            "vae.relabelling.task_averaging",
            f"needs rewards under every task, but those of {spec.name} are known for planned "
            "donors only: set it to false",
        )


def _indivisible(setting: str, steps: int | None, spec: Spec) -> Iterator[Problem]:
    """Says so where episodes cannot be cut into pieces of `steps`; None leaves them whole."""
    if steps is not None and spec.horizon % steps:
        text = f"is {steps}, but episodes of {spec.name} have {spec.horizon} steps"
        yield setting, f"{text}: use a divisor of that"
