"""Rollouts on several test tasks, drawn by the task family itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from datasets.errors import DataError
from environments.base import TaskFamily
from pipeline.report import panels
from pipeline.report.panels import Panel
from pipeline.report.sources import Arrays, Float64

MOST_TASKS = 8
_WIDTH = 3.1  # inches


def spread_tasks(scores: Float64, count: int = MOST_TASKS) -> list[int]:
    """Indices of `count` tasks from the worst to the best by `scores` (tasks,), evenly spaced."""
    order = np.argsort(scores, kind="stable")
    places = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
    return [int(order[place]) for place in places]


def rollout_panels(
    family: TaskFamily, tasks: Float64, rollouts: Arrays, chosen: Sequence[int]
) -> list[Panel]:
    """One square panel for each chosen task, of its first trial.

    `rollouts` holds observations (tasks * trials, K, H + 1, obs) and rewards. Raises DataError
    where that is not a whole number of trials a task.
    """
    if "observations" not in rollouts:
        return []
    trials, rest = divmod(len(rollouts["observations"]), len(tasks))
    if rest or not trials:
        count = len(rollouts["observations"])
        raise DataError(f"rollouts hold {count} trials, which {len(tasks)} tasks cannot share")
    observations, rewards = (rollouts[name][::trials] for name in ("observations", "rewards"))
    drawn = []
    for index in chosen:
        returns = rewards[index].sum(axis=-1)  # (K,)

        def plot(axes: Axes, index: int = index, returns: Float64 = returns) -> None:
            family.plot_rollout(axes, observations[index], tasks[index])
            axes.set_title(f"task {index}: return {returns.sum():.1f}")
            axes.grid(visible=False)
            legend = axes.get_legend()
            if legend is not None:  # one legend for all panels stands above them
                legend.remove()

        each = ", ".join(f"{value:.1f}" for value in returns)
        panel = panels.draw(f"rollout_{index}", f"By episode: {each}.", plot, (_WIDTH, _WIDTH))
        ratio = float(panel.figure.axes[0].get_data_ratio())
        panel.figure.set_size_inches(_WIDTH, 0.45 + _WIDTH * min(max(ratio, 0.4), 1.1) * 0.9)
        panels.set_margins(panel.figure)
        drawn.append(panel)
    return drawn


def episode_legend(panel: Panel) -> tuple[tuple[str, str], ...]:
    """(label, colour) of every episode's path, as the family drew them."""
    lines = panel.figure.axes[0].get_lines()
    named = [line for line in lines if str(line.get_label()).startswith("episode")]
    return tuple((str(line.get_label()), to_hex(line.get_color())) for line in named)
