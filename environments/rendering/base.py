"""What a family that draws itself gives to a video; the others are drawn by `plot_rollout`."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]  # (height, width, 3)


class FrameSource(Protocol):
    """Draws one task, state by state."""

    def frame(self, state: NDArray[np.float64]) -> Frame:
        """The picture of one environment's `Simulator.render_state()`, (state,)."""

    def close(self) -> None:
        """Let go of the graphics context."""
