"""Presets for every task set of a benchmark: `ml1/push-wall` is the preset `ml1` on one of them.

A fragment with `benchmark: NAME` at its top is a template: it says everything but the domain, which
is `NAME/TASK-SET`. Where the task set hides no goal and there is a template of the same name with
`_visible` behind it, that one is taken, since there is nothing to relabel then.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from environments.registry import BENCHMARKS, canonical_domain, goal_of
from pipeline.errors import ConfigError
from pipeline.names import did_you_mean, printable

BENCHMARK = "benchmark"
_VISIBLE = "_visible"

log = logging.getLogger("omrl.presets")


@dataclass(frozen=True)
class Instance:
    """A template on one task set."""

    template: str
    domain: str

    @property
    def name(self) -> str:
        """`template/task-set`."""
        return f"{self.template}/{self.domain.partition('/')[2]}"

    @property
    def companion(self) -> str:
        """The template for task sets that hide nothing."""
        return self.template + _VISIBLE

    @property
    def hides_its_goal(self) -> bool:
        """Whether there is anything to relabel."""
        return goal_of(self.domain) == "hidden"

    def say_visible(self) -> None:
        """Tell that rewards stay as they were logged."""
        why = (
            "the first observation tells it" if goal_of(self.domain) == "visible" else "it is fixed"
        )
        log.warning(
            "%s: the goal is not hidden (%s), so there is nothing to relabel: rewards stay as "
            "logged",
            self.domain,
            why,
        )


def is_instance(preset: str) -> bool:
    """Whether a preset's name is that of a template on a task set."""
    return re.fullmatch(r"[a-z][a-z0-9_]*/[A-Za-z0-9][\w-]*", preset, re.ASCII) is not None


def instance(preset: str) -> Instance:
    """What `template/task-set` means.

    Raises:
        ConfigError: there is no such benchmark or task set; names the nearest.
    """
    template, _, task_set = preset.partition("/")
    benchmark = template.partition("_")[0]
    if benchmark not in BENCHMARKS:
        known = ", ".join(BENCHMARKS)
        raise ConfigError(f"unknown preset {printable(preset)}; benchmarks are: {known}")
    bare = canonical_domain(f"{benchmark}/{task_set}").partition("/")[2]
    if bare not in BENCHMARKS[benchmark]:
        hint = did_you_mean(bare, BENCHMARKS[benchmark], "`omrl presets --task-sets`")
        raise ConfigError(f"{benchmark} has no task set {printable(task_set)}; {hint}")
    return Instance(template, f"{benchmark}/{bare}")
