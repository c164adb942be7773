"""Curves of every training stage: one panel a quantity, all seeds in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.report import panels
from pipeline.report.panels import Panel
from pipeline.report.sources import Curves, Float64

_SHARE = re.compile(r"^(train|validation)_(.+)$|^(.+)_(train|validation)$")
_SPREAD = re.compile(r"^(.+)_(mean|median|p10|p90|min|max)$")
_EPISODE = re.compile(r"^(?:return_)?episode_(\d+)$")
_TITLES = {
    "rec_reward": "reward reconstruction",
    "rec_state": "state reconstruction",
    "return per episode": "by episode",
    "kl": "KL",
    "q": "Q",
}
_MOST_POINTS = 400
_DASHES = ("--", ":", "-.")
_BANDS = (("p10", "p90"), ("min", "max"))
_NO_LINE = ("p10", "p90", "median", "min", "max")

CAPTIONS: dict[str, str] = {
    "evaluation_return": "Return of a trial on the test tasks; the band spans the tasks.",
    "evaluation_return_per_episode": "By episode of the trial, mean over the test tasks.",
    "collection_return": "Return of a trial on an agent's own task; band: 10 % to 90 % of tasks.",
    "vae_loss": "Negative ELBO of a trial: a sum over posteriors and decoded steps.",
    "vae_kl": "KL from each posterior to the one before it, summed along the trial.",
    "vae_rec_reward": "Reward reconstruction, summed over posteriors and decoded steps.",
    "vae_rec_state": "State reconstruction, summed over posteriors and decoded steps.",
}
"""What needs saying about a quantity, by panel; the others' titles say it."""


@dataclass(frozen=True)
class Reference:
    """A horizontal line to measure a curve against."""

    label: str
    value: float
    colour: str


def curve_panels(
    stem: str,
    curves: Sequence[Curves],
    axis: str,
    references: Mapping[str, Sequence[Reference]] | None = None,
) -> list[Panel]:
    """One panel for each quantity in the logs of all seeds; losses that are off are left out.

    `stem` starts the panels' names, `axis` labels the steps; `references` are lines by quantity.
    """
    groups: dict[str, dict[str, str]] = {}
    for name in dict.fromkeys(name for one in curves for name in one.columns):
        group, variant = split_name(name)
        values = np.concatenate(_columns(curves, [name]))
        off = variant in ("train", "validation") and not np.nan_to_num(values).any()
        if np.isfinite(values).any() and not off:
            groups.setdefault(group, {})[variant] = name
    return [
        _panel(stem, group, variants, curves, axis, (references or {}).get(group, ()))
        for group, variants in groups.items()
    ]


def split_name(name: str) -> tuple[str, str]:
    """A column's quantity and variant: `validation_kl` is ("kl", "validation")."""
    if match := _EPISODE.match(name):
        return "return per episode", f"ep. {match.group(1)}"
    if match := _SHARE.match(name):
        share = match.group(1) or match.group(4)
        return match.group(2) or match.group(3), share
    if match := _SPREAD.match(name):
        return match.group(1), match.group(2)
    return name, ""


def _panel(
    stem: str,
    group: str,
    variants: Mapping[str, str],
    curves: Sequence[Curves],
    axis: str,
    references: Sequence[Reference],
) -> Panel:
    """One quantity; `variants` maps its variants (train, p10, ...) to columns."""
    lines = [v for v in variants if v not in _NO_LINE] or list(variants)
    title = _TITLES.get(group, group.replace("_", " "))

    def plot(axes: Axes) -> None:
        for bottom, top in _BANDS:
            if {bottom, top} <= set(variants):
                step, low = _over_seeds(curves, variants[bottom])
                _, high = _over_seeds(curves, variants[top])
                edges = (low.mean(axis=0), high.mean(axis=0))
                axes.fill_between(step, *edges, color=panels.BLUE, alpha=0.16, linewidth=0)
        for index, variant in enumerate(lines):
            tint = panels.PALETTE[index % len(panels.PALETTE)]
            _draw_line(axes, curves, variants[variant], variant, tint)
        for place, reference in enumerate(references):
            axes.axhline(
                reference.value,
                color=reference.colour,
                linestyle=_DASHES[place % 3],
                linewidth=1.3,
                label=reference.label,
            )
        _scale(axes, _columns(curves, [variants[variant] for variant in lines]))
        axes.set_title(title)
        axes.set_xlabel(axis)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panels.legend_above(axes)

    name = f"{stem}_{re.sub(r'[^a-z0-9]+', '_', group.lower())}"
    return panels.draw(name, CAPTIONS.get(name, ""), plot, (4.4, 2.9))


def _draw_line(axes: Axes, curves: Sequence[Curves], name: str, variant: str, tint: str) -> None:
    step, values = _over_seeds(curves, name)
    if len(values) > 1:
        axes.plot(step, values.T, color=tint, alpha=0.3, linewidth=0.8)
    style = "o" if len(step) == 1 else "-"
    shown = variant if variant not in ("", "mean") else None
    axes.plot(step, values.mean(axis=0), style, color=tint, label=shown)


def _over_seeds(curves: Sequence[Curves], name: str) -> tuple[Float64, Float64]:
    """Steps (points,) and values (seeds, points) on the points that every seed measured."""
    measured = []
    for one in curves:
        finite = np.isfinite(one.columns.get(name, np.array([])))
        if finite.any():
            measured.append((one.step[finite], one.columns[name][finite]))
    step = measured[0][0]
    for other, _ in measured[1:]:
        step = np.intersect1d(step, other)
    if len(step) > _MOST_POINTS:
        step = step[np.unique(np.linspace(0, len(step) - 1, _MOST_POINTS).astype(int))]
    rows = [values[np.isin(steps, step)] for steps, values in measured]
    return step, np.stack(rows)


def _columns(curves: Sequence[Curves], names: Sequence[str]) -> list[Float64]:
    return [one.columns[name] for one in curves for name in names if name in one.columns]


def _scale(axes: Axes, values: Sequence[Float64]) -> None:
    """A logarithmic axis where positive values span more than a factor of fifty."""
    finite = np.concatenate([column[np.isfinite(column)] for column in values])
    if finite.size and finite.min() > 0 and finite.max() > 50 * finite.min():
        axes.set_yscale("log")
