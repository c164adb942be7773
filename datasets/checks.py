"""Checks that every array passes on its way to and from the disk; messages name trial and step.

Finiteness and bounds are read off the minimum and maximum (NaN survives both), which allocates
nothing; only data that fails is searched for the first offender.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from datasets.errors import DataError

AnyArray = npt.NDArray[Any]


def check_array(array: AnyArray, shape: tuple[int | None, ...], dtypes: str, what: str) -> None:
    """Refuse another type, or another shape than `shape`, where None stands for any length >= 1.

    Args:
        dtypes: the types allowed, e.g. "float32 or int64".
        what: subject of the message, e.g. "task 3: actions".

    Raises:
        DataError: names both shapes, or both types.
    """
    if not isinstance(array, np.ndarray):
        raise DataError(f"{what} is a {type(array).__name__}; a numpy array is needed")
    if array.dtype.hasobject or str(array.dtype) not in dtypes.split(" or "):
        raise DataError(f"{what} of dtype {array.dtype}, but {dtypes} is needed")
    fits = array.ndim == len(shape) and all(
        length == wanted or (wanted is None and length > 0)
        for length, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits:
        named = ", ".join("any" if wanted is None else str(wanted) for wanted in shape)
        raise DataError(f"{what} of shape {array.shape}, but ({named}) is needed")


def check_finite(array: AnyArray, where: str, noun: str, horizon: int | None = None) -> None:
    """Refuse NaN and Inf in a float array; other types pass.

    Args:
        array: not empty; (trials, K, H or H+1, ...), or (trials, T+1, ...) if `horizon` is None.
        where: e.g. "task 3".
        noun: one element's name, e.g. "reward".
        horizon: H.

    Raises:
        DataError: e.g. "task 3, trial 17, step 42: reward is NaN".
    """
    if array.dtype.kind != "f":
        return
    if np.isfinite(array.min()) and np.isfinite(array.max()):
        return
    index = _first(~np.isfinite(array))
    value = "NaN" if np.isnan(array[index]) else f"{array[index]:+}".replace("inf", "Inf")
    raise DataError(f"{position(index, where, horizon)}: {noun} is {value}")


def check_actions(actions: AnyArray, where: str, n_actions: int | None = None) -> None:
    """Refuse actions out of bounds: [-1, 1] if continuous, 0 .. n_actions - 1 if discrete.

    Args:
        actions: (trials, K, H, act) f4 or int64, finite and not empty.
        where: e.g. "task 3".
        n_actions: None if continuous; discrete actions are then only checked to be >= 0.

    Raises:
        DataError: names trial, step, value and bounds; or the type that does not fit.
    """
    discrete = actions.dtype.kind == "i"
    if n_actions is not None and not discrete:
        raise DataError(f"{where}: actions are {actions.dtype}; n_actions {n_actions} needs int64")
    low: float = 0 if discrete else -1
    high: float = 1
    if discrete:
        high = np.inf if n_actions is None else n_actions - 1
    if low <= actions.min() and actions.max() <= high:
        return
    index = _first((actions < low) | (actions > high))
    raise DataError(
        f"{position(index, where, actions.shape[2])}: action is {actions[index]!s}, "
        f"outside [{low}, {high}]"
    )


def position(index: tuple[int, ...], where: str, horizon: int | None) -> str:
    """Where an element lies, in words: "task 3, trial 17, step 42"; step = k*H + h.

    A final observation (h = H) is "after" its episode's last step; without a horizon the second
    axis counts the beliefs of a trial.
    """
    if horizon is None:
        return f"{where}, trial {index[0]}, belief {index[1]}"
    episode, step = index[1], index[2]
    after = "" if step < horizon else "after "
    return f"{where}, trial {index[0]}, {after}step {episode * horizon + min(step, horizon - 1)}"


def _first(mask: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    """Index of the first True, in C order."""
    return tuple(int(i) for i in np.unravel_index(int(mask.argmax()), mask.shape))
