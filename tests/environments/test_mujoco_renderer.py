"""Off-screen drawing of a plain model; skipped where no graphics library draws."""

from __future__ import annotations

import numpy as np
import pytest

from environments.errors import TaskError
from environments.rendering import mujoco_renderer
from environments.rendering.mujoco_renderer import MujocoFrames, require_gl, working_gl

_MODEL = """<mujoco><worldbody><light pos="0 0 3"/><camera name="front" pos="0 -3 0"
xyaxes="1 0 0 0 0 1"/><body><joint type="slide" axis="1 0 0"/><geom size=".3"/></body>
</worldbody></mujoco>"""


def test_without_graphics_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mujoco_renderer, "working_gl", lambda: None)
    with pytest.raises(TaskError, match="apt-get install libegl1"):
        require_gl()


def test_a_model_is_drawn_where_its_positions_say() -> None:
    if working_gl() is None:
        pytest.skip("neither EGL nor OSMesa draws here")
    require_gl()
    import mujoco

    model = mujoco.MjModel.from_xml_string(_MODEL)
    with pytest.raises(TaskError, match="this model has: front"):
        MujocoFrames(model, 64, "back")
    frames = MujocoFrames(model, 64, "front")
    left, right = frames.frame(np.array([-0.8])), frames.frame(np.array([0.8]))
    frames.close()
    assert left.shape == (64, 64, 3)
    assert left[:, :32].sum() > left[:, 32:].sum()
    assert right[:, :32].sum() < right[:, 32:].sum()
