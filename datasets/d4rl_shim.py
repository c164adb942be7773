"""The one place that imports D4RL, for whoever compares with it; omrl itself needs none of it.

D4RL's package, last released in 2021, imports every simulator it knows. Without them it prints
warnings, which `D4RL_SUPPRESS_IMPORT_ERROR` silences. Where the package mujoco_py is installed but
MuJoCo 2.1 is not, mujoco_py raises a bare `Exception` that D4RL does not catch; a `None` in
`sys.modules` makes it the `ImportError` that D4RL does. What works then: its loaders
(`sequence_dataset`, `qlearning_dataset`, `OfflineEnv.get_dataset`) and its reference scores
(`d4rl.infos`). Its MuJoCo environments do not.
"""

import importlib
import os
import sys
from types import ModuleType

from datasets.errors import DataError


def load_d4rl() -> ModuleType:
    """The package `d4rl`.

    Raises:
        DataError: it is not installed; says how to.
    """
    os.environ.setdefault("D4RL_SUPPRESS_IMPORT_ERROR", "1")
    sys.modules.setdefault("mujoco_py", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module("d4rl")
    except ImportError as error:
        raise DataError(
            "D4RL is not installed; `pip install --no-deps d4rl==1.1 && pip install gym==0.26.2` "
            "is enough for its loaders"
        ) from error
