"""What the belief knows: how it tightens, what it predicts, and whether it is calibrated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pipeline.report import panels
from pipeline.report.panels import Panel
from pipeline.report.sources import Float64

Bins = tuple[Float64, Float64, NDArray[np.int64]]
"""Mean prediction, mean truth and count of every bin that is not empty, (bins,) each."""

_BINS = 10


def tightening_panel(beliefs: Sequence[NDArray[np.float32]], horizon: int) -> Panel:
    """Posterior standard deviation along a trial; `beliefs` (tasks, T + 1, 2L) for each seed."""
    deviations = [_deviation(one) for one in beliefs]  # (tasks, T + 1) each

    def plot(axes: Axes) -> None:
        steps = np.arange(deviations[0].shape[1])
        low, high = np.quantile(np.concatenate(deviations), [0.1, 0.9], axis=0)
        axes.fill_between(steps, low, high, color=panels.BLUE, alpha=0.16, linewidth=0)
        for one in deviations if len(deviations) > 1 else ():
            axes.plot(steps, one.mean(axis=0), color=panels.BLUE, alpha=0.3, linewidth=0.8)
        axes.plot(steps, np.mean([d.mean(axis=0) for d in deviations], axis=0), color=panels.BLUE)
        _mark_episodes(axes, horizon, steps[-1])
        _from_zero(axes)
        axes.set_xlabel("step of the trial")
        axes.set_ylabel("posterior standard deviation")
        axes.set_title("The belief tightens")

    caption = (
        "Standard deviation of the belief, mean over latent dimensions and test tasks (band: 10 % "
        "to 90 % of tasks). Dotted lines are resets of the environment; the belief carries on."
    )
    return panels.draw("belief_tightening", caption, plot)


def belief_map_panel(beliefs: NDArray[np.float32], tasks: Float64) -> Panel:
    """Final belief means of (tasks * trials, T + 1, 2L) on their two principal axes."""
    means = beliefs[:, -1, : beliefs.shape[2] // 2].astype(np.float64)
    centred = means - means.mean(axis=0)
    axes_of_variance = np.linalg.svd(centred, full_matrices=False)[2][:2]
    # a singular vector's sign is arbitrary: fix it, so that equal runs give equal drawings
    largest = np.abs(axes_of_variance).argmax(axis=1)[:, None]
    axes_of_variance *= np.sign(np.take_along_axis(axes_of_variance, largest, axis=1))
    places = centred @ axes_of_variance.T
    places = np.pad(places, ((0, 0), (0, 2 - places.shape[1])))
    colours = _task_colours(np.repeat(tasks, len(means) // len(tasks), axis=0))

    def plot(axes: Axes) -> None:
        axes.scatter(places[:, 0], places[:, 1], c=colours, s=34, linewidths=0)
        axes.set_xlabel("first principal axis")
        axes.set_ylabel("second principal axis")
        axes.set_title("Where trials end in belief space")

    caption = (
        "Belief means at the end of each test trial, on their two principal axes. Colour is the "
        "task: neighbouring tasks in neighbouring places mean that the latent has learnt them."
    )
    return panels.draw("belief_map", caption, plot)


def prediction_panels(rewards: Float64, predictions: Float64, horizon: int) -> list[Panel]:
    """Reward prediction against truth, (trials, T) both; predicted before the step is taken."""

    def examples(axes: Axes) -> None:
        varied = np.argsort(-rewards.std(axis=1), kind="stable")[0]
        steps = np.arange(1, rewards.shape[1] + 1)
        axes.step(steps, rewards[varied], where="mid", color=panels.GREY, label="truth")
        axes.step(steps, predictions[varied], where="mid", color=panels.BLUE, label="predicted")
        _mark_episodes(axes, horizon, rewards.shape[1])
        axes.set_xlabel("step of the trial")
        axes.set_ylabel("reward")
        axes.set_title("Reward on a held-out trial")
        panels.legend_above(axes)

    def errors(axes: Axes) -> None:
        error = np.abs(predictions - rewards).mean(axis=0)
        axes.plot(np.arange(1, len(error) + 1), error, color=panels.BLUE)
        _mark_episodes(axes, horizon, len(error))
        _from_zero(axes)
        axes.set_xlabel("step of the trial")
        axes.set_ylabel("mean absolute error")
        axes.set_title("Error of the reward prediction")

    example = (
        "Reward predicted from the belief before each step, and the reward that came, on the "
        "held-out trial whose rewards vary most."
    )
    return [
        panels.draw("reward_example", example, examples),
        panels.draw(
            "reward_error", "Mean over held-out trials. A belief that learns makes it fall.", errors
        ),
    ]


def agreement_panel(rewards: Float64, predictions: Float64) -> Panel:
    """Mean truth in bins of the prediction: on the diagonal, predictions mean what they say."""
    predicted, observed, counts = reliability(predictions, rewards)

    def plot(axes: Axes) -> None:
        _diagonal(axes, np.concatenate([predicted, observed]))
        _draw_reliability(axes, predicted, observed, counts)
        axes.set_xlabel("predicted reward")
        axes.set_ylabel("mean reward that came")
        axes.set_title("Prediction against truth")

    caption = (
        "Held-out steps in bins of the predicted reward; the larger a dot, the more steps. On "
        "the dashed line, a prediction is right on average."
    )
    return panels.draw("reward_agreement", caption, plot)


def calibration_panel(name: str, bins: Bins, truth: str) -> Panel:
    """Reliability of probabilities, with the expected calibration error."""
    predicted, observed, counts = bins
    error = float(np.abs(predicted - observed) @ counts / counts.sum())

    def plot(axes: Axes) -> None:
        _diagonal(axes, np.array([0.0, 1.0]))
        _draw_reliability(axes, predicted, observed, counts)
        axes.set_xlabel("decoded probability")
        axes.set_ylabel(truth)
        axes.set_title(f"{name}: calibration error {error:.3f}")

    caption = (
        "Bins of the decoded probability on held-out trials; the larger a dot, the more often. "
        "The calibration error is the mean distance from the dashed line."
    )
    return panels.draw(f"calibration_{name.lower()}", caption, plot)


def gap_panel(decoded: Float64, exact: Float64, horizon: int) -> Panel:
    """Distance of the decoded from the exact posterior, (trials, T + 1, cells) both."""
    gaps = np.abs(decoded - exact).mean(axis=2)  # (trials, T + 1)

    def plot(axes: Axes) -> None:
        steps = np.arange(gaps.shape[1])
        axes.fill_between(
            steps, *np.quantile(gaps, [0.1, 0.9], axis=0), color=panels.BLUE, alpha=0.16, lw=0
        )
        axes.plot(steps, gaps.mean(axis=0), color=panels.BLUE)
        _mark_episodes(axes, horizon, len(steps) - 1)
        _from_zero(axes)
        axes.set_xlabel("step of the trial")
        axes.set_ylabel("mean |decoded - exact|")
        axes.set_title(f"Distance to the exact posterior: {gaps.mean():.3f}")

    caption = "Mean over cells and held-out trials (band: 10 % to 90 % of trials)."
    return panels.draw("posterior_gap", caption, plot)


def map_panels(decoded: Float64, exact: Float64, horizon: int) -> list[Panel]:
    """Decoded reward map beside the exact posterior, (T + 1, cells) each, along one trial."""
    side = round(decoded.shape[1] ** 0.5)
    last = len(decoded) - 1
    moments = sorted({0, horizon // 3, 2 * horizon // 3, horizon, min(2 * horizon, last), last})
    drawn = []
    for moment in moments:
        episode = max(0, -(-moment // horizon))
        when = f"after step {moment} (episode {episode})" if moment else "before the first step"

        def plot(axes: Sequence[Axes], moment: int = moment) -> None:
            top = float(max(decoded[moment].max(), exact[moment].max()))
            for one, values, name in zip(axes, (decoded, exact), ("decoded", "exact"), strict=True):
                _draw_map(one, values[moment].reshape(side, side), name, top)

        caption = f"{when.capitalize()}."
        drawn.append(panels.draw_row(f"reward_map_{moment}", caption, plot, 2, (3.6, 2.0)))
    return drawn


def reliability(
    predicted: Float64, truth: Float64, ends: tuple[float, float] | None = None
) -> Bins:
    """Mean prediction, mean truth and count in ten equal bins of the prediction; empty ones out.

    `ends` are the bins' outer ends, by default the smallest and the largest prediction.
    """
    flat, target = predicted.ravel().astype(np.float64), truth.ravel().astype(np.float64)
    low, high = ends or (flat.min(), flat.max())
    scaled = (flat - low) / max(high - low, 1e-12)
    bins = np.clip((scaled * _BINS).astype(np.int64), 0, _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    used = counts > 0
    mean_predicted = np.bincount(bins, flat, _BINS)[used] / counts[used]
    mean_truth = np.bincount(bins, target, _BINS)[used] / counts[used]
    return mean_predicted, mean_truth, counts[used]


def _deviation(beliefs: NDArray[np.float32]) -> Float64:
    log_variance = beliefs[..., beliefs.shape[-1] // 2 :].astype(np.float64)
    deviation: Float64 = np.exp(0.5 * log_variance).mean(axis=-1)
    return deviation


def _task_colours(tasks: Float64) -> Float64:
    """A smooth colour for every task (n, task), mid-dark so that it shows on any page."""
    low, high = tasks.min(axis=0), tasks.max(axis=0)
    unit = (tasks - low) / np.where(high > low, high - low, 1.0)
    first, second = unit[:, 0], unit[:, 1 % unit.shape[1]]
    if unit.shape[1] == 1:
        second = 1.0 - first
    return np.stack([0.15 + 0.75 * first, np.full(len(unit), 0.42), 0.15 + 0.75 * second], axis=1)


def _mark_episodes(axes: Axes, horizon: int, last: int) -> None:
    for reset in range(horizon, last, horizon):
        axes.axvline(reset, color="#000000", alpha=0.6, linewidth=0.9, linestyle=":")
    axes.grid(axis="x", visible=False)


def _from_zero(axes: Axes) -> None:
    axes.set_ylim(0, max(1.05 * axes.dataLim.y1, 1e-9))


def _diagonal(axes: Axes, values: Float64) -> None:
    ends = (float(values.min()), float(values.max()))
    axes.plot(ends, ends, "--", color=panels.GREY, linewidth=1.1)


def _draw_reliability(
    axes: Axes, predicted: Float64, observed: Float64, counts: NDArray[np.int64]
) -> None:
    sizes = 14 + 110 * np.sqrt(counts / counts.max())
    axes.plot(predicted, observed, color=panels.BLUE, linewidth=1.2)
    axes.scatter(predicted, observed, s=sizes, color=panels.BLUE, alpha=0.75, linewidths=0)


def telling_trial(exact: Float64) -> int:
    """Of (trials, T + 1, cells), the one that stays uncertain longest and yet finds out."""
    open_cells = (exact > 0).sum(axis=-1)  # (trials, T + 1)
    certain = open_cells[:, -1] == 1
    return int(np.argmax(np.where(certain, 1e6, 0) + open_cells.sum(axis=1)))


def _draw_map(axes: Axes, values: Float64, title: str, top: float) -> None:
    """Cells of a square grid, (side, side) from the bottom row up, opaque where the goal may be."""
    axes.pcolormesh(
        values,
        cmap=panels.FADE,
        vmin=0,
        vmax=top,
        edgecolors="#808080",
        linewidth=0.4,
    )
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_title(title, fontweight="normal", fontsize=9)
