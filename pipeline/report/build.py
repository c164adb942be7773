"""From the artefacts of a run to its report: index.html, tables as CSV, headline figures as PNG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from environments.base import TaskFamily
from environments.registry import load_family
from pipeline.presets import preset_stem
from pipeline.report import policies as scores
from pipeline.report import sections
from pipeline.report.comparison import Contender, comparable
from pipeline.report.lineage import cards
from pipeline.report.page import Page, render
from pipeline.report.sources import Scores, SeedFolders, SeedOutputs

VERSION = 3
"""Raised when the same inputs give another page, so that cached reports are drawn anew."""

PICTURES = ("returns_per_episode", "belief_tightening", "evaluation_return", "comparison")
"""Panels that are also written as PNG: for Prefect's artifacts, a README or a slide."""


@dataclass(frozen=True)
class OtherRun:
    """A run to compare with: its scores folders, one a seed."""

    label: str
    difference: str
    scores: tuple[Path, ...]


@dataclass(frozen=True)
class ReportRequest:
    """One run, all its seeds, and what to compare it with. `family` is a name or module:Class."""

    name: str
    preset: str
    family: str
    difference: str  # what was set beside the preset
    command: str  # makes the runs again
    seeds: tuple[SeedFolders, ...]
    others: tuple[OtherRun, ...] = ()


@dataclass(frozen=True)
class _Content:
    """Everything a request refers to, read."""

    request: ReportRequest
    family: TaskFamily
    seeds: tuple[SeedOutputs, ...]
    policies: tuple[scores.PolicyScores, ...]
    own: Contender
    others: tuple[Contender, ...]


def write_report(request: ReportRequest, output: Path) -> None:
    """Draw the report into the empty folder `output`; equal requests give equal bytes.

    Raises:
        DataError: a file is damaged, or the seeds were evaluated on different tasks.
    """
    page = _page(_read(request))
    (output / "index.html").write_text(render(page), encoding="utf-8")
    pictures = output / "figures"
    pictures.mkdir()
    for section in page.sections:
        for table in section.tables:
            (output / f"{table.name}.csv").write_text(table.csv_text(), encoding="utf-8")
        for panel in section.panels:
            if panel.name in PICTURES:
                (pictures / f"{panel.name}.png").write_bytes(panel.png())


def _read(request: ReportRequest) -> _Content:
    seeds = tuple(SeedOutputs.read(folders) for folders in request.seeds)
    family = load_family(request.family)
    label = preset_stem(request.preset)
    own = Contender(label, request.difference, tuple(one.scores for one in seeds))
    others = []
    for other in request.others:
        read = tuple(Scores.read(folder / "scores.json") for folder in other.scores)
        if all(comparable(own.scores[0], one) for one in read):
            others.append(Contender(other.label, other.difference, read))
    return _Content(
        request,
        family,
        seeds,
        tuple(scores.gather([one.scores for one in seeds])),
        own,
        tuple(others),
    )


def _page(content: _Content) -> Page:
    seeds, policies, request = content.seeds, content.policies, content.request
    protocol = scores.protocol_line(seeds[0].scores, len(seeds))
    tasks = scores.task_table(policies, seeds[0].scores.tasks, protocol)
    found = (
        sections.score_section(policies, seeds),
        sections.rollout_section(content.family, policies, seeds),
        sections.belief_section(content.family, seeds),
        sections.map_section(content.family, seeds),
        *sections.training_sections(policies, seeds),
        sections.comparison_section(content.own, content.others),
        sections.task_section(tasks),
    )
    names = ", ".join(str(one.seed) for one in seeds)
    subtitle = f"{content.family.spec.name} · preset {request.preset} · seed {names}"
    return Page(
        request.name,
        subtitle if not request.difference else f"{subtitle} · {request.difference}",
        sections.lede(policies),
        sections.tiles(policies),
        tuple(section for section in found if section.tables or section.panels),
        tuple(cards(request.seeds)),
        request.command,
    )
