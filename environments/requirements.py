"""What the checks of the contract are written with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from environments.errors import TaskError


class BrokenContractError(Exception):
    """A family breaks the contract; the message says how."""


def require(condition: object, message: str) -> None:
    """Raise BrokenContractError unless the condition holds."""
    if not condition:
        raise BrokenContractError(message)


def require_array(what: str, array: Any, shape: tuple[int, ...], dtype: type) -> None:
    """Raise BrokenContractError unless this is a finite array of this shape and type."""
    require(isinstance(array, np.ndarray | np.generic), f"{what} is {type(array)}, not an array")
    require(array.shape == shape, f"{what} has shape {array.shape}, expected {shape}")
    expected = np.dtype(dtype)
    require(array.dtype == expected, f"{what} is {array.dtype}, expected {expected}")
    require(np.isfinite(array).all(), f"{what} is not finite everywhere")


def require_refused(what: str, call: Callable[[], object]) -> None:
    """Raise BrokenContractError unless the call raises TaskError."""
    try:
        call()
    except TaskError:
        return
    raise BrokenContractError(f"{what} was accepted, expected TaskError")
