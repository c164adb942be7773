"""Pictures of an ML1 task: Meta-World's own meshes, seen by cameras that show the table's middle.

Drawing has an engine of its own, since the one that steps moves its fixtures from task to task.
Meta-World's marks of goals are left out: its resets move some of them and forget others. A green
ball stands where the task's goal is instead.
"""

from __future__ import annotations

from environments.base import Float64
from environments.errors import TaskError
from environments.metaworld.facts import Facts
from environments.rendering.mujoco_renderer import MujocoFrames, View, require_gl

VIEWS = {
    "corner": View((0.0, 0.68, 0.1), 145.0, -30.0, 1.2),
    "front": View((0.0, 0.65, 0.15), 270.0, -25.0, 1.2),
    "top": View((0.0, 0.65, 0.0), 90.0, -89.9, 1.4),
}


def scene_of(facts: Facts, task: Float64, size: int, camera: str | None) -> MujocoFrames:
    """Draws qpos (nq,) of a task (task,).

    Raises:
        TaskError: there is no such camera, or no graphics library.
    """
    if camera is not None and camera not in VIEWS:
        raise TaskError(f"{facts.name} has no camera {camera!r}; it has: {', '.join(VIEWS)}")
    require_gl()
    from environments.metaworld.engine import Engine

    engine = Engine(facts)
    layout = engine.layout(task)
    engine.enter(layout)
    return MujocoFrames(engine.model, size, VIEWS[camera or "corner"], layout.target)
