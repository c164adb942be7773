"""Drawing of a Meta-World rollout: from above, and from the front below it, to one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from environments.base import Float32, Float64
from environments.plots import EPISODE_COLOURS, FAINT, GOAL_COLOUR, GOAL_EDGE, WALL_COLOUR

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TABLE_FRONT, TABLE_BACK, HIGHEST = 0.35, 1.0, 0.5
SHIFT = -0.25  # where height zero is drawn, below the view from above
GOAL_RADIUS = 0.07


def draw_rollout(axes: Axes, observations: Float32, target: Float64) -> None:
    """Paths of the hand (solid) and the object (dotted) of (K, H + 1, 39), and the goal."""
    from matplotlib.patches import Circle

    x, y, z = target.tolist()
    for height in (y, z + SHIFT):
        axes.add_patch(Circle((x, height), GOAL_RADIUS, fc=GOAL_COLOUR, ec=GOAL_EDGE, zorder=0))
        axes.plot([x], [height], "+", color=GOAL_EDGE, ms=6, mew=1.2, zorder=1)
    for episode, path in enumerate(observations):
        colour = EPISODE_COLOURS[episode % len(EPISODE_COLOURS)]
        _draw_path(axes, path[:, 4:7], colour, ":", None)
        _draw_path(axes, path[:, :3], colour, "-", f"episode {episode + 1}")
    _frame(axes, len(observations))


def _draw_path(axes: Axes, places: Float32, colour: str, style: str, label: str | None) -> None:
    """One path (H + 1, 3) in both views: a ring at its start, a square at its end."""
    x = places[:, 0]
    for height, name in ((places[:, 1], label), (places[:, 2] + SHIFT, None)):
        axes.plot(x, height, style, color=colour, lw=1.4, alpha=0.9, label=name)
        axes.plot(x[-1:], height[-1:], "s", color=colour, ms=5, mec="white", mew=0.8, zorder=4)
        axes.plot(x[:1], height[:1], "o", mfc="white", mec=WALL_COLOUR, ms=5, mew=1.2, zorder=5)


def _frame(axes: Axes, episodes: int) -> None:
    """The floor between the views, what the two vertical scales mean, and the legend."""
    axes.axhline(SHIFT, color=FAINT, lw=1.2, zorder=0)
    axes.set_aspect("equal", adjustable="datalim")
    views = (("seen from above (y)", 1.0), ("seen from the front (z)", 0.38))
    for text, place in views:
        axes.text(0.01, place, text, transform=axes.transAxes, fontsize=7, color=WALL_COLOUR)
    above, front = np.arange(0.4, TABLE_BACK + 0.05, 0.2), np.arange(0.0, HIGHEST, 0.2)
    labels = [f"{value:.1f}" for value in (*front, *above)]
    axes.set_yticks([*(front + SHIFT), *above], labels)
    axes.set_ylim(SHIFT - 0.08, TABLE_BACK + 0.05)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, labelsize=7, labelcolor="#777777")
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.07),
        ncols=min(episodes, 4),
        fontsize=7,
        frameon=False,
    )
