"""Plain .npy and .npz files, never unpickled."""

import zipfile
from pathlib import Path

import numpy as np

from datasets.errors import DataError
from datasets.flat_hdf5 import AnyArray

_PICKLED = (
    "holds Python objects (a pickle), which can run code when it is opened and is never opened "
    'here; write plain arrays of it once, as docs/data.md shows under "Pickled logs"'
)


def load_array(path: Path) -> AnyArray:
    """The one array of a .npy file: numbers, bool, or a structure of them.

    Raises:
        DataError: missing, damaged, not such a file, or a pickle.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, MemoryError) as error:
        raise _refusal(path, error) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{path} is a .npz file; a single .npy array is needed")
    return _plain(array, str(path))


def load_arrays(path: Path) -> dict[str, AnyArray]:
    """All arrays of a .npz file by name.

    Raises:
        DataError: missing, damaged, not such a file, or holding a pickle.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is not a .npz file")
            return {name: _plain(archive[name], f"{path}: {name}") for name in archive.files}
    except DataError:
        raise
    except (
        ValueError,
        OSError,
        EOFError,
        SyntaxError,
        MemoryError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise _refusal(path, error) from error


def _plain(array: AnyArray, where: str) -> AnyArray:
    kinds = (
        [array.dtype[name].base.kind for name in array.dtype.names]
        if array.dtype.names
        else [array.dtype.kind]
    )
    if any(kind not in "biuf" for kind in kinds):
        raise DataError(f"{where} has dtype {array.dtype}, but numbers or bool are needed")
    return array


def _refusal(path: Path, error: BaseException) -> DataError:
    if isinstance(error, ValueError) and "pickle" in str(error).lower():
        return DataError(f"{path} {_PICKLED}")
    return DataError(f"{path} is damaged or not a NumPy file: {error}")
