"""A report's tables and figures as Prefect artifacts, for its web page."""

from __future__ import annotations

import base64
import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from pipeline.markdown import markdown_table

_PROTOCOL = "protocol"
_TITLES = {
    "returns_per_episode": "Return per episode",
    "evaluation_return": "Learning curve",
    "belief_tightening": "Belief",
    "comparison": "Comparison",
}


def publish_artifacts(report: Path) -> None:
    """The score table and a page with figures inline, under keys that carry the report's name."""
    rows = read_table(report / "scores.csv")
    protocol = rows[0].pop(_PROTOCOL)
    for row in rows[1:]:
        row.pop(_PROTOCOL)
    name = artifact_key(report.name)
    create_table_artifact([dict(row) for row in rows], f"scores-{name}", protocol)
    create_markdown_artifact(
        markdown_page(report, rows, protocol), f"report-{name}", f"report of {report.name}"
    )


def artifact_key(name: str) -> str:
    """`name` in what Prefect allows in a key: lowercase letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a report's CSV by column, numbers rounded for reading."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return [{name: _rounded(text) for name, text in row.items()} for row in rows]


def markdown_page(report: Path, rows: Sequence[Mapping[str, str]], protocol: str) -> str:
    """The table and every figure of the report, the figures as data URIs."""
    columns = list(rows[0])
    lines = [
        f"# {report.name}",
        "",
        markdown_table(columns, ([row[column] for column in columns] for row in rows)),
        protocol,
        "",
    ]
    for name, title in _TITLES.items():
        picture = report / "figures" / f"{name}.png"
        if picture.is_file():
            data = base64.b64encode(picture.read_bytes()).decode()
            lines += [f"## {title}", "", f"![{title}](data:image/png;base64,{data})", ""]
    return "\n".join([*lines, f"The whole report: `{report / 'index.html'}`"])


def _rounded(text: str) -> str:
    try:
        return f"{float(text):.2f}"
    except ValueError:
        return text
