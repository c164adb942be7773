"""Drawing of rollouts: one colour per episode, from light (first) to dark (last)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from environments.base import Float32, Float64

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_paths(axes: Axes, observations: Float32) -> None:
    """Draw the path of every episode of (K, H + 1, 2), with its start and its end."""
    for episode, path in enumerate(observations):
        axes.plot(path[:, 0], path[:, 1], label=f"episode {episode + 1}")


def draw_disc(axes: Axes, centre: Float64, radius: float) -> None:
    """Draw the goal, a disc."""
    from matplotlib.patches import Circle

    axes.add_patch(Circle((float(centre[0]), float(centre[1])), radius, alpha=0.3))


def draw_half_circle(axes: Axes) -> None:
    """Draw the upper half of the unit circle."""
    angles = np.linspace(0, np.pi, 200)
    axes.plot(np.cos(angles), np.sin(angles), color="0.7", linestyle="--")


def draw_grid_rollout(axes: Axes, observations: Float32, task: Float64, side: int) -> None:
    """Draw a side x side grid, the goal cell and the path of every episode of (K, H + 1, 2)."""
    draw_paths(axes, observations)
