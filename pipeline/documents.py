"""YAML read strictly: plain data with line numbers, and nothing that surprises or executes.

YAML 1.2's plain scalars (`yes` is text, `3e-4` is a number); keys are text and stand once; no tags,
anchors or aliases; UTF-8; 64 KB and 20 levels at most.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ConfigError
from pipeline.names import printable

MAX_BYTES = 64 * 1024
MAX_DEPTH = 20

_WORDS: Mapping[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_BARE = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]*[A-Za-z0-9]", re.ASCII)
_SPECIAL = re.compile(r"([-+]?)\.(inf|nan)", re.ASCII | re.IGNORECASE)

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Origin:
    """Where a value was written: a file and line, or an option of the command line."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Document:
    """Plain data, and for every key and item where it was written."""

    values: dict[str, Any]
    origins: dict[Path_, Origin]


def read_document(path: Path, source: str | None = None) -> Document:
    """A YAML file whose top is a mapping; `source` is what messages call it.

    Raises:
        ConfigError: unreadable, too large, not UTF-8, or not strict YAML; names file and line.
    """
    source = source or str(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError(f"{source}: {size} bytes; a configuration has at most {MAX_BYTES}")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: not UTF-8 at byte {error.start}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{source}: cannot be read: {reason}") from error
    values, origins = _parse(text, source, lines=True)
    if values is None:
        raise ConfigError(f"{source}: is empty; write sections such as `vae:` or delete the file")
    if not isinstance(values, dict):
        raise ConfigError(f"{source}:1: a mapping of sections is needed, such as `vae:`")
    return Document(values, origins)


def parse_value(text: str, source: str) -> Any:
    """One value as an option gives it: `0.1`, `true`, `[32, 32]`, `{rule: cql}`.

    Raises:
        ConfigError: too long or not strict YAML; names `source`.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{source}: value too long")
    return _parse(text, source, lines=False)[0]


def value_text(value: Any) -> str:
    """The shortest text that `parse_value` reads as this value: words bare, the rest as JSON."""
    if isinstance(value, str) and _BARE.fullmatch(value) and _scalar(value) == value:
        return value
    return json.dumps(value)


def _parse(text: str, source: str, lines: bool) -> tuple[Any, dict[Path_, Origin]]:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        origins: dict[Path_, Origin] = {}
        reader = _Reader(source, lines, origins)
        return (None if node is None else reader.value(node, ())), origins
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None and lines else None
        problem = " ".join(str(error.problem or error.context).split())
        hint = "; indent with spaces" if r"'\t'" in problem else ""
        raise ConfigError(f"{Origin(source, line)}: not valid YAML: {problem}{hint}") from error
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"{source}: not valid YAML: {problem}") from error


class _Loader(yaml.BaseLoader):
    """Composes nodes and refuses, before anything is built, what could surprise."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _refusal("anchors and aliases are not used here; write the value out", event)
        if getattr(event, "tag", None):
            raise _refusal(f"tag {printable(event.tag)} is not used here; write plain data", event)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _refusal(f"nested deeper than {MAX_DEPTH} levels", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


@dataclass(frozen=True)
class _Reader:
    """Turns nodes into plain data and notes where each key stood."""

    source: str
    lines: bool
    origins: dict[Path_, Origin]

    def value(self, node: yaml.Node, path: Path_) -> Any:
        self.origins.setdefault(path, self._origin(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        return _scalar(node.value) if plain else node.value

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{self._origin(key_node)}: a key must be plain text")
            if key in values:
                raise ConfigError(f"{self._origin(key_node)}: key {printable(key)} stands twice")
            self.origins[(*path, key)] = self._origin(key_node)
            values[key] = self.value(value_node, (*path, key))
        return values

    def _origin(self, node: yaml.Node) -> Origin:
        return Origin(self.source, node.start_mark.line + 1 if self.lines else None)


def _scalar(text: str) -> Any:
    """A plain scalar by YAML 1.2's core schema, with Python's underscores in numbers."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= 100:
        if _INTEGER.fullmatch(text):
            return int(text.replace("_", ""))
        if _FLOAT.fullmatch(text):
            return float(text.replace("_", ""))
        if special := _SPECIAL.fullmatch(text):
            return float(special[1] + special[2])
    return text


def _refusal(problem: str, event: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
