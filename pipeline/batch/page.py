"""The page of a batch, with its table as CSV and Markdown beside it: `reports/batch-<name>/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.batch.request import BatchRequest
from pipeline.batch.summary import Row, batch_table
from pipeline.markdown import markdown_table
from pipeline.report.page import Page, Section, Tile, render
from pipeline.report.tables import Share, Table
from pipeline.reporting import replace_report
from pipeline.store import Store


def write_page(request: BatchRequest, store: Store, found: Sequence[Row]) -> Path:
    """Write the page anew; its path."""
    table = batch_table(found, f"Batch {request.name}", len(request.seeds))
    failed = _failures(found)
    runs = [run for row in found for run in row.runs]

    def draw(output: Path) -> None:
        page = render(_page(request, found, [table, *failed]))
        (output / "index.html").write_text(page, encoding="utf-8")
        for one in (table, *failed):
            (output / f"{one.name}.csv").write_text(one.csv_text(), encoding="utf-8")
        (output / "batch.md").write_text(markdown_page(request, table), encoding="utf-8")

    return replace_report(store, f"batch-{request.name}", "", runs, draw, refresh=True)


def markdown_page(request: BatchRequest, table: Table) -> str:
    """The table with its protocol, and the command that makes it again."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in table.cells()]
    lines = [f"# {table.title}", "", markdown_table(table.columns, rows), table.protocol, ""]
    return "\n".join([*lines, *(f"- {note}" for note in table.notes), "", f"`{request.command}`\n"])


def verdict(found: Sequence[Row]) -> str:
    """One sentence: how many are complete, and which failed."""
    complete = sum(row.state == "complete" for row in found)
    text = f"{complete} of {len(found)} complete"
    failed = [row.label for row in found if row.state == "failed"]
    waiting = [row.label for row in found if row.state == "waiting"]
    for word, labels in (("failed", failed), ("waiting", waiting)):
        if labels:
            text += f"; {word}: {', '.join(labels)}"
    return text


def _failures(found: Sequence[Row]) -> list[Table]:
    """What failed and why, if anything did."""
    rows = tuple((row.label, text) for row in found for text in row.failures)
    then = "The next run of the batch takes these up again."
    return [Table("failures", "What failed", then, ("family", "why"), rows)] if rows else []


def _page(request: BatchRequest, found: Sequence[Row], tables: Sequence[Table]) -> Page:
    section = Section("families", "Families", tables=tuple(tables))
    seeds = ", ".join(map(str, request.seeds))
    subtitle = f"batch · {len(found)} presets · seed {seeds} · {request.where.runner}"
    lede = f"{verdict(found)}."
    return Page(request.name, subtitle, lede, _tiles(found), (section,), (), request.command)


def _tiles(found: Sequence[Row]) -> tuple[Tile, ...]:
    complete = sum(row.state == "complete" for row in found)
    tiles = [Tile(f"{complete}/{len(found)}", "complete", "presets with all their seeds")]
    success = [row.success for row in found if row.success is not None]
    if success:
        mean = Table("", "", "", ("x",), ((Share(sum(success) / len(success)),),)).cells()[0][0]
        tiles.append(Tile(mean, "success", f"mean of {len(success)}"))
    return tuple(tiles)
