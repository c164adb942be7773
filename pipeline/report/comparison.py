"""This run beside others of its domain: what is lost without relabelling, or with another rule."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from pipeline.report import panels
from pipeline.report.panels import Panel
from pipeline.report.policies import PolicyScores, gather, protocol_line
from pipeline.report.sources import Scores
from pipeline.report.tables import Cell, Share, Table

_SAME = ("task_count", "test_tasks_seen", "start", "episodes", "horizon")
_MOST_DIFFERENCES = 3


@dataclass(frozen=True)
class Contender:
    """Another way to do it, evaluated on the same tasks: one scores file a seed."""

    label: str  # the preset, or the stem of a user's file
    difference: str  # what its configuration says otherwise, in words or dotted keys
    scores: tuple[Scores, ...]

    @property
    def agent(self) -> PolicyScores:
        """Its agent over all of its seeds."""
        return next(one for one in gather(self.scores) if one.policy == "agent")


def comparable(own: Scores, other: Scores) -> bool:
    """Whether two scores were made by one protocol, so that they may stand in one table."""
    same = all(own.protocol.get(key) == other.protocol.get(key) for key in _SAME)
    return same and own.domain == other.domain and own.tasks.tolist() == other.tasks.tolist()


def comparison_table(own: Contender, others: Sequence[Contender]) -> Table:
    """Return of a trial by contender, and what it lacks against this run's mean."""
    base = own.agent.estimate.mean
    rows = [_row(one, None if one is own else base) for one in (own, *others)]
    return Table(
        "comparison",
        "Beside other ways to do it",
        protocol_line(own.scores[0], len(own.scores)),
        ("preset", "differs in", "seeds", "return", "IQM", "95 % of IQM", "against this", "solved"),
        tuple(rows),
        ("Each preset counts its own seeds; the protocol is otherwise the same for all rows.",),
    )


def comparison_panel(own: Contender, others: Sequence[Contender]) -> Panel:
    """Means with intervals as bars from the top down, references as lines."""
    contenders = (own, *others)
    ticks = _ticks(contenders)
    references = [s for s in gather(own.scores) if s.policy in ("oracle", "search")]

    def plot(axes: Axes) -> None:
        for place, one in enumerate(contenders):
            summary = one.agent.estimate
            tint = panels.BLUE if one is own else panels.GREY
            axes.barh(place, summary.mean, color=tint, height=0.62)
            if one.agent.varies:
                ends = (summary.mean_low, summary.mean_high)
                axes.hlines(place, *ends, color="#000000", linewidth=1.6)
        for scores, style in zip(references, ("--", ":"), strict=False):
            name, mean = scores.policy, scores.estimate.mean
            axes.axvline(mean, color=panels.GREEN, linestyle=style, linewidth=1.3, label=name)
        axes.set_yticks(range(len(contenders)), ticks)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("return of a trial")
        panels.legend_above(axes, right=False)

    caption = "Mean return of a trial of every preset in the store, with 95 % intervals over seeds."
    most_lines = 1 + max(tick.count("\n") for tick in ticks)
    size = (6.4, 1.3 + (0.28 + 0.14 * most_lines) * len(contenders))
    return panels.draw("comparison", caption, plot, size, fit=True)


def _ticks(contenders: Sequence[Contender]) -> list[str]:
    """Presets; one that stands more than once with what its configuration says otherwise."""
    times = Counter(one.label for one in contenders)
    return [
        "\n".join([one.label, *_wrapped(one.difference)]) if times[one.label] > 1 else one.label
        for one in contenders
    ]


def _wrapped(text: str) -> list[str]:
    """At most two short lines."""
    return textwrap.wrap(
        text, 40, max_lines=2, placeholder=" ...", break_on_hyphens=False, break_long_words=False
    )


def _row(one: Contender, base: float | None) -> tuple[Cell, ...]:
    agent = one.agent
    summary = agent.estimate
    return (
        one.label,
        one.difference or "–",
        len(one.scores),
        summary.mean,
        summary.iqm,
        (summary.low, summary.high) if agent.varies else None,
        None if base is None else summary.mean - base,
        None if agent.success is None else Share(agent.success.mean()),
    )


def differences(own: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What the other configuration sets otherwise: `vae.relabelling.enabled=false`, ..."""
    mine, theirs = dict(_flat(own)), dict(_flat(other))
    changed = [key for key in theirs if theirs[key] != mine.get(key)]
    shown = [f"{key}={_text(theirs[key])}" for key in changed[:_MOST_DIFFERENCES]]
    rest = len(changed) - len(shown)
    return ", ".join([*shown, *([f"{rest} more"] if rest else [])])


def _flat(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield path + key, value


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
