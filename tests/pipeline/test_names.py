"""Names: none that passes can leave its folder, and a bad one is refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.names import checked_name, did_you_mean, printable

HOSTILE = [
    "",
    ".",
    "..",
    "../x",
    "/abs",
    "a/b",
    "a\\b",
    "a\0b",
    "a\nb",
    "a b",
    " a",
    "a ",
    "a.",
    "a..b",
    "-a",
    ".hidden",
    "~",
    "$HOME",
    "a" * 101,
    "x" * 300,
    "CON",
    "con.txt",
    "NUL",
    "lpt1",
    "COM9.yaml",
    "caf\u00e9",
    "cafe\u0301",
    "\u202egnp.exe",
    "\uff0e\uff0e",
    "a\u200bb",
    "\u0661",
    "*",
    "a:b",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused_in_one_printable_line(name: str) -> None:
    with pytest.raises(ConfigError, match="run name") as caught:
        checked_name(name, "run")
    assert str(caught.value).isascii()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["a", "gridworld", "run-1.2_x", "9", "a" * 100, "console", "a.b"])
def test_plain_names_pass(name: str) -> None:
    assert checked_name(name, "run") == name


@settings(max_examples=1000, deadline=None)
@given(st.text(max_size=120) | st.text("abcXYZ019._-/", max_size=120))
def test_a_name_that_passes_is_one_path_component(name: str) -> None:
    try:
        passed = checked_name(name, "run")
    except ConfigError:
        return
    assert passed == name  # so different names stay different
    base = Path("/store/records")
    assert os.path.normpath(base / f"{name}.json") == str(base / f"{name}.json")
    assert (base / name).parent == base


def test_the_nearest_word_is_named_or_else_all() -> None:
    assert did_you_mean("gridwrld", ["gridworld", "wind"]) == "did you mean 'gridworld'?"
    assert did_you_mean("zzz", ["a", "b"]) == "known: a, b"
    assert did_you_mean("zzz", []) == "there are none"


def test_case_does_not_matter_to_what_is_near() -> None:
    assert did_you_mean("GRIDWORLD", ["gridworld", "B"]) == "did you mean 'gridworld'?"
    assert did_you_mean("b", ["gridworld", "B"]) == "did you mean 'B'?"


def test_of_many_words_only_the_closest_are_named() -> None:
    many = ["updates", "log_every", "learning_rate", "elbo", "model", "seed", "batch_size"]
    assert did_you_mean("epochs", many, "`omrl schema`") == (
        "closest: elbo, batch_size, updates; `omrl schema` lists all"
    )
    assert did_you_mean("update", many, "`omrl schema`") == "did you mean 'updates'?"
    assert did_you_mean("zzz", ["a", "b"], "`omrl schema`") == "known: a, b"


def test_printable_cuts_and_escapes() -> None:
    assert printable("a\x1b[31m") == r"'a\x1b[31m'"
    assert printable("x" * 100) == "'" + "x" * 60 + "...'"
