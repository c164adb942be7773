"""A pydantic error as one sentence: where the value was written, what is wrong, what would fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipeline.documents import Origin, Path_
from pipeline.keys import suggest
from pipeline.names import printable

_PLAINER = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "text",
    "a valid array": "a list",
    "an object": "a section of keys",
}


def sentence(error: ValidationError, origins: Mapping[Path_, Origin], preset: str) -> str:
    """The first problem, the unknown keys before all others, as `located`."""
    details = sorted(error.errors(include_url=False), key=lambda d: d["type"] != "extra_forbidden")
    first = details[0]
    path = _path(first)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return located(_words(first, path) + more, path, origins, preset)


def located(text: str, path: Path_, origins: Mapping[Path_, Origin], preset: str) -> str:
    """A problem behind the place where that key was written; `preset` stands in for none."""
    return f"{_origin(path, origins) or Origin(preset)}: {text}"


def _words(detail: ErrorDetails, path: Path_) -> str:
    key = ".".join(str(part) for part in path)
    kind = detail["type"]
    if kind == "extra_forbidden":
        parent = tuple(str(part) for part in path[:-1])
        where = f" in {'.'.join(parent)}" if parent else ""
        return f"unknown key {printable(str(path[-1]))}{where}; {suggest(parent, str(path[-1]))}"
    if kind == "missing":
        return f"{key} is missing"
    if kind == "misfit":
        return detail["msg"]
    message = detail["msg"].partition(", got ")[0]
    if not message.startswith("Input should be "):
        return f"{key}: {message.removeprefix('Value error, ')}"
    expected = message.removeprefix("Input should be ")
    for theirs, ours in _PLAINER.items():
        expected = expected.replace(theirs, ours)
    return f"{key} must be {expected}, not {_shown(detail['input'])}"


def _shown(value: Any) -> str:
    """The offending value, short."""
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return printable(value) if isinstance(value, str) else printable(repr(value)).strip("'\"")


def _path(detail: ErrorDetails) -> Path_:
    if detail["type"] == "misfit":
        return tuple(str(detail["ctx"]["path"]).split("."))
    return detail["loc"]


def _origin(path: Path_, origins: Mapping[Path_, Origin]) -> Origin | None:
    """Where that key was written, or the nearest section above it that was."""
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            return origins[path[:length]]
    return None
