"""What is known of ML1's fifty task sets without loading a simulator.

Measured with metaworld 3.1.1: a goal is *hidden* if it cannot be told from the first observation,
*visible* if it can (the goal is a function of where a fixture or an object stands), *fixed* if all
tasks share it. A *solid* goal is a body that robot or object can touch, so dynamics depend on it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Goal = Literal["hidden", "visible", "fixed"]


class TaskSet(NamedTuple):
    """One of the fifty."""

    name: str
    width: int  # numbers of a task: where the object or fixture stands, and of six the goal
    coordinates: int  # of the simulator's position, `qpos`
    goal: Goal
    least_distance: float | None = None  # of object and goal in the plane, in metres
    solid_goal: bool = False


_LEAST = 0.15

_SETS = (
    TaskSet("assembly", 6, 16, "hidden", 0.1, True),
    TaskSet("basketball", 6, 16, "hidden", _LEAST, True),
    TaskSet("bin-picking", 6, 16, "fixed"),
    TaskSet("box-close", 6, 16, "hidden", 0.25, True),
    TaskSet("button-press", 3, 10, "visible"),
    TaskSet("button-press-topdown", 3, 10, "visible"),
    TaskSet("button-press-topdown-wall", 3, 10, "visible"),
    TaskSet("button-press-wall", 3, 10, "visible"),
    TaskSet("coffee-button", 3, 17, "visible"),
    TaskSet("coffee-pull", 6, 17, "hidden", _LEAST),
    TaskSet("coffee-push", 6, 17, "hidden", _LEAST),
    TaskSet("dial-turn", 3, 10, "visible"),
    TaskSet("disassemble", 6, 16, "visible", 0.1),
    TaskSet("door-close", 3, 10, "visible"),
    TaskSet("door-lock", 3, 10, "visible"),
    TaskSet("door-open", 3, 10, "visible"),
    TaskSet("door-unlock", 3, 10, "visible"),
    TaskSet("drawer-close", 3, 10, "visible"),
    TaskSet("drawer-open", 3, 10, "visible"),
    TaskSet("faucet-close", 3, 10, "visible"),
    TaskSet("faucet-open", 3, 10, "visible"),
    TaskSet("hammer", 3, 17, "fixed"),
    TaskSet("hand-insert", 6, 16, "hidden", _LEAST),
    TaskSet("handle-press", 3, 10, "visible"),
    TaskSet("handle-press-side", 3, 10, "visible"),
    TaskSet("handle-pull", 3, 10, "visible"),
    TaskSet("handle-pull-side", 3, 10, "visible"),
    TaskSet("lever-pull", 3, 10, "visible"),
    TaskSet("peg-insert-side", 6, 16, "hidden", 0.1, True),
    TaskSet("peg-unplug-side", 3, 16, "visible"),
    TaskSet("pick-out-of-hole", 6, 16, "hidden", _LEAST),
    TaskSet("pick-place", 6, 16, "hidden", _LEAST),
    TaskSet("pick-place-wall", 6, 16, "hidden", _LEAST),
    TaskSet("plate-slide", 6, 11, "hidden", None, True),
    TaskSet("plate-slide-back", 6, 11, "hidden"),
    TaskSet("plate-slide-back-side", 6, 11, "hidden"),
    TaskSet("plate-slide-side", 6, 11, "hidden"),
    TaskSet("push", 6, 16, "hidden", _LEAST),
    TaskSet("push-back", 6, 16, "hidden", _LEAST),
    TaskSet("push-wall", 6, 16, "hidden", _LEAST),
    TaskSet("reach", 6, 16, "hidden", _LEAST),
    TaskSet("reach-wall", 6, 16, "hidden", _LEAST),
    TaskSet("shelf-place", 6, 16, "hidden", 0.1, True),
    TaskSet("soccer", 6, 16, "hidden", _LEAST, True),
    TaskSet("stick-pull", 6, 18, "hidden", 0.1),
    TaskSet("stick-push", 6, 18, "hidden", 0.1),
    TaskSet("sweep", 3, 16, "visible"),
    TaskSet("sweep-into", 6, 16, "fixed", _LEAST),
    TaskSet("window-close", 3, 10, "visible"),
    TaskSet("window-open", 3, 10, "visible"),
)

FACTS: dict[str, TaskSet] = {one.name: one for one in _SETS}
ALL: tuple[str, ...] = tuple(FACTS)
ELEVEN: tuple[str, ...] = (
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
"""The task sets of the first published runs of this kind, in their order."""
