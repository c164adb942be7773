"""Numbers for people, and aligned tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.console import human_age, human_seconds, human_size, table


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (12_345_678, "12.3 MB"),
        (5e9, "5.0 GB"),
        (7e15, "7000.0 TB"),
    ],
)
def test_sizes(size: float, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.85, "850 ms"),
        (12.34, "12.3 s"),
        (60, "1 min 00 s"),
        (245, "4 min 05 s"),
        (7805, "2 h 10 min"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "now"), (59, "now"), (300, "5 min"), (3 * 3600, "3 h"), (1e6, "11 d")]
)
def test_ages(seconds: float, text: str) -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    assert human_age((now - timedelta(seconds=seconds)).isoformat(), now) == text


@pytest.mark.parametrize("created", ["", "yesterday", "2030-01-01T00:00:00"])
def test_an_age_that_cannot_be_told(created: str) -> None:
    assert human_age(created) == "?"


def test_tables_are_aligned() -> None:
    assert table(("a", "size"), [("long name", "7 B"), ("x", "12 kB")], right=(1,)) == (
        "a           size\nlong name    7 B\nx          12 kB"
    )
    assert table(("a", "b"), []) == "a  b"
