"""One picture of a trial: left the scene, right the belief and the rewards, a caption above."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from environments.base import Float32, TaskFamily
from environments.rendering.base import Frame, FrameSource
from pipeline.report import panels
from pipeline.video.replay import Trial, replay_states

_DPI = 100
_LATENTS = 6
_CAPTION = 0.16  # of the height


class Composer:
    """Draws the trial at (episode, step); `source` draws the scene, `plot_rollout` where None."""

    def __init__(
        self, family: TaskFamily, trial: Trial, size: int, source: FrameSource | None = None
    ) -> None:
        self._family, self._trial, self._source = family, trial, source
        self._states = None if source is None else replay_states(family, trial)
        height = round(size / (1 - _CAPTION)) // 2 * 2  # even, as H.264 asks
        self._figure = Figure((2 * size // 2 * 2 / _DPI, height / _DPI), dpi=_DPI)
        self._canvas = FigureCanvasAgg(self._figure)
        self._caption = self._figure.text(0.02, 0.98, "", va="top", fontsize=9, linespacing=1.4)
        self._scene = self._figure.add_axes((0.05, 0.07, 0.44, 0.77))
        self._limits = self._scene_limits()
        self._draw_panel()

    def frame(self, episode: int, step: int) -> Frame:
        """The picture after `step` steps of an episode, (height, width, 3)."""
        self._draw_scene(episode, step)
        self._draw_now(episode, step)
        self._caption.set_text(self._text(episode, step))
        self._canvas.draw()  # type: ignore[no-untyped-call]
        pixels = self._canvas.buffer_rgba()  # type: ignore[no-untyped-call]
        return np.asarray(pixels)[..., :3].copy()

    def _text(self, episode: int, step: int) -> str:
        trial, spec = self._trial, self._family.spec
        names = zip(spec.task_names, trial.task, strict=True)
        task = ", ".join(f"{name} {value:.3g}" for name, value in names)
        total = float(trial.rewards[episode, :step].sum())
        reached = " · goal reached" if trial.successes[episode, :step].any() else ""
        count, horizon = trial.rewards.shape
        return (
            f"{spec.name}: {task[:80]}\nepisode {episode + 1} of {count} · "
            f"step {step} of {horizon} · return {total:.1f}{reached}"
        )

    def _scene_limits(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Those of the whole trial, so that the scene does not move under the agent."""
        if self._source is not None:
            return (0, 1), (0, 1)
        self._family.plot_rollout(self._scene, self._trial.observations, self._trial.task)
        self._canvas.draw()  # type: ignore[no-untyped-call]
        return self._scene.get_xlim(), self._scene.get_ylim()

    def _draw_scene(self, episode: int, step: int) -> None:
        self._scene.clear()
        if self._source is not None and self._states is not None:
            self._scene.imshow(self._source.frame(self._states[episode, step]))
            self._scene.set_axis_off()
            return
        past = self._trial.observations[: episode + 1].copy()
        past[episode, step + 1 :] = past[episode, step]  # stands still from now on
        self._family.plot_rollout(self._scene, past, self._trial.task)
        legend = self._scene.get_legend()
        if legend is not None:
            legend.remove()  # the caption says which episode it is
        self._scene.set_xlim(self._limits[0])
        self._scene.set_ylim(self._limits[1])

    def _draw_panel(self) -> None:
        """Axes whose scales are those of the whole trial, and lines that grow up to now."""
        beliefs, rewards = self._trial.beliefs, self._trial.rewards
        width = beliefs.shape[1] // 2
        self._mean = beliefs[:, :width]
        self._deviation = np.exp(0.5 * beliefs[:, width:])
        # more lines than these hide each other
        self._telling = np.sort(np.argsort(-np.ptp(self._mean, axis=0), kind="stable")[:_LATENTS])
        shown = self._mean[:, self._telling], self._deviation[:, self._telling]
        self._belief = self._figure.add_axes((0.57, 0.5, 0.41, 0.31))
        self._reward = self._figure.add_axes((0.57, 0.11, 0.41, 0.24))
        self._belief_limits = _padded(shown[0] - shown[1], shown[0] + shown[1])
        low, high = _padded(rewards, rewards)
        self._reward.set(xlim=(0, rewards.size), ylim=(low, high))
        self._reward_line = self._reward.step([], [], color=panels.BLUE, lw=1.0)[0]
        self._reward.set_title("reward", fontsize=8, loc="left")
        self._reward.set_xlabel("step of the trial", fontsize=7)
        _quiet(self._reward, rewards.shape)

    def _belief_title(self) -> str:
        count, shown = self._mean.shape[1], len(self._telling)
        which = "each latent" if shown == count else f"{shown} of {count} latents"
        return f"belief: mean ± sd, {which}"

    def _draw_now(self, episode: int, step: int) -> None:
        count, horizon = self._trial.rewards.shape
        now = episode * horizon + step
        steps = np.arange(now + 1)
        axes = self._belief
        axes.clear()
        for latent in self._telling:
            mean, deviation = self._mean[: now + 1, latent], self._deviation[: now + 1, latent]
            line = axes.plot(steps, mean, lw=1.0)[0]
            colour = line.get_color()
            axes.fill_between(
                steps, mean - deviation, mean + deviation, color=colour, alpha=0.12, lw=0
            )
        axes.set(xlim=(0, count * horizon), ylim=self._belief_limits)
        axes.set_title(self._belief_title(), fontsize=8, loc="left")
        _quiet(axes, (count, horizon))
        self._reward_line.set_data(steps[1:], self._trial.rewards.reshape(-1)[:now])


def _padded(low: Float32, high: Float32) -> tuple[float, float]:
    bottom, top = float(low.min()), float(high.max())
    room = 0.05 * (top - bottom) or 0.5
    return bottom - room, top + room


def _quiet(axes: Axes, shape: tuple[int, ...]) -> None:
    """Small print, and a dotted line where an episode begins."""
    axes.tick_params(labelsize=7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for reset in range(shape[1], shape[0] * shape[1], shape[1]):
        axes.axvline(reset, color="#000000", alpha=0.5, lw=0.7, ls=":")
