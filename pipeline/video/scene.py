"""The left of a frame: the task as its family draws it, or as MuJoCo does."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from environments.base import TaskFamily
from environments.rendering.base import Frame, FrameSource
from pipeline.video.replay import Trial

INCHES = 3.6  # side of the scene; text and lines grow with its pixels


class Scene(Protocol):
    """Draws a trial's scene at a moment."""

    def picture(self, episode: int, step: int) -> Frame:
        """After `step` steps of an episode, (size, size, 3)."""


class RenderedScene:
    """From simulator states (K, H + 1, state), by the family's own frame source."""

    def __init__(self, source: FrameSource, states: NDArray[np.float64]) -> None:
        self._source, self._states = source, states

    def picture(self, episode: int, step: int) -> Frame:
        """After `step` steps of an episode, (size, size, 3)."""
        return self._source.frame(self._states[episode, step])


class PlottedScene:
    """By `TaskFamily.plot_rollout`, with the paths of the episodes so far."""

    def __init__(self, family: TaskFamily, trial: Trial, size: int) -> None:
        self._family, self._trial = family, trial
        self._figure = Figure((INCHES, INCHES), dpi=size / INCHES)
        self._canvas = FigureCanvasAgg(self._figure)
        self._axes = self._figure.add_axes((0.1, 0.07, 0.86, 0.9))
        # The limits of the whole trial, so that the scene does not move under the agent.
        family.plot_rollout(self._axes, trial.observations, trial.task)
        self._drawn()
        self._limits = self._axes.get_xlim(), self._axes.get_ylim()

    def picture(self, episode: int, step: int) -> Frame:
        """After `step` steps of an episode, (size, size, 3)."""
        past = self._trial.observations.copy()
        past[episode, step + 1 :] = past[episode, step]  # stands still from now on
        past[episode + 1 :] = np.nan  # not drawn, but given the room that it will have
        self._axes.clear()
        self._family.plot_rollout(self._axes, past, self._trial.task)
        legend = self._axes.get_legend()
        if legend is not None:
            legend.remove()  # the caption says which episode it is
        self._axes.set_xlim(self._limits[0])
        self._axes.set_ylim(self._limits[1])
        return self._drawn()

    def _drawn(self) -> Frame:
        return pixels(self._canvas)


def pixels(canvas: FigureCanvasAgg) -> Frame:
    """Draw a figure, (height, width, 3)."""
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
