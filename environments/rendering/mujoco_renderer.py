"""Off-screen pictures of MuJoCo models through EGL or OSMesa, whichever this machine has.

MuJoCo reads MUJOCO_GL when it is imported, so `require_gl` comes before that. Shadows and
reflections are off: on a CPU they take two thirds of the time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from environments.errors import TaskError
from environments.rendering.base import Frame

_TRIAL = (
    "import mujoco; m = mujoco.MjModel.from_xml_string('<mujoco/>'); "
    "r = mujoco.Renderer(m, 8, 8); r.update_scene(mujoco.MjData(m)); r.render()"
)
UPSIDE_DOWN = frozenset({"corner2"})  # a camera of Meta-World


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
    """Set MUJOCO_GL to what works; call it before mujoco is imported.

    Raises:
        TaskError: neither EGL nor OSMesa draws here.
    """
    found = working_gl()
    if found is None:
        raise TaskError(
            "this domain is drawn by MuJoCo, which needs EGL or OSMesa, and neither works here: "
            "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri libosmesa6"
        )
    os.environ["MUJOCO_GL"] = found


class MujocoFrames:
    """Draws an MjModel at given positions; `data` is scratch, the simulator's own stays as it is.

    `camera` is a camera's name, or None for MuJoCo's free one. The model has to have a free
    camera's extent that shows everything; `size` is both height and width in pixels.
    """

    def __init__(self, model: Any, size: int, camera: str | None = None) -> None:
        require_gl()
        import mujoco

        names = [model.camera(index).name for index in range(model.ncam)]
        if camera is not None and camera not in names:
            known = ", ".join(names) or "none"
            raise TaskError(f"there is no camera {camera!r}; this model has: {known}")
        model.vis.global_.offwidth = max(size, model.vis.global_.offwidth)
        model.vis.global_.offheight = max(size, model.vis.global_.offheight)
        self._forward = mujoco.mj_forward
        self._model, self._data = model, mujoco.MjData(model)
        self._camera: str | int = -1 if camera is None else camera
        self._flip = camera in UPSIDE_DOWN
        self._renderer = mujoco.Renderer(model, size, size)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = 0

    def frame(self, state: NDArray[np.float64]) -> Frame:
        """The picture at positions qpos (nq,)."""
        self._data.qpos[:] = state
        self._forward(self._model, self._data)
        self._renderer.update_scene(self._data, self._camera)
        picture: Frame = self._renderer.render()
        return picture[::-1].copy() if self._flip else picture

    def close(self) -> None:
        """Free the graphics context."""
        self._renderer.close()
