"""YAML: what is read, with which lines, and the battery of what is refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.documents import MAX_BYTES, Origin, parse_value, read_document, value_text
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("50_000", 50_000),
        ("073", 73),
        ("3e-4", 3e-4),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("yes", "yes"),
        ("off", "off"),
        ("1:30", "1:30"),
        ("0x10", "0x10"),
        ("2001-01-01", "2001-01-01"),
        ("'3'", "3"),
        ('"true"', "true"),
        ("[32, 32]", [32, 32]),
        ("{rule: cql, cql_weight: 2}", {"rule": "cql", "cql_weight": 2}),
        ("\u0663", "\u0663"),
    ],
)
def test_plain_values(text: str, value: Any) -> None:
    found = parse_value(text, "--set")
    assert found == value
    assert type(found) is type(value)


@settings(max_examples=300, deadline=None)
@given(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab9.:-_ {}[]#&*!|>'\"%@`,?\n\t", max_size=8)
    | st.lists(st.integers() | st.text("ab9. ", max_size=3), max_size=3)
)
def test_the_text_of_a_value_is_read_as_that_value(value: object) -> None:
    found = parse_value(value_text(value), "--set")
    assert found == value
    assert type(found) is type(value)


def test_words_stay_bare() -> None:
    assert value_text("bernoulli-per-cell") == "bernoulli-per-cell"
    assert value_text("mine.module:Class") == "mine.module:Class"
    assert value_text("true") == '"true"'


def test_infinities_are_read_so_that_the_configuration_can_refuse_them() -> None:
    assert parse_value("-.inf", "x") == float("-inf")
    assert str(parse_value(".NaN", "x")) == "nan"


def test_lines_of_keys_and_items(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "# note\nvae:\n  elbo:\n    kl_weight: 0.1\n  updates:\n    3\nlist:\n- a\n- b\n"
    )
    document = read_document(path, "a.yaml")
    assert document.values == {
        "vae": {"elbo": {"kl_weight": 0.1}, "updates": 3},
        "list": ["a", "b"],
    }
    assert str(document.origins["vae", "elbo", "kl_weight"]) == "a.yaml:4"
    assert str(document.origins["vae", "updates"]) == "a.yaml:5"
    assert str(document.origins["list", 1]) == "a.yaml:9"
    assert str(Origin("--set x")) == "--set x"


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfvae:\n  updates: 3\n")
    assert read_document(path).values == {"vae": {"updates": 3}}


BOMB = "a: &a [x]\n" + "".join(
    f"{name}: &{name} [*{last}, *{last}]\n"
    for last, name in zip("abcdefgh", "bcdefghi", strict=True)
)

BAD_FILES = {
    "empty": ("", "a.yaml: is empty"),
    "only a comment": ("# nothing\n", "a.yaml: is empty"),
    "null": ("null\n", "a.yaml: is empty"),
    "a list": ("- vae\n", "a.yaml:1: a mapping of sections is needed"),
    "a word": ("vae\n", "a.yaml:1: a mapping of sections is needed"),
    "duplicate key": ("vae:\n  updates: 1\n  updates: 2\n", "a.yaml:3: key 'updates' stands twice"),
    "duplicate section": ("vae:\n  updates: 1\nvae:\n  updates: 2\n", "a.yaml:3: key 'vae' stands"),
    "tab": ("vae:\n\tupdates: 1\n", "a.yaml:2: not valid YAML: .*indent with spaces"),
    "python object": (
        "vae: !!python/object/apply:os.system ['touch pwned']\n",
        "a.yaml:1: not valid YAML: tag 'tag:yaml.org,2002:python/object/apply:os.system' is not",
    ),
    "python name": ("vae: !!python/name:os.system\n", "tag .* is not used here"),
    "local tag": ("vae: !include /etc/passwd\n", "a.yaml:1: .*tag '!include' is not used here"),
    "binary tag": ("vae: !!binary aGVsbG8=\n", "tag .* is not used here"),
    "alias bomb": (BOMB, "a.yaml:1: .*anchors and aliases are not used here"),
    "recursive alias": ("vae: &x\n  again: *x\n", "anchors and aliases"),
    "merge key": ("a: &a {x: 1}\nb:\n  <<: *a\n", "anchors and aliases"),
    "unknown alias": ("vae: *nothing\n", "anchors and aliases"),
    "deep nesting": ("vae: " + "[" * 5000, "a.yaml:1: .*nested deeper than 20 levels"),
    "deep mapping": ("vae: " + "{a: " * 50 + "}" * 50, "nested deeper than 20 levels"),
    "two documents": ("vae:\n  updates: 1\n---\nvae: {}\n", "a.yaml:3: not valid YAML"),
    "unclosed list": ("vae: [1, 2\n", "a.yaml:.*not valid YAML"),
    "unclosed quote": ("vae: 'abc\n", "a.yaml:.*not valid YAML"),
    "bad indentation": ("vae:\n  updates: 1\n epochs: 2\n", "a.yaml:3: not valid YAML"),
    "two colons": ("vae: updates: 3\n", "a.yaml:1: not valid YAML"),
    "list as key": ("? [a, b]\n: 1\n", "a.yaml:1: a key must be plain text"),
    "control character": ("vae: \x07\n", "a.yaml: not valid YAML"),
    "nul byte": ("vae: a\0b\n", "a.yaml: not valid YAML"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_in_one_line_and_at_once(case: str, tmp_path: Path) -> None:
    text, message = BAD_FILES[case]
    path = tmp_path / "a.yaml"
    path.write_text(text)
    begun = time.process_time()
    with pytest.raises(ConfigError, match=message) as caught:
        read_document(path, "a.yaml")
    assert time.process_time() - begun < 5  # of CPU; a tenth of it on a quiet machine
    assert "\n" not in str(caught.value)
    assert str(caught.value).isascii()


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"vae:\n  name: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"a.yaml: not UTF-8 at byte 16"):
        read_document(path, "a.yaml")


def test_utf16(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("vae:\n".encode("utf-16"))
    with pytest.raises(ConfigError, match="not UTF-8 at byte 0"):
        read_document(path, "a.yaml")


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with path.open("wb") as stream:
        stream.truncate(50_000_000)
    with pytest.raises(
        ConfigError, match=f"50000000 bytes; a configuration has at most {MAX_BYTES}"
    ):
        read_document(path, "a.yaml")


@pytest.mark.parametrize("name", ["missing.yaml", "folder.yaml", "a\0b.yaml"])
def test_a_file_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"a.yaml: cannot be read: "):
        read_document(tmp_path / name, "a.yaml")


def test_a_bad_value_names_its_option() -> None:
    with pytest.raises(ConfigError, match=r"^--set x=\[: not valid YAML"):
        parse_value("[", "--set x=[")
    with pytest.raises(ConfigError, match="value too long"):
        parse_value("1" * (MAX_BYTES + 1), "--set x")
