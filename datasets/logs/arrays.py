"""Plain .npy and .npz files, never unpickled."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from datasets.errors import DataError
from datasets.flat_hdf5 import AnyArray

_PICKLED = (
    "holds Python objects (a pickle), which can run code when it is opened and is never opened "
    'here; write plain arrays of it once, as docs/data.md shows under "Pickled logs"'
)

_DAMAGED = (
    *(ValueError, OSError, EOFError, SyntaxError, MemoryError),
    *(TypeError, AttributeError, KeyError, NotImplementedError, RuntimeError),
)
"""What NumPy and zipfile raise at bytes that are not theirs."""


def load_array(path: Path) -> AnyArray:
    """The one array of a .npy file: numbers, bool, or a structure of them.

    Raises:
        DataError: missing, damaged, not such a file, or a pickle.
    """
    with _opened(path) as found:
        if not isinstance(found, np.ndarray):
            raise DataError(f"{path} is a .npz file; a single .npy array is needed")
        return _plain(found, str(path))


def load_arrays(path: Path) -> dict[str, AnyArray]:
    """All arrays of a .npz file by name.

    Raises:
        DataError: missing, damaged, not such a file, or holding a pickle.
    """
    with _opened(path) as found:
        if isinstance(found, np.ndarray):
            raise DataError(f"{path} is not a .npz file")
        return {name: _plain(found[name], f"{path}: {name}") for name in found.files}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """What NumPy makes of a file; whatever it stumbles over inside the block is a `DataError`."""
    if not path.is_file():
        raise DataError(f"{path} is missing")
    try:
        found = np.load(path, allow_pickle=False)
        with found if not isinstance(found, np.ndarray) else nullcontext():
            yield found
    except DataError:
        raise
    except (*_DAMAGED, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, ValueError) and "pickle" in str(error).lower():
            raise DataError(f"{path} {_PICKLED}") from error
        raise DataError(f"{path} is damaged or not a NumPy file: {error}") from error


def _plain(array: AnyArray, where: str) -> AnyArray:
    names = array.dtype.names
    kinds = [array.dtype[name].base.kind for name in names] if names else [array.dtype.kind]
    if any(kind not in "biuf" for kind in kinds):
        raise DataError(f"{where} has dtype {array.dtype}, but numbers or bool are needed")
    return array
