"""Filming a Meta-World task; skipped where no graphics library draws."""

from __future__ import annotations

import numpy as np
import pytest

from environments.errors import TaskError
from environments.metaworld.scene import VIEWS
from environments.registry import load_family
from environments.rendering.mujoco_renderer import working_gl


def test_an_unknown_camera_is_refused() -> None:
    family = load_family("ml1/reach")
    with pytest.raises(TaskError, match="it has: corner, front, top"):
        family.frame_source(family.sample_tasks(1, np.random.default_rng(0))[0], 64, "corner2")


def test_drawing_leaves_the_steps_as_they_are() -> None:
    """A scene of another task is open and drawn between the steps of this one."""
    if working_gl() is None:
        pytest.skip("neither EGL nor OSMesa draws here")
    family = load_family("ml1/plate-slide")
    rng = np.random.default_rng(0)
    tasks = family.sample_tasks(2, rng)
    actions = family.random_actions((5, 1), rng)
    runs = []
    for filmed in (False, True):
        source = family.frame_source(tasks[1], 96, "top") if filmed else None
        simulator = family.simulator(tasks[:1])
        seen = [simulator.reset(rng)]
        for action in actions:
            if source is not None:
                state = simulator.render_state()
                assert state is not None
                assert state.shape == (1, family.facts.nq)  # type: ignore[attr-defined]
                assert source.frame(state[0]).std() > 10
            seen.append(simulator.step(action).observations)
        runs.append(np.stack(seen))
        if source is not None:
            source.close()
    assert (runs[0] == runs[1]).all()


def test_the_goal_stands_where_the_task_has_it() -> None:
    """From above, more of y is higher in the picture, and more of x further right."""
    if working_gl() is None:
        pytest.skip("neither EGL nor OSMesa draws here")
    family = load_family("ml1/reach")
    task = family.sample_tasks(1, np.random.default_rng(0))[0]
    state = family.simulator(task[None])
    state.reset(np.random.default_rng(0))
    places = []
    for x, y in ((-0.09, 0.9), (0.09, 0.81)):
        task[3:] = x, y, 0.06
        source = family.frame_source(task, 160, "top")
        assert source is not None
        positions = state.render_state()
        assert positions is not None
        picture = source.frame(positions[0]).astype(int)
        source.close()
        green = picture[..., 1] - picture[..., [0, 2]].max(-1) > 60
        places.append(np.argwhere(green).mean(0))
    assert places[0][0] < places[1][0]
    assert places[0][1] < places[1][1]
    assert set(VIEWS) == {"corner", "front", "top"}
