"""Names of the task families, loaded only when asked for."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from environments.errors import TaskError
from environments.metaworld.facts import ALL as ML1
from environments.metaworld.facts import FACTS, canonical

if TYPE_CHECKING:
    from environments.base import Goal, TaskFamily

DOMAINS: dict[str, str] = {
    "gridworld": "environments.gridworld:Gridworld",
    "point_robot": "environments.point_robot:PointRobot",
    "point_robot_sparse": "environments.point_robot_sparse:PointRobotSparse",
    "escape_room": "environments.escape_room:EscapeRoom",
    "point_robot_wind": "environments.point_robot_wind:PointRobotWind",
    "cheetah_vel": "environments.locomotion.cheetah_vel:CheetahVel",
    "ant_semicircle": "environments.locomotion.ant_semicircle:AntSemicircle",
    "ant_semicircle_sparse": "environments.locomotion.ant_semicircle_sparse:AntSemicircleSparse",
    "ant_dir": "environments.locomotion.ant_dir:AntDir",
}


NAMES: tuple[str, ...] = (*DOMAINS, *ML1)

BENCHMARKS: dict[str, tuple[str, ...]] = {"ml1": tuple(name.partition("/")[2] for name in ML1)}
"""Task sets of each benchmark; the domain of one is `benchmark/task-set`, a family of its own."""

_families: dict[str, TaskFamily] = {}  # of ML1, whose expert's returns are kept for a process
_digests: WeakKeyDictionary[ModuleType, str] = WeakKeyDictionary()


def canonical_domain(name: str) -> str:
    """`ml1/push-wall` for its spellings with -v2 and -v3 as well; other names as they are."""
    return canonical(name)


def goal_of(name: str) -> Goal:
    """Whether a benchmark's domain hides its goal, without loading a simulator."""
    return FACTS[canonical_domain(name)].goal


def load_family(name: str) -> TaskFamily:
    """The family of a domain name, or of a user's own `module:Class`.

    A user's module may lie in the working folder. Raises TaskError for an unknown name, naming
    the nearest ones, and for a module or class that does not load as a task family.
    """
    from environments.base import TaskFamily  # here, so that names alone need no numpy

    name = canonical_domain(name)
    if name in FACTS:
        return _ml1(name)
    target = DOMAINS.get(name, name)
    module_name, colon, class_name = target.partition(":")
    if not colon:
        near = difflib.get_close_matches(name, NAMES, n=3, cutoff=0.4)
        hint = (
            f"did you mean {' or '.join(map(repr, near))}?"
            if near
            else f"known: {', '.join(DOMAINS)} and {len(ML1)} like {ML1[0]}"
        )
        raise TaskError(f"unknown domain {name!r}; {hint}")
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


def _ml1(name: str) -> TaskFamily:
    """A Meta-World family, the same one whenever asked for."""
    from environments.metaworld.family import ml1_family

    if name not in _families:
        _families[name] = ml1_family(name)()
    return _families[name]


def load_policy(target: str | None) -> Any:
    """A user's own `module:function`, which may lie in the working folder.

    Raises TaskError where there is none.
    """
    if target is None:
        raise TaskError("collect.behaviour is policy: name yours as collect.policy=module:function")
    module_name, _, function = target.partition(":")
    _allow_working_folder()
    try:
        found = getattr(importlib.import_module(module_name), function)
    except Exception as error:  # a user's module may fail in any way while it is imported
        reason = f"{type(error).__name__}: {error}"
        raise TaskError(f"cannot load the policy {target!r}: {reason}") from error
    if not callable(found):
        raise TaskError(f"{target!r} is not a function of observations, tasks and a generator")
    return found


def policy_source(target: str | None) -> str:
    """Digest of the file that a user's own policy is written in. Raises as `load_policy`."""
    load_policy(target)
    assert target is not None
    return _file_digest(sys.modules[target.partition(":")[0]])


def family_source(name: str) -> str | None:
    """Digest of the file of a user's own `module:Class`; None for a name of ours.

    Where the module only passes on a class of another, that one's file counts too; what else they
    import does not. It stays what it was when first asked for, since a process keeps to the code
    that it has loaded. Raises TaskError as `load_family`.
    """
    if ":" not in name:
        return None
    family = type(load_family(name))
    modules = dict.fromkeys((name.partition(":")[0], family.__module__))
    digests = [_file_digest(sys.modules[module]) for module in modules]
    return digests[0] if len(digests) == 1 else _sha256(" ".join(digests).encode())


def _file_digest(module: ModuleType) -> str:
    """SHA-256 of a loaded module's file; of nothing if it has none, as one made in a session."""
    if module not in _digests:
        path = getattr(module, "__file__", None)
        _digests[module] = _sha256(b"" if path is None else Path(path).read_bytes())
    return _digests[module]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _allow_working_folder() -> None:
    """Let modules of the working folder be imported, after everything that is installed."""
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)
