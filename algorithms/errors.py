"""Errors of the algorithms."""

from __future__ import annotations


class AlgorithmError(ValueError):
    """Settings that do not fit the data or the family: what, where, what would be right."""


class DivergenceError(RuntimeError):
    """A loss became NaN or infinite; the last good checkpoint is kept."""
