"""The right of a frame: the belief, and the rewards that came beside those it expected.

It is drawn twice, without curves and with those of the whole trial, and never again: a frame shows
the second picture up to now and the first one after it.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from environments.base import Float32
from environments.rendering.base import Frame
from pipeline.report import panels
from pipeline.video.replay import Trial
from pipeline.video.scene import INCHES, pixels

_LATENTS = 6
_LEFT, _WIDTH = 0.13, 0.83


class Panel:
    """Of a trial and, where the belief predicts any, the predicted rewards (K, H)."""

    def __init__(self, trial: Trial, predicted: Float32 | None, size: int) -> None:
        figure = Figure((INCHES, INCHES), dpi=size / INCHES)
        canvas = FigureCanvasAgg(figure)
        belief = figure.add_axes((_LEFT, 0.56, _WIDTH, 0.36))
        reward = figure.add_axes((_LEFT, 0.11, _WIDTH, 0.29))
        _prepare(belief, trial.rewards.shape)
        _prepare(reward, trial.rewards.shape)
        _prepare_belief(belief, trial.beliefs)
        _prepare_reward(reward, trial.rewards, predicted)
        self._before = pixels(canvas)
        _draw_belief(belief, trial.beliefs)
        _draw_reward(reward, trial.rewards, predicted)
        self._after = pixels(canvas)
        ends = reward.transData.transform([(0, 0), (trial.rewards.size, 0)])[:, 0]
        self._start, self._end = float(ends[0]), float(ends[1])
        self._steps = trial.rewards.size

    def picture(self, now: int) -> Frame:
        """After `now` steps of the trial, (size, size, 3)."""
        if now >= self._steps:
            return self._after.copy()
        seen = self._start + (self._end - self._start) * now / self._steps
        picture, column = self._before.copy(), round(seen) - 1
        # the line that leads to the next reward, a pixel wide, is not shown yet
        picture[:, :column] = self._after[:, :column]
        return picture


def _prepare(axes: Axes, shape: tuple[int, ...]) -> None:
    """Small print, and a dotted line where an episode begins."""
    axes.tick_params(labelsize=6.5, length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for reset in range(shape[1], shape[0] * shape[1], shape[1]):
        axes.axvline(reset, color="#000000", alpha=0.5, lw=0.7, ls=":")
    axes.set_xlim(0, shape[0] * shape[1])


def _prepare_belief(axes: Axes, beliefs: Float32) -> None:
    mean, deviation = _latents(beliefs)
    axes.set_ylim(_padded(mean - deviation, mean + deviation))
    count, shown = beliefs.shape[1] // 2, mean.shape[1]
    which = "every latent" if shown == count else f"{shown} of {count} latents"
    axes.set_title(f"belief: mean ± sd, {which}", fontsize=7.5, loc="left")


def _draw_belief(axes: Axes, beliefs: Float32) -> None:
    mean, deviation = _latents(beliefs)
    steps = np.arange(len(beliefs))
    for latent, colour in zip(range(mean.shape[1]), panels.PALETTE, strict=False):
        middle, width = mean[:, latent], deviation[:, latent]
        axes.fill_between(steps, middle - width, middle + width, color=colour, alpha=0.13, lw=0)
        axes.plot(steps, middle, color=colour, lw=1.0)


def _latents(beliefs: Float32) -> tuple[Float32, Float32]:
    """Mean and standard deviation of those that move most: more lines would hide each other."""
    width = beliefs.shape[1] // 2
    mean, deviation = beliefs[:, :width], np.exp(0.5 * beliefs[:, width:])
    telling = np.sort(np.argsort(-np.ptp(mean, axis=0), kind="stable")[:_LATENTS])
    return mean[:, telling], deviation[:, telling]


def _prepare_reward(axes: Axes, rewards: Float32, predicted: Float32 | None) -> None:
    low, high = rewards, rewards
    if predicted is not None:  # a wild first guess must not flatten everything after it
        low = np.append(rewards, np.quantile(predicted, 0.005))
        high = np.append(rewards, np.quantile(predicted, 0.995))
    axes.set_ylim(_padded(low, high))
    axes.set_xlabel("step of the trial", fontsize=7, labelpad=2)
    axes.set_title("reward", fontsize=7.5, loc="left")
    names = [("received", panels.BLUE)]
    if predicted is not None:
        names.append(("predicted before the step", panels.ORANGE))
    for name, colour in names:
        axes.plot([], [], color=colour, lw=1.4, label=name)
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=2,
        fontsize=6.5,
        frameon=False,
        borderaxespad=0.2,
        handlelength=1.2,
        columnspacing=1.0,
    )


def _draw_reward(axes: Axes, rewards: Float32, predicted: Float32 | None) -> None:
    edges = np.arange(rewards.size + 1)
    axes.stairs(rewards.ravel(), edges, baseline=None, color=panels.BLUE, lw=1.1)
    if predicted is not None:
        axes.stairs(predicted.ravel(), edges, baseline=None, color=panels.ORANGE, lw=0.9, alpha=0.9)


def _padded(low: Float32, high: Float32) -> tuple[float, float]:
    bottom, top = float(low.min()), float(high.max())
    room = 0.05 * (top - bottom) or 0.5
    return bottom - room, top + room
