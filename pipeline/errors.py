"""Errors of the pipeline: each is one sentence that says what, where, and what would be right."""

from __future__ import annotations


class ConfigError(ValueError):
    """A preset, a configuration file, an option or a name that cannot be used."""


class StoreError(ValueError):
    """The store does not hold what was asked for, or holds something that does not belong there."""


class MemoryShortError(RuntimeError):
    """A stage was asked for sizes that the machine's memory does not hold."""
