"""Off-screen pictures of MuJoCo models through EGL or OSMesa, whichever this machine has.

MuJoCo reads MUJOCO_GL when it is imported, so `require_gl` comes before that. Shadows and
reflections are off: on a CPU they take two thirds of the time.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from environments.errors import TaskError
from environments.rendering.base import Frame

_TRIAL = (
    "import mujoco; m = mujoco.MjModel.from_xml_string('<mujoco/>'); "
    "r = mujoco.Renderer(m, 8, 8); r.update_scene(mujoco.MjData(m)); r.render()"
)
MARK_COLOUR, MARK_RADIUS = (0.1, 0.75, 0.25, 0.75), 0.025


class View(NamedTuple):
    """A camera that stands still, by what it looks at; angles in degrees, distances in metres."""

    target: tuple[float, float, float]
    azimuth: float  # of the line of sight; 90: along y
    elevation: float  # -90: from above
    distance: float


@cache
def working_gl() -> str | None:
    """`egl` or `osmesa`, the first that draws in a process of its own; None where neither does."""
    chosen = os.environ.get("MUJOCO_GL")
    for name in [chosen] if chosen else ["egl", "osmesa"]:
        environment = {**os.environ, "MUJOCO_GL": name}
        command = [sys.executable, "-c", _TRIAL]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, timeout=60)
        except subprocess.TimeoutExpired:
            continue
        if done.returncode == 0:
            return name
    return None


def require_gl() -> None:
    """Set MUJOCO_GL to what works; best called before mujoco is imported.

    Raises:
        TaskError: neither EGL nor OSMesa draws here.
    """
    found = working_gl()
    if found is None:
        raise TaskError(
            "this domain is drawn by MuJoCo, which needs EGL or OSMesa, and neither works here: "
            "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri libosmesa6"
        )
    chosen = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = found
    contexts = sys.modules.get("mujoco.gl_context")
    if contexts is not None and chosen != found:
        importlib.reload(contexts)  # imported earlier, it has chosen a window system


class MujocoFrames:
    """Draws an MjModel at given positions; `data` is scratch, the simulator's own stays as it is.

    `camera` is a view, the name of one of the model's cameras, or None for MuJoCo's free one. A
    green ball stands at `mark` (3,), and sites are then not drawn. `size` is both height and width
    in pixels.
    """

    def __init__(
        self,
        model: Any,
        size: int,
        camera: str | View | None = None,
        mark: NDArray[np.float64] | None = None,
    ) -> None:
        require_gl()
        import mujoco

        names = [model.camera(index).name for index in range(model.ncam)]
        if isinstance(camera, str) and camera not in names:
            known = ", ".join(names) or "none"
            raise TaskError(f"there is no camera {camera!r}; this model has: {known}")
        model.vis.global_.offwidth = max(size, model.vis.global_.offwidth)
        model.vis.global_.offheight = max(size, model.vis.global_.offheight)
        self._mujoco, self._mark = mujoco, mark
        self._model, self._data = model, mujoco.MjData(model)
        self._camera = _free_camera(mujoco, camera) if isinstance(camera, View) else camera
        self._options = mujoco.MjvOption()
        if mark is not None:
            self._options.sitegroup[:] = 0
        self._renderer = mujoco.Renderer(model, size, size)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = 0

    def frame(self, state: NDArray[np.float64]) -> Frame:
        """The picture at positions qpos (nq,)."""
        self._data.qpos[:] = state
        self._mujoco.mj_forward(self._model, self._data)
        camera = -1 if self._camera is None else self._camera
        self._renderer.update_scene(self._data, camera, self._options)
        if self._mark is not None:
            self._draw_mark(self._mark)
        picture: Frame = self._renderer.render()
        return picture

    def _draw_mark(self, place: NDArray[np.float64]) -> None:
        scene = self._renderer.scene
        if scene.ngeom == scene.maxgeom:
            return
        ball, size = self._mujoco.mjtGeom.mjGEOM_SPHERE, np.full(3, MARK_RADIUS)
        colour = np.array(MARK_COLOUR, np.float32)
        geom = scene.geoms[scene.ngeom]
        self._mujoco.mjv_initGeom(geom, ball, size, place, np.eye(3).ravel(), colour)
        scene.ngeom += 1

    def close(self) -> None:
        """Free the graphics context."""
        self._renderer.close()


def _free_camera(mujoco: Any, view: View) -> Any:
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat[:] = view.target
    camera.azimuth, camera.elevation = view.azimuth, view.elevation
    camera.distance = view.distance
    return camera
