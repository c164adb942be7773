"""Tables: one content, three renderings."""

from __future__ import annotations

import csv
import io

from pipeline.report.tables import Share, Table


def table() -> Table:
    return Table(
        "scores",
        "Scores",
        "Protocol: 5 tasks.",
        ("policy", "return", "interval", "solved"),
        (("agent", 36.125, (35.01, 37.9), Share(0.952)), ("oracle", 44.3, None, None)),
        ("A note.",),
    )


def test_text_is_aligned_and_carries_the_protocol() -> None:
    lines = table().plain_text().splitlines()
    assert lines[0] == "Scores"
    assert lines[2] == "policy  return      interval  solved"
    assert lines[4] == "agent     36.1  [35.0, 37.9]    95 %"
    assert lines[5] == "oracle    44.3             –       –"
    assert lines[-1] == "Protocol: 5 tasks."


def test_a_long_protocol_is_wrapped() -> None:
    long = Table("t", "T", "word " * 60, ("a",), ((1.0,),))
    assert max(len(line) for line in long.plain_text().splitlines()) <= 72


def test_csv_keeps_precision_and_names_the_protocol_in_every_row() -> None:
    rows = list(csv.DictReader(io.StringIO(table().csv_text())))
    assert [row["return"] for row in rows] == ["36.125", "44.3"]
    assert rows[0]["solved"] == "0.952"
    assert rows[1]["interval"] == ""
    assert {row["protocol"] for row in rows} == {"Protocol: 5 tasks."}


def test_small_numbers_get_two_decimals_and_nan_a_dash() -> None:
    small = Table("t", "T", "P", ("a", "b"), ((1.234, float("nan")), (-0.5, 2.0)))
    assert small.cells() == [["1.23", "–"], ["-0.50", "2.00"]]
    assert small.numeric() == [True, True]


def test_ends_of_intervals_have_the_decimals_of_their_column() -> None:
    ranges = Table("t", "T", "P", ("a",), (((-6.0, -6.0),), ((31.7, 37.1),), (None,)))
    assert ranges.cells() == [["[-6.0, -6.0]"], ["[31.7, 37.1]"], ["–"]]
    assert ranges.numeric() == [True]
    assert ranges.csv_text().splitlines()[1] == '"[-6, -6]",P'
