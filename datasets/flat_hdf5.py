"""Arrays of equal length in one HDF5 file under flat names, as D4RL lays them out.

Written: contiguous chunks of about 1 MB, each with a Fletcher-32 checksum, in the 1.10 file format,
whose metadata carries checksums too; no times, so equal arrays give equal bytes. The image is built
in memory and written in one go: HDF5 only warns when the disk fills up while it closes a data set.

Read: plain data sets only. External links, soft links, external storage and virtual data sets could
point outside the file and are refused, and so are object types and chunks that were never written.
"""

from collections.abc import Iterable, Iterator, KeysView, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from datasets.errors import DataError
from datasets.files import write_atomically

AnyArray = npt.NDArray[Any]

CHUNK_BYTES = 1 << 20
_FORMAT = ("v110", "v110")  # the oldest format whose chunk index is checksummed


def write_flat(path: Path, arrays: Mapping[str, AnyArray], attributes: Mapping[str, Any]) -> None:
    """Write arrays (rows, ...) as data sets, ``group/name`` allowed, and the file's attributes.

    Args:
        path: the file, written atomically.
        arrays: bool, integer or float arrays with the same number of rows, at least one.
        attributes: numbers, strings (stored as fixed-length UTF-8) or numeric arrays.

    Raises:
        DiskFullError: no room; an earlier file is untouched.
    """
    write_atomically(path, _image(arrays, attributes))


def _image(arrays: Mapping[str, AnyArray], attributes: Mapping[str, Any]) -> bytes:
    with h5py.File(
        "in memory", "w", driver="core", backing_store=False, block_size=1 << 23, libver=_FORMAT
    ) as file:
        for name, value in attributes.items():
            file.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value
        for name, array in arrays.items():
            row_bytes = array.itemsize * int(np.prod(array.shape[1:]))
            rows = min(len(array), max(1, CHUNK_BYTES // row_bytes))
            file.create_dataset(
                name,
                data=array,
                chunks=(rows, *array.shape[1:]),
                fletcher32=True,
                fillvalue=np.nan if array.dtype.kind == "f" else None,
                track_times=False,
            )
        file.flush()
        image: bytes = file.id.get_file_image()
        return image


class FlatFile:
    """An open file, its data sets by name (``group/name``) and its attributes."""

    def __init__(self, path: Path, file: h5py.File, groups: Iterable[str] | None = None) -> None:
        """Lists the data sets; see `open_flat`."""
        self.path = path
        self.attributes: dict[str, Any] = {name: _plain(v) for name, v in file.attrs.items()}
        self._file = file
        self._datasets = dict(_plain_datasets(path, file, "", groups))

    @property
    def names(self) -> KeysView[str]:
        """Names of all data sets."""
        return self._datasets.keys()

    def attributes_of(self, group: str) -> dict[str, Any]:
        """The attributes of one of the groups that `names` lead through."""
        return {name: _plain(value) for name, value in self._file[group].attrs.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a data set, without reading it."""
        return tuple(self._dataset(name).shape)

    def read(self, name: str) -> AnyArray:
        """A whole data set, checksums verified.

        Raises:
            DataError: no such data set, one of objects, or one with chunks missing.
        """
        dataset = self._dataset(name)
        if dataset.dtype.kind not in "biuf":
            raise DataError(
                f"{self.path}: {name} has dtype {dataset.dtype}, but numbers or bool are needed"
            )
        if dataset.chunks is not None:
            whole = int(
                np.prod([-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)])
            )
            stored = dataset.id.get_num_chunks()
            if stored != whole:
                raise DataError(f"{self.path}: {name} has {stored} of {whole} chunks")
        array: AnyArray = dataset[()]
        return array

    def _dataset(self, name: str) -> h5py.Dataset:
        if name not in self._datasets:
            raise DataError(f"{self.path} has no data set {name!r}, only {sorted(self.names)}")
        return self._datasets[name]


@contextmanager
def open_flat(path: Path, groups: Iterable[str] | None = None) -> Iterator[FlatFile]:
    """Open for reading; whatever HDF5 finds damaged inside the block is a `DataError`.

    Args:
        path: the file.
        groups: what to look at of what lies at the top; all if None.

    Raises:
        DataError: missing, truncated, damaged, not HDF5, or holding links out of the file.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing")
    try:
        with h5py.File(path, "r") as file:
            yield FlatFile(path, file, groups)
    except DataError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise DataError(f"{path} is damaged or not HDF5: {error}") from error


def _plain_datasets(
    path: Path, group: h5py.Group, prefix: str, keys: Iterable[str] | None = None
) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every data set below `group`, refusing whatever could lie outside the file."""
    for key in group if keys is None else keys:
        name = prefix + key
        link = group.get(key, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise DataError(f"{path}: {name} is a {type(link).__name__}, which is not followed")
        item = group[key]
        if isinstance(item, h5py.Group):
            yield from _plain_datasets(path, item, name + "/")
        elif not isinstance(item, h5py.Dataset):
            raise DataError(f"{path}: {name} is a {type(item).__name__}, not a data set")
        elif item.is_virtual or item.external:
            kind = "virtual" if item.is_virtual else "stored in external files"
            raise DataError(f"{path}: {name} is {kind}, which is not followed")
        else:
            yield name, item


def _plain(value: Any) -> Any:
    """An attribute as a Python value or array; text decoded."""
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value
