"""Drawing of rollouts: an arena in quiet greys, the goal in green, one colour per episode.

The colours are those of Okabe and Ito, which colour-blind readers tell apart too. matplotlib is
imported inside the functions, since a simulator must not wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from environments.base import Float32, Float64

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EPISODE_COLOURS = ("#E69F00", "#0072B2", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
GOAL_COLOUR, GOAL_EDGE = "#CDEBD3", "#2E8B57"
WALL_COLOUR, FAINT = "#4A4A4A", "#C8C8C8"


def draw_paths(axes: Axes, observations: Float32) -> None:
    """Draw the path of every episode of (K, H + 1, 2): a ring at its start, a square at its end."""
    for episode, path in enumerate(observations):
        colour = EPISODE_COLOURS[episode % len(EPISODE_COLOURS)]
        x, y = path[:, 0], path[:, 1]
        label = f"episode {episode + 1}"
        axes.plot(x, y, "-o", color=colour, lw=1.4, ms=2.4, mew=0, alpha=0.9, label=label)
        axes.plot(x[-1:], y[-1:], "s", color=colour, ms=6, mec="white", mew=0.8, zorder=4)
        axes.plot(x[:1], y[:1], "o", mfc="white", mec=WALL_COLOUR, ms=6, mew=1.2, zorder=5)
    _finish(axes, len(observations))


def draw_disc(axes: Axes, centre: Float64, radius: float) -> None:
    """Draw the goal, a disc."""
    from matplotlib.patches import Circle

    middle = (float(centre[0]), float(centre[1]))
    axes.add_patch(Circle(middle, radius, fc=GOAL_COLOUR, ec=GOAL_EDGE, lw=1.2, zorder=0))
    axes.plot(*middle, "+", color=GOAL_EDGE, ms=6, mew=1.2, zorder=1)


def draw_half_circle(axes: Axes) -> None:
    """Draw the upper half of the unit circle, on which goals lie."""
    angles = np.linspace(0, np.pi, 200)
    axes.plot(np.cos(angles), np.sin(angles), "--", color=FAINT, lw=1.2, zorder=0)


def draw_square(axes: Axes, half: float) -> None:
    """Draw the square [-half, half]^2, in which goals lie."""
    from matplotlib.patches import Rectangle

    square = Rectangle((-half, -half), 2 * half, 2 * half, fill=False, ec=FAINT, ls="--", lw=1.2)
    axes.add_patch(square)


def draw_wall(axes: Axes, door: float, half_width: float) -> None:
    """Draw the unit circle as a wall with a door that opens at an angle."""
    wall = np.linspace(door + half_width, door + 2 * np.pi - half_width, 400)
    axes.plot(np.cos(wall), np.sin(wall), color=WALL_COLOUR, lw=2.5, zorder=0)
    opening = np.linspace(door - half_width, door + half_width, 40)
    axes.plot(np.cos(opening), np.sin(opening), color=GOAL_COLOUR, lw=6, zorder=0)
    axes.plot(np.cos(opening), np.sin(opening), ":", color=GOAL_EDGE, lw=1.5, zorder=1)


def draw_wind(axes: Axes, wind: Float64, strongest: float) -> None:
    """Draw the wind as an arrow in the upper left corner, to its own scale, with its numbers."""
    axes.update_datalim([(-0.8, -0.2), (0.8, 1.35)])  # room for the arrow, left of the paths
    size = 0.08 * np.asarray(wind) / strongest
    middle = np.array([0.14, 0.86])
    axes.annotate(
        "",
        xy=tuple((middle + size).tolist()),
        xytext=tuple((middle - size).tolist()),
        xycoords="axes fraction",
        textcoords="axes fraction",
        arrowprops={"arrowstyle": "-|>", "color": WALL_COLOUR, "lw": 1.6},
    )
    text = f"wind\n({wind[0]:+.3f}, {wind[1]:+.3f})"
    axes.text(0.02, 0.7, text, transform=axes.transAxes, fontsize=7, color=WALL_COLOUR)


def draw_direction(axes: Axes, direction: Float64, length: float) -> None:
    """Draw a direction (2,) as an arrow of this length from the origin."""
    tip = (max(length, 0.1) * np.asarray(direction)).tolist()
    axes.update_datalim([(0.0, 0.0), (tip[0], tip[1])])
    arrow = {"arrowstyle": "-|>", "color": GOAL_EDGE, "lw": 1.6}
    axes.annotate("", xy=(tip[0], tip[1]), xytext=(0.0, 0.0), arrowprops=arrow)


def draw_series(
    axes: Axes, seconds: Float64, values: Float64, target: float, labels: tuple[str, str]
) -> None:
    """Draw values (K, steps) over time, one line an episode, and the level aimed at."""
    axes.axhline(target, color=GOAL_EDGE, ls="--", lw=1.4, zorder=1)
    for episode, line in enumerate(values):
        colour = EPISODE_COLOURS[episode % len(EPISODE_COLOURS)]
        label = f"episode {episode + 1}"
        axes.plot(seconds, line, "-", color=colour, lw=1.2, alpha=0.9, label=label)
    axes.set_xlabel(labels[0], fontsize=7)
    axes.set_ylabel(labels[1], fontsize=7)
    _finish(axes, len(values), equal=False)


def draw_grid_rollout(axes: Axes, observations: Float32, task: Float64, side: int) -> None:
    """Draw a side x side grid, the goal cell and the path of every episode of (K, H + 1, 2)."""
    from matplotlib.patches import Rectangle

    corner = (float(task[0]) - 0.5, float(task[1]) - 0.5)
    goal = Rectangle(corner, 1, 1, fc=GOAL_COLOUR, ec=GOAL_EDGE, lw=1.5, zorder=1)
    axes.add_patch(goal)
    for line in np.arange(side + 1) - 0.5:
        axes.plot([line, line], [-0.5, side - 0.5], color=FAINT, lw=0.8, zorder=0)
        axes.plot([-0.5, side - 0.5], [line, line], color=FAINT, lw=0.8, zorder=0)
    # Episodes are shifted apart inside their cells, since they walk on the same lines.
    count = len(observations)
    shift = np.linspace(-0.21, 0.21, count) if count > 1 else np.zeros(1)
    draw_paths(axes, observations + shift[:, None, None].astype(np.float32))
    axes.set_xticks(range(side))
    axes.set_yticks(range(side))
    axes.set_xlim(-0.6, side - 0.4)
    axes.set_ylim(-0.6, side - 0.4)


def _finish(axes: Axes, episodes: int, equal: bool = True) -> None:
    """Equal scales if asked for, little ink, and the legend below, where it hides no path."""
    if equal:
        axes.set_aspect("equal", adjustable="datalim" if _shared(axes) else "box")
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, labelsize=7, labelcolor="#777777")
    axes.margins(0.06)
    axes.locator_params(nbins=5)
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.07 if equal else -0.16),
        ncols=min(episodes, 4),
        fontsize=7,
        frameon=False,
        handlelength=1.2,
        columnspacing=1.2,
    )


def _shared(axes: Axes) -> bool:
    """Whether these axes share a scale with others, where a box of its own is not possible."""
    shared_x = len(list(axes.get_shared_x_axes().get_siblings(axes))) > 1
    return shared_x or len(list(axes.get_shared_y_axes().get_siblings(axes))) > 1
