"""Names of the task families, loaded only when asked for."""

from __future__ import annotations

import difflib
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from environments.errors import TaskError

if TYPE_CHECKING:
    from environments.base import TaskFamily

DOMAINS: dict[str, str] = {
    "gridworld": "environments.gridworld:Gridworld",
    "point_robot": "environments.point_robot:PointRobot",
    "point_robot_sparse": "environments.point_robot_sparse:PointRobotSparse",
    "escape_room": "environments.escape_room:EscapeRoom",
    "point_robot_wind": "environments.point_robot_wind:PointRobotWind",
}


def load_family(name: str) -> TaskFamily:
    """The family of a domain name, or of a user's own `module:Class`.

    A user's module may lie in the working folder. Raises TaskError for an unknown name, naming
    the nearest ones, and for a module or class that does not load as a task family.
    """
    from environments.base import TaskFamily  # here, so that names alone need no numpy

    target = DOMAINS.get(name, name)
    module_name, colon, class_name = target.partition(":")
    if not colon:
        near = difflib.get_close_matches(name, DOMAINS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(DOMAINS)}"
        raise TaskError(f"unknown domain {name!r}: {hint}")
    if name not in DOMAINS:
        _allow_working_folder()
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # a user's module may fail in any way while it is imported
        reason = f"{type(error).__name__}: {error}"
        raise TaskError(f"cannot load the task family {target!r}: {reason}") from error
    if not (isinstance(found, type) and issubclass(found, TaskFamily)):
        raise TaskError(f"{target!r} is not a subclass of environments.base.TaskFamily")
    try:
        return found()
    except Exception as error:  # abstract methods left out, or a constructor with arguments
        raise TaskError(f"cannot construct {target!r} without arguments: {error}") from error


def _allow_working_folder() -> None:
    """Let modules of the working folder be imported, after everything that is installed."""
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)
