"""Figures that fit any page: one axes a panel, drawn on Agg or as SVG that follows the page.

A panel is drawn in black on white. Written as SVG for the page, its black becomes the page's ink,
its white the page's surface, and its text real text in the page's font, so that one drawing reads
well on a light and on a dark screen. Nothing here touches matplotlib's global state for longer
than a call (`rc_context`), and pyplot is never imported.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN = "#3478c6", "#d9730d", "#2c9a68"
PURPLE, RED, GREY = "#9566cc", "#d44a4a", "#868b93"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, RED, "#b58a00", "#1f9aa8", "#c2589f")
"""Told apart by the colour-blind, and at least 3 : 1 against white and against near-black."""

FADE = LinearSegmentedColormap.from_list("fade", [(*to_rgb(BLUE), 0.0), (*to_rgb(BLUE), 1.0)])
"""From the page's own surface to blue."""

_STYLE: Any = {  # which keys matplotlib types depends on its version
    "svg.fonttype": "none",  # text stays text: the page's font, selectable, a third of the size
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#808080",
    "grid.alpha": 0.22,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "figure.facecolor": "#ffffff",
    "axes.facecolor": "none",
    "path.simplify": True,
}

_LEGEND_ROW = 5  # entries of a legend above that fit beside each other
_TICKS, _LABEL = 0.46, 0.19  # inches that tick labels and an axis's label take


@dataclass(frozen=True)
class Panel:
    """One drawn figure with a name fit for a file.

    `caption` stands under it and may be empty; `label` says in short what it shows.
    """

    name: str
    label: str
    caption: str
    figure: Figure

    def svg(self) -> str:
        """An `<svg>` element to stand inside a page, without external references."""
        stream = io.StringIO()
        with matplotlib.rc_context({**_STYLE, "svg.hashsalt": self.name}):
            self.figure.set_facecolor("none")
            self.figure.savefig(stream, format="svg", metadata={"Date": None})
        return _for_page(stream.getvalue(), self.label)

    def png(self, dpi: int = 130) -> bytes:
        """The same drawing on white, as PNG."""
        stream = io.BytesIO()
        with matplotlib.rc_context(_STYLE):
            self.figure.set_facecolor("#ffffff")
            self.figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
        return stream.getvalue()


def draw(
    name: str,
    caption: str,
    plot: Callable[[Axes], None],
    size: tuple[float, float] = (4.6, 3.1),
    fit: bool = False,
) -> Panel:
    """A panel of one axes, `size` in inches, filled by `plot`.

    `fit` measures every text to find the margins, which takes most of the time of a drawing; it
    is for long labels only.
    """
    return draw_row(name, caption, lambda axes: plot(axes[0]), 1, size, fit)


def draw_row(
    name: str,
    caption: str,
    plot: Callable[[Sequence[Axes]], None],
    columns: int,
    size: tuple[float, float],
    fit: bool = False,
) -> Panel:
    """A panel of `columns` axes side by side; its label is its name in words."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained" if fit else None)
        axes = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
        plot(axes)
        if not fit:
            set_margins(figure)
    return Panel(name, name.replace("_", " "), caption, figure)


def set_margins(figure: Figure) -> None:
    """Margins in inches that leave room for what the axes have: tick labels, labels, a title."""
    axes = figure.axes
    width, height = figure.get_size_inches()
    left = _TICKS + _LABEL * any(one.get_ylabel() for one in axes)
    bottom = 0.24 + _LABEL * any(one.get_xlabel() for one in axes)
    top = 0.33 if any(one.get_title(loc="left") for one in axes) else 0.1
    if any(one.get_legend() and not one.get_title(loc="left") for one in axes):
        # a legend in the title's place, of one row or two
        most = max(len(one.get_legend_handles_labels()[1]) for one in axes)
        top = 0.3 if most <= _LEGEND_ROW else 0.5
    if not any(one.axison for one in axes):
        left = bottom = 0.06
    figure.subplots_adjust(left / width, bottom / height, 1 - 0.1 / width, 1 - top / height, 0.1)


def legend_above(axes: Axes, right: bool = True) -> None:
    """A legend over the axes where it hides no curve: beside the title, or in its stead."""
    entries = len(axes.get_legend_handles_labels()[1])
    if not entries:
        return
    if right and entries > 4:
        axes.legend(loc="best", ncols=2)
    elif right:
        axes.legend(
            ncols=entries,
            loc="lower right",
            bbox_to_anchor=(1, 1),
            borderaxespad=0.1,
            handlelength=1.3,
            handletextpad=0.4,
            columnspacing=1.0,
        )
    else:
        # More than fit into a row make two, of so many columns that both are about full.
        columns = entries if entries <= _LEGEND_ROW else -(-entries // 2)
        axes.legend(ncols=columns, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


def _for_page(svg: str, label: str) -> str:
    """Strip what only a file needs; let colours and fonts follow the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # numbered alike in every figure, and never used
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("#000000", "currentColor").replace("#ffffff", "var(--surface)")
    svg = svg.replace("#4a4a4a", "currentColor")  # the walls of arenas, lost on a dark page
    svg = svg.replace("'DejaVu Sans'", "var(--sans)")
    box = re.search(r'viewBox="[^"]*"', svg)
    label = html.escape(label, quote=True)
    opening = f'<svg {box.group() if box else ""} role="img" aria-label="{label}">'
    return opening + svg[svg.index(">") + 1 :].strip()
