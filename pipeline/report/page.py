"""The page: sections of panels and tables through one template, nothing loaded from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.report.lineage import Card
from pipeline.report.panels import Panel
from pipeline.report.tables import Table


@dataclass(frozen=True)
class Tile:
    """One number large, with what it is and what it is measured against."""

    value: str
    label: str
    detail: str = ""


@dataclass(frozen=True)
class Section:
    """A heading, a few words, tables, and panels in a grid (`layout` of the cells)."""

    anchor: str
    title: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    panels: tuple[Panel, ...] = ()
    layout: str = "medium"  # "wide", "medium" or "small" cells
    legend: tuple[tuple[str, str], ...] = ()  # (label, colour) shared by all panels


@dataclass(frozen=True)
class Page:
    """All that stands on the page; `command` makes it again."""

    title: str
    subtitle: str
    lede: str
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]
    lineage: tuple[Card, ...]
    command: str


def render(page: Page) -> str:
    """The whole HTML document."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(page=page)
