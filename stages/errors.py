"""Errors of the stages."""

from __future__ import annotations


class StageError(ValueError):
    """A stage was given inputs or settings that do not fit: what, where, what would be right."""
