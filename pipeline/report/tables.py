"""A table once, shown thrice: as HTML, as CSV and as aligned text in the terminal."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from dataclasses import dataclass

Range = tuple[float, float]
"""An interval's ends."""
Cell = str | float | int | Range | None


class Share(float):
    """A fraction in [0, 1] that people read as a percentage."""


@dataclass(frozen=True)
class Table:
    """Rows under named columns, with the protocol that its numbers were made by."""

    name: str  # the CSV's file name, without its ending
    title: str
    protocol: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    folded: bool = False  # on the page, shown only when asked for

    def csv_text(self) -> str:
        """Numbers at six significant digits; the protocol stands in every row's last column."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*self.columns, "protocol"])
        for row in self.rows:
            writer.writerow([*(_exact(cell) for cell in row), self.protocol])
        return stream.getvalue()

    def cells(self) -> list[list[str]]:
        """Every cell as people read it: one number of decimals a column, a dash for nothing."""
        columns = [_column([row[i] for row in self.rows]) for i in range(len(self.columns))]
        return [list(row) for row in zip(*columns, strict=True)]

    def numeric(self) -> list[bool]:
        """Which columns hold numbers or intervals, and so stand to the right."""
        return [
            all(
                cell is None or isinstance(cell, int | float | tuple)
                for cell in (row[i] for row in self.rows)
            )
            for i in range(len(self.columns))
        ]

    def plain_text(self) -> str:
        """Aligned text for a terminal: title, columns, rows and the protocol."""
        lines = [list(self.columns), *self.cells()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        right = self.numeric()
        printed = [
            "  ".join(
                cell.rjust(width) if to_right else cell.ljust(width)
                for cell, width, to_right in zip(line, widths, right, strict=True)
            ).rstrip()
            for line in lines
        ]
        rule = "─" * max(len(line) for line in printed)
        head, body = printed[0], printed[1:]
        below = textwrap.wrap(self.protocol, max(len(rule), 72))
        return "\n".join([self.title, rule, head, rule, *body, rule, *below])


def _column(cells: list[Cell]) -> list[str]:
    """Cells of one column with as many decimals as its largest number leaves room for."""
    numbers = [cell for cell in cells if isinstance(cell, float)]
    numbers += [end for cell in cells if isinstance(cell, tuple) for end in cell]
    largest = max((abs(number) for number in numbers if math.isfinite(number)), default=0.0)
    return [_shown(cell, 1 if largest >= 10 else 2) for cell in cells]


def _shown(cell: Cell, decimals: int) -> str:
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return "–"
    if isinstance(cell, Share):
        return f"{100 * cell:.0f} %"
    if isinstance(cell, tuple):
        return f"[{cell[0]:.{decimals}f}, {cell[1]:.{decimals}f}]"
    return f"{cell:.{decimals}f}" if isinstance(cell, float) else str(cell)


def _exact(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, tuple):
        return f"[{cell[0]:.6g}, {cell[1]:.6g}]"
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)
