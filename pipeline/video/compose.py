"""One picture of a trial: left the scene, right the belief and the rewards, a caption above."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from environments.base import Float32
from environments.rendering.base import Frame
from pipeline.video.panel import Panel
from pipeline.video.replay import Trial
from pipeline.video.scene import INCHES, Scene, pixels

_CAPTION = 0.15  # its height, by the scene's


class Composer:
    """Draws the trial at (episode, step), under a title; every side is even, as H.264 asks."""

    def __init__(
        self, title: str, trial: Trial, predicted: Float32 | None, scene: Scene, size: int
    ) -> None:
        self._title, self._trial, self._scene = title, trial, scene
        self._panel = Panel(trial, predicted, size)
        height = round(size * (1 + _CAPTION) / 2) * 2 - size
        self._figure = Figure((2 * INCHES, height / size * INCHES), dpi=size / INCHES)
        self._canvas = FigureCanvasAgg(self._figure)
        self._caption = self._figure.text(0.015, 0.86, "", va="top", fontsize=8.5, linespacing=1.35)

    def frame(self, episode: int, step: int) -> Frame:
        """The picture after `step` steps of an episode, (height, width, 3)."""
        self._caption.set_text(f"{self._title}\n{self._text(episode, step)}")
        now = episode * self._trial.rewards.shape[1] + step
        pictures = [self._scene.picture(episode, step), self._panel.picture(now)]
        return np.vstack([pixels(self._canvas), np.hstack(pictures)])

    def _text(self, episode: int, step: int) -> str:
        trial = self._trial
        total = float(trial.rewards[episode, :step].sum())
        reached = " · goal reached" if trial.successes[episode, :step].any() else ""
        count, horizon = trial.rewards.shape
        return (
            f"episode {episode + 1} of {count} · step {step} of {horizon} · "
            f"return {total:.1f}{reached}"
        )
