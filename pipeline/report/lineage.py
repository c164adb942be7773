"""Where every number comes from: one card an artefact, from the collection to the scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from pipeline.report.sources import ArtefactFacts, SeedFolders

_STAGES = ("collect", "train-vae", "relabel", "train-offline", "train-blind", "evaluate")


@dataclass(frozen=True)
class Card:
    """An artefact as the page shows it."""

    facts: ArtefactFacts
    seeds: str  # which seeds of the run use it
    config: str  # YAML
    time: str
    size: str


def cards(seeds: Sequence[SeedFolders]) -> list[Card]:
    """Every artefact of all seeds once, in the order of the stages."""
    users: dict[str, list[int]] = {}
    facts: dict[str, ArtefactFacts] = {}
    for one in seeds:
        for artefact in one.lineage:
            facts[artefact.reference] = artefact
            users.setdefault(artefact.reference, []).append(one.seed)
    order = sorted(facts, key=lambda name: (_place(facts[name].stage), users[name], name))
    return [_card(facts[name], users[name]) for name in order]


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def file_size(count: int | None) -> str:
    """Bytes as people say them."""
    if count is None:
        return "unknown"
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def _card(facts: ArtefactFacts, seeds: Sequence[int]) -> Card:
    config = yaml.safe_dump(dict(facts.config), sort_keys=False, allow_unicode=True).strip()
    names = ", ".join(str(seed) for seed in sorted(set(seeds)))
    return Card(facts, names, config, duration(facts.seconds), file_size(facts.size))


def _place(stage: str) -> int:
    return _STAGES.index(stage) if stage in _STAGES else len(_STAGES)
