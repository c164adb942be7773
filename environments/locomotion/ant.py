"""What the families of the four-legged ant share: its model and its names."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from environments.base import Float32, Float64
from environments.locomotion.family import LocomotionFamily

LEGS = tuple(f"{joint}_{leg}" for leg in range(1, 5) for joint in ("hip", "ankle"))
POSITIONS = ("x", "y", "z", "quat_w", "quat_x", "quat_y", "quat_z", *LEGS)
TURNS = ("turn_x", "turn_y", "turn_z")
VELOCITIES = ("velocity_x", "velocity_y", "velocity_z", *TURNS, *(f"velocity_{j}" for j in LEGS))


class AntFamily(LocomotionFamily):
    """The ant of Gymnasium's v5: eight motors of gear 150, positions and velocities observed.

    Contact forces are neither observed nor paid for: with the versions that were published with
    they were never computed, hence zero.
    """

    asset: ClassVar[str] = "ant.xml"
    rows_per_thread: ClassVar[int] = 8

    def observe(self, states: Float64) -> Float32:
        """qpos and qvel, (n, 29)."""
        return states[:, 1 : 1 + self.physics.nq + self.physics.nv].astype(np.float32)
