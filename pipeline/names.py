"""Names that become folders and files: checked, so that none can leave the store."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from pipeline.errors import ConfigError

_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_FEW = 6
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def checked_name(name: str, what: str) -> str:
    """`name` itself if it is a plain file name on every system.

    Raises:
        ConfigError: it is not; `what` says whose name it is ("run", "preset").
    """
    if not _PATTERN.fullmatch(name) or name.endswith(".") or ".." in name:
        raise ConfigError(
            f"{what} name {printable(name)} cannot be used; take 1 to 100 of A-Z a-z 0-9 . _ -, "
            "a letter or digit first, no two dots in a row and none at the end"
        )
    if _RESERVED.fullmatch(name):
        raise ConfigError(f"{what} name {name!r} is reserved on some systems; take another")
    return name


def printable(text: str, limit: int = 60) -> str:
    """`text` quoted and cut, safe to print: control characters and non-ASCII escaped."""
    return ascii(text if len(text) <= limit else text[:limit] + "...")


def did_you_mean(word: str, known: Iterable[str], list_of_all: str | None = None) -> str:
    """A clause that names the nearest known words, or all of them if none is near.

    Of more than a few, where `list_of_all` says what prints them, only the closest are named.
    """
    choices = {choice.lower(): choice for choice in known}  # GRIDWORLD is near gridworld

    def nearest(count: int, cutoff: float) -> list[str]:
        return [choices[c] for c in difflib.get_close_matches(word.lower(), choices, count, cutoff)]

    if near := nearest(2, cutoff=0.6):
        return "did you mean " + " or ".join(map(repr, near)) + "?"
    if list_of_all is not None and len(choices) > _FEW:
        return f"closest: {', '.join(nearest(3, cutoff=0.0))}; {list_of_all} lists all"
    return "known: " + ", ".join(choices.values()) if choices else "there are none"
