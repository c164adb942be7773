"""Named arrays with a JSON note in one safetensors file, verified on reading; and checkpoints.

The header carries one metadata entry (several would be written in random order): the note, and
a sha256 over it and over every array's name, type, shape and bytes. Any damage is a `DataError`.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from datasets.errors import DataError
from datasets.files import (
    fail_point,
    fsync_path,
    json_bytes,
    sweep_temporaries,
    write_atomically,
)

Arrays = dict[str, npt.NDArray[Any]]

_HEADER_KEY = "omrl"


def save_tensors(path: Path, arrays: Mapping[str, npt.NDArray[Any]], meta: Any) -> None:
    """Write arrays and a JSON note atomically; equal input gives equal bytes.

    Args:
        path: the file; replaced only once the new one is whole.
        arrays: any shapes (zero-dimensional too) of bool, integer or float type.
        meta: whatever JSON can hold, without NaN.

    Raises:
        DataError: an array of objects or another type that safetensors has no word for.
        DiskFullError: no room; an earlier file is untouched.
    """
    plain = {name: _plain(name, array) for name, array in arrays.items()}
    note = {"meta": meta, "sha256": _digest(plain, meta)}
    header = {_HEADER_KEY: json_bytes(note).decode()}
    size = sum(array.nbytes for array in plain.values())
    write_atomically(path, lambda temporary: save_file(plain, temporary, header), size)


def load_tensors(path: Path) -> tuple[Arrays, Any]:
    """Read what `save_tensors` wrote: (arrays by name, note). The arrays are writable.

    Raises:
        DataError: the file is missing, truncated, altered or not one of ours.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing")
    try:
        with safe_open(path, framework="numpy") as stream:
            note = json.loads((stream.metadata() or {})[_HEADER_KEY])
            arrays = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        meta, digest = note["meta"], note["sha256"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged or not an omrl file: {error!r}") from error
    if digest != _digest(arrays, meta):
        raise DataError(f"{path} is damaged: its contents do not match their sha256")
    return arrays, meta


def _plain(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """C-ordered and little-endian; refuses types that would need pickling."""
    if array.dtype.kind not in "biuf":
        raise DataError(f"array {name!r} has dtype {array.dtype}; bool, integer or float is needed")
    return np.require(array, array.dtype.newbyteorder("<"), "C")


def _digest(arrays: Mapping[str, npt.NDArray[Any]], meta: Any) -> str:
    digest = hashlib.sha256(json_bytes(meta))
    for name, array in sorted(arrays.items()):
        digest.update(json_bytes([name, array.dtype.str, list(array.shape)]))
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class CheckpointFile:
    """The newest checkpoint of a long stage, with the one before it kept as ``<name>.previous``.

    Whatever the moment of a crash, one of the two is whole; a damaged one is never returned.
    """

    def __init__(self, path: Path) -> None:
        """Names the file; nothing is read or written yet."""
        self.path = path
        self.previous = path.with_name(path.name + ".previous")
        self._next = path.with_name(path.name + ".next")  # whole, but not yet the newest
        self._known_good = False  # whether self.path was verified or written by this object

    def save(self, arrays: Mapping[str, npt.NDArray[Any]], meta: Any) -> None:
        """Make this the newest checkpoint; the one before stays beside it.

        Raises:
            DataError, DiskFullError: as `save_tensors`; the newest checkpoint is as before.
        """
        fail_point("checkpoint-before")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(self._next, arrays, meta)
        fail_point("checkpoint-written")
        if self._known_good or self._read(self.path) is not None:
            self.path.replace(self.previous)
            fail_point("checkpoint-moved")
        self._next.replace(self.path)
        fsync_path(self.path.parent)
        self._known_good = True
        fail_point("checkpoint-renamed")

    def load(self) -> tuple[Arrays, Any] | None:
        """The newest whole checkpoint (arrays, note), or None; sweeps a killed writer's rest."""
        self._sweep()
        newest = self._read(self.path)
        self._known_good = newest is not None
        return newest if newest is not None else self._read(self.previous)

    def remove(self) -> None:
        """Delete both, once what they were for is finished."""
        self.path.unlink(missing_ok=True)
        self.previous.unlink(missing_ok=True)
        self._sweep()
        self._known_good = False

    def _sweep(self) -> None:
        self._next.unlink(missing_ok=True)
        sweep_temporaries(self.path.parent, self.path.name)

    @staticmethod
    def _read(path: Path) -> tuple[Arrays, Any] | None:
        try:
            return load_tensors(path)
        except DataError:
            return None
