"""What every simulator asks of the actions that it is given."""

from __future__ import annotations

import numpy as np

from environments.base import Actions, Spec
from environments.errors import TaskError


def check_actions(spec: Spec, actions: Actions, count: int) -> None:
    """Raise TaskError unless actions are (count, act), of the right kind and in range."""
    name, n_actions = spec.name, spec.n_actions
    expected = (count, spec.action_dim)
    if actions.shape != expected:
        raise TaskError(f"{name}: actions have shape {actions.shape}, expected {expected}")
    kind = np.floating if n_actions is None else np.integer
    if not np.issubdtype(actions.dtype, kind):
        raise TaskError(f"{name}: actions are {actions.dtype}, expected {kind.__name__}")
    low, high = (-1, 1) if n_actions is None else (0, n_actions - 1)
    # Written so that NaN, which compares false, is refused as well.
    if not (actions.min() >= low and actions.max() <= high):
        row = np.flatnonzero(~((actions >= low) & (actions <= high)).all(axis=1))[0]
        raise TaskError(
            f"{name}: the action of environment {row} is {actions[row]}, "
            f"expected values in [{low}, {high}]"
        )
