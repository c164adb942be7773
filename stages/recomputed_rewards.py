"""When a recomputed reward counts as the recorded one: the same for imports and for donor plans.

The same simulator on the same processor gives it back exactly; states that were logged as float32,
and other processors, do not quite.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-5  # per unit of the larger of 1 and the reward


def tolerated(recorded: NDArray[np.float32]) -> NDArray[Any]:
    """How far a recomputed reward may be from each recorded one, (...,)."""
    allowed: NDArray[Any] = TOLERANCE * np.maximum(1.0, np.abs(recorded))
    return allowed
