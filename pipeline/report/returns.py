"""The headline in figures: returns by episode and by task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.report import panels
from pipeline.report.panels import Panel
from pipeline.report.policies import PolicyScores, colour, label


def episode_panel(policies: Sequence[PolicyScores]) -> Panel:
    """Return by episode index: bars are means, points are single tasks (mean over seeds)."""
    width = 0.82 / len(policies)
    rng = np.random.default_rng(0)  # only moves points sideways

    def plot(axes: Axes) -> None:
        episodes = np.arange(policies[0].returns.shape[2])
        for index, scores in enumerate(policies):
            at = episodes + (index - (len(policies) - 1) / 2) * width
            by_task = scores.returns.mean(axis=0)  # (tasks, K)
            tint = colour(scores.policy)
            axes.bar(at, by_task.mean(axis=0), 0.92 * width, color=tint, label=label(scores.policy))
            scatter = at + 0.55 * width * (rng.random(by_task.shape) - 0.5)
            axes.plot(
                scatter.ravel(), by_task.ravel(), "o", ms=1.8, color="#000000", alpha=0.35, mew=0
            )
        axes.set_xticks(episodes, [f"episode {k + 1}" for k in episodes])
        axes.grid(axis="x", visible=False)
        axes.axhline(0, color="#000000", linewidth=0.8)
        axes.set_ylabel("return")
        panels.legend_above(axes, right=False)

    caption = (
        "Return of each episode of a trial. Bars are means over test tasks and seeds; points are "
        "tasks. An agent that explores well pays in the first episode and is paid back later."
    )
    return panels.draw("returns_per_episode", caption, plot, (6.4, 3.5))


def task_panel(policies: Sequence[PolicyScores]) -> Panel:
    """Summed return task by task, sorted by the oracle's: where the agent falls short."""
    shown = [s for s in policies if s.policy in ("agent", "oracle", "search", "blind")]
    reference = next((s for s in shown if s.policy == "oracle"), shown[0])
    order = np.argsort(reference.sums.mean(axis=0), kind="stable")

    def plot(axes: Axes) -> None:
        at = np.arange(len(order))
        for scores in shown:
            sums = scores.sums[:, order]  # (seeds, tasks)
            tint = colour(scores.policy)
            if scores.varies:
                axes.vlines(at, sums.min(axis=0), sums.max(axis=0), color=tint, alpha=0.5)
            axes.plot(at, sums.mean(axis=0), "o", ms=4, color=tint, label=label(scores.policy))
        axes.set_xlabel(f"test tasks, by the return of the {label(reference.policy)}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("return of a trial")
        panels.legend_above(axes, right=False)

    caption = (
        "Summed return of a trial on every test task; bars span the seeds. A point far under the "
        "oracle's is a task that the agent does not find."
    )
    return panels.draw("returns_per_task", caption, plot, (6.4, 3.5))
