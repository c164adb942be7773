"""What is known about the fifty ML1 families without loading Meta-World or MuJoCo.

Figures are those of Meta-World 3.1.1, and the tests compare every one of them with it. A task is
the random vector of a reset: the place of an object or fixture and, where there are six numbers,
the goal's after it. A goal is *hidden* unless the first observation tells it or all tasks share it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

PREFIX = "ml1/"
REWARD_VERSION = "v2"


@dataclass(frozen=True)
class Facts:
    """One family. Lengths are in metres."""

    key: str  # Meta-World's name without its version
    goal: Literal["hidden", "visible", "fixed"]
    nq: int  # width of qpos
    low: tuple[float, ...]  # bounds of a task, both included
    high: tuple[float, ...]
    distance: float | None = None  # least one between object and goal on the table, (x, y)
    solid_goal: bool = False  # the goal is a body that can be touched, so physics differ there

    @property
    def name(self) -> str:
        """The domain's name."""
        return PREFIX + self.key

    @property
    def width(self) -> int:
        """Width of a task vector."""
        return len(self.low)


# fmt: off
_TABLE = (
    Facts("assembly", "hidden", 16,
          (0.0, 0.6, 0.02, -0.1, 0.75, 0.1),
          (0.0, 0.6, 0.02, 0.1, 0.85, 0.1), distance=0.1, solid_goal=True),
    Facts("basketball", "hidden", 16,
          (-0.1, 0.6, 0.0299, -0.1, 0.85, 0.0),
          (0.1, 0.7, 0.0301, 0.1, 0.9000001, 0.0), distance=0.15, solid_goal=True),
    Facts("bin-picking", "fixed", 16,
          (-0.21, 0.65, 0.02, 0.1199, 0.699, -0.001), (-0.03, 0.75, 0.02, 0.1201, 0.701, 0.001)),
    Facts("box-close", "hidden", 16,
          (-0.05, 0.5, 0.02, -0.1, 0.7, 0.133),
          (0.05, 0.55, 0.02, 0.1, 0.8, 0.133), distance=0.25, solid_goal=True),
    Facts("button-press-topdown", "visible", 10,
          (-0.1, 0.8, 0.115), (0.1, 0.9, 0.115)),
    Facts("button-press-topdown-wall", "visible", 10,
          (-0.1, 0.8, 0.115), (0.1, 0.9, 0.115)),
    Facts("button-press", "visible", 10,
          (-0.1, 0.85, 0.115), (0.1, 0.9, 0.115)),
    Facts("button-press-wall", "visible", 10,
          (-0.05, 0.85, 0.1149), (0.05, 0.9, 0.1151)),
    Facts("coffee-button", "visible", 17,
          (-0.1, 0.8, -0.001), (0.1, 0.9, 0.001)),
    Facts("coffee-pull", "hidden", 17,
          (-0.05, 0.7, -0.001, -0.1, 0.55, -0.001),
          (0.05, 0.75, 0.001, 0.1, 0.65, 0.001), distance=0.15),
    Facts("coffee-push", "hidden", 17,
          (-0.1, 0.55, -0.001, -0.05, 0.7, -0.001),
          (0.1, 0.65, 0.001, 0.05, 0.75, 0.001), distance=0.15, solid_goal=True),
    Facts("dial-turn", "visible", 10,
          (-0.1, 0.7, 0.0), (0.1, 0.8, 0.0)),
    Facts("disassemble", "visible", 16,
          (0.0, 0.6, 0.025, -0.1, 0.6, 0.1699),
          (0.1, 0.75, 0.02501, 0.1, 0.75, 0.1701), distance=0.1),
    Facts("door-close", "visible", 10,
          (0.0, 0.85, 0.15), (0.1, 0.95, 0.15)),
    Facts("door-lock", "visible", 10,
          (-0.1, 0.8, 0.15), (0.1, 0.85, 0.15)),
    Facts("door-open", "visible", 10,
          (0.0, 0.85, 0.15), (0.1, 0.95, 0.15)),
    Facts("door-unlock", "visible", 10,
          (-0.1, 0.8, 0.15), (0.1, 0.85, 0.15)),
    Facts("drawer-close", "visible", 10,
          (-0.1, 0.9, 0.0), (0.1, 0.9, 0.0)),
    Facts("drawer-open", "visible", 10,
          (-0.1, 0.9, 0.0), (0.1, 0.9, 0.0)),
    Facts("faucet-close", "visible", 10,
          (-0.1, 0.8, 0.0), (0.1, 0.85, 0.0)),
    Facts("faucet-open", "visible", 10,
          (-0.05, 0.8, 0.0), (0.05, 0.85, 0.0)),
    Facts("hammer", "fixed", 17,
          (-0.1, 0.4, 0.0), (0.1, 0.5, 0.0)),
    Facts("hand-insert", "hidden", 16,
          (-0.1, 0.6, 0.05, -0.04, 0.8, -0.0201),
          (0.1, 0.7, 0.05, 0.04, 0.88, -0.0199), distance=0.15),
    Facts("handle-press-side", "visible", 10,
          (-0.35, 0.65, -0.001), (-0.25, 0.75, 0.001)),
    Facts("handle-press", "visible", 10,
          (-0.1, 0.8, -0.001), (0.1, 0.9, 0.001)),
    Facts("handle-pull-side", "visible", 10,
          (-0.35, 0.65, 0.0), (-0.25, 0.75, 0.0)),
    Facts("handle-pull", "visible", 10,
          (-0.1, 0.8, -0.001), (0.1, 0.9, 0.001)),
    Facts("lever-pull", "visible", 10,
          (-0.1, 0.7, 0.0), (0.1, 0.8, 0.0)),
    Facts("peg-insert-side", "hidden", 16,
          (0.0, 0.5, 0.02, -0.35, 0.4, -0.001),
          (0.2, 0.7, 0.02, -0.25, 0.7, 0.001), distance=0.1, solid_goal=True),
    Facts("peg-unplug-side", "visible", 16,
          (-0.25, 0.6, -0.001), (-0.15, 0.8, 0.001)),
    Facts("pick-out-of-hole", "hidden", 16,
          (0.0, 0.75, 0.02, -0.1, 0.5, 0.15), (0.0, 0.75, 0.02, 0.1, 0.6, 0.3), distance=0.15),
    Facts("pick-place", "hidden", 16,
          (-0.1, 0.6, 0.02, -0.1, 0.8, 0.05), (0.1, 0.7, 0.02, 0.1, 0.9, 0.3), distance=0.15),
    Facts("pick-place-wall", "hidden", 16,
          (-0.05, 0.6, 0.015, -0.05, 0.85, 0.05),
          (0.05, 0.65, 0.015, 0.05, 0.9, 0.3), distance=0.15),
    Facts("plate-slide-back-side", "hidden", 11,
          (-0.25, 0.6, 0.0, -0.05, 0.6, 0.015), (-0.25, 0.6, 0.0, 0.15, 0.6, 0.015)),
    Facts("plate-slide-back", "hidden", 11,
          (0.0, 0.85, 0.0, -0.1, 0.6, 0.015), (0.0, 0.85, 0.0, 0.1, 0.6, 0.015)),
    Facts("plate-slide-side", "hidden", 11,
          (0.0, 0.6, 0.0, -0.3, 0.54, 0.0), (0.0, 0.6, 0.0, -0.25, 0.66, 0.0)),
    Facts("plate-slide", "hidden", 11,
          (0.0, 0.6, 0.0, -0.1, 0.85, 0.0), (0.0, 0.6, 0.0, 0.1, 0.9, 0.0), solid_goal=True),
    Facts("push-back", "hidden", 16,
          (-0.1, 0.8, 0.02, -0.1, 0.6, 0.0199), (0.1, 0.85, 0.02, 0.1, 0.7, 0.0201), distance=0.15),
    Facts("push", "hidden", 16,
          (-0.1, 0.6, 0.02, -0.1, 0.8, 0.01), (0.1, 0.7, 0.02, 0.1, 0.9, 0.02), distance=0.15),
    Facts("push-wall", "hidden", 16,
          (-0.05, 0.6, 0.015, -0.05, 0.85, 0.01),
          (0.05, 0.65, 0.015, 0.05, 0.9, 0.02), distance=0.15),
    Facts("reach", "hidden", 16,
          (-0.1, 0.6, 0.02, -0.1, 0.8, 0.05), (0.1, 0.7, 0.02, 0.1, 0.9, 0.3), distance=0.15),
    Facts("reach-wall", "hidden", 16,
          (-0.05, 0.6, 0.015, -0.05, 0.85, 0.05),
          (0.05, 0.65, 0.015, 0.05, 0.9, 0.3), distance=0.15),
    Facts("shelf-place", "hidden", 16,
          (-0.1, 0.5, 0.019, -0.1, 0.8, 0.299),
          (0.1, 0.6, 0.021, 0.1, 0.9, 0.301), distance=0.1, solid_goal=True),
    Facts("soccer", "hidden", 16,
          (-0.1, 0.6, 0.03, -0.1, 0.8, 0.0),
          (0.1, 0.7, 0.03, 0.1, 0.9, 0.0), distance=0.15, solid_goal=True),
    Facts("stick-pull", "hidden", 18,
          (-0.1, 0.55, 0.0, 0.35, 0.45, 0.0199),
          (0.0, 0.65, 0.001, 0.45, 0.55, 0.0201), distance=0.1),
    Facts("stick-push", "hidden", 18,
          (-0.08, 0.58, 0.0, 0.399, 0.55, 0.1319),
          (-0.03, 0.62, 0.001, 0.401, 0.6, 0.1321), distance=0.1),
    Facts("sweep-into", "fixed", 16,
          (-0.1, 0.6, 0.02, -0.001, 0.8399, 0.0199),
          (0.1, 0.7, 0.02, 0.001, 0.8401, 0.0201), distance=0.15),
    Facts("sweep", "visible", 16,
          (-0.1, 0.6, 0.02), (0.1, 0.7, 0.02)),
    Facts("window-close", "visible", 10,
          (0.0, 0.75, 0.2), (0.0, 0.9, 0.2)),
    Facts("window-open", "visible", 10,
          (-0.1, 0.7, 0.16), (0.1, 0.9, 0.16)),
)
# fmt: on

FACTS: dict[str, Facts] = {facts.name: facts for facts in _TABLE}
ALL: tuple[str, ...] = tuple(FACTS)
ELEVEN: tuple[str, ...] = tuple(
    PREFIX + key
    for key in (
        "handle-pull",
        "handle-pull-side",
        "pick-out-of-hole",
        "plate-slide-side",
        "plate-slide",
        "reach-wall",
        "soccer",
        "push-wall",
        "window-close",
        "shelf-place",
        "sweep",
    )
)
"""The eleven of the original runs, in their order; only seven of them hide a goal."""


def canonical(name: str) -> str:
    """`ml1/push-wall` for it and for `ml1/push-wall-v2` or `-v3`; other names as they are."""
    bare = re.sub(r"-v[23]$", "", name)
    return bare if bare in FACTS else name
