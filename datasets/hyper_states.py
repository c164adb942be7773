"""The Zarr v3 store of hyper-states: one writer, verified reads, nothing missing, nothing moved.

Zarr itself reads a missing chunk as fill values and cannot tell two chunks swapped. So every chunk
carries a CRC-32C (the last codec: its last four bytes), `close` puts all of them into the group's
attributes together with a sha256 of each array's metadata and of the attributes themselves, and a
reader compares. No shards, one chunk (1 task, many trials) written once, fill value NaN.
"""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import zarr
from zarr.buffer.cpu import NDBuffer
from zarr.codecs import BloscCodec, Crc32cCodec

from datasets.checks import check_actions, check_array, check_finite
from datasets.errors import DataError
from datasets.files import (
    digest_file,
    fail_point,
    json_bytes,
    list_files,
    naming_full_disk,
    read_json,
)
from datasets.hyper_state_layout import FILL, FieldLayout, HyperStateLayout

AnyArray = npt.NDArray[Any]

FORMAT_VERSION = 1
METADATA = "zarr.json"
_GROUP = {"zarr_format": 3, "node_type": "group"}  # a group's metadata but for its attributes


class HyperStateWriter:
    """Writes a new store, each task once, in any order; it is readable only after `close`.

    As a context manager it closes itself unless an exception passes through.
    """

    def __init__(self, path: Path, layout: HyperStateLayout) -> None:
        """Create the empty arrays.

        Raises:
            DataError: the path exists already.
            DiskFullError: no room.
        """
        if path.exists():
            raise DataError(f"{path} exists already; hyper-states are written into a new folder")
        self.path = path
        self.layout = layout
        self._written: set[int] = set()
        self._arrays: dict[str, zarr.Array[Any]] = {}
        with naming_full_disk(path, layout.nbytes(layout.fields())):
            zarr.create_group(path, zarr_format=3)
            for name, field in layout.fields().items():
                self._arrays[name] = _create_array(path, name, field)

    def write_task(self, task: int, arrays: Mapping[str, AnyArray]) -> None:
        """Write all fields of one task.

        Args:
            task: index of the task, not written before.
            arrays: every field of the layout by name, without its task axis.

        Raises:
            DataError: fields missing, wrong shape or type, NaN or Inf, actions out of bounds;
                names task, trial and step.
            DiskFullError: no room.
        """
        if task in self._written or not 0 <= task < self.layout.tasks:
            raise DataError(
                f"task {task} is written already or is not one of the {self.layout.tasks} tasks"
            )
        if arrays.keys() != self._arrays.keys():
            raise DataError(
                f"task {task}: fields {sorted(arrays)}, but {sorted(self._arrays)} are needed"
            )
        _check(self.layout, arrays, f"task {task}")
        fail_point("hyper-states-before")
        with naming_full_disk(self.path, self.layout.nbytes(self._arrays)):
            for name, array in arrays.items():
                self._arrays[name][task] = array
                fail_point("hyper-states-field")
        self._written.add(task)

    def close(self) -> None:
        """Check that every chunk is on the disk and seal the store.

        Raises:
            DataError: a task was not written, or a chunk is missing.
            DiskFullError: no room.
        """
        absent = sorted(set(range(self.layout.tasks)) - self._written)
        if absent:
            raise DataError(f"{self.path}: tasks {absent} were not written")
        checksums = {name: self._checksums(name) for name in self._arrays}
        attributes: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "layout": self.layout.to_json(),
            "checksums": checksums,
            "metadata": {name: digest_file(self.path / name / METADATA) for name in checksums},
        }
        fail_point("hyper-states-close")
        with naming_full_disk(self.path, len(json_bytes(attributes))):
            zarr.open_group(self.path, mode="r+").attrs.put(
                {**attributes, "sha256": _self_digest(attributes)}
            )

    def _checksums(self, name: str) -> list[list[str]]:
        """The chunks' CRC-32C as 8 hex digits, [task][block]."""
        array, field = self._arrays[name], self.layout.field(name)
        if array.nchunks_initialized != array.nchunks:
            raise DataError(
                f"{self.path}: {name} has {array.nchunks_initialized} of {array.nchunks} chunks"
            )
        return [
            [_trailer(self.path / name / field.chunk_key(task, b)) for b in range(field.blocks)]
            for task in range(self.layout.tasks)
        ]

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close, unless an exception passes through."""
        if kind is None:
            self.close()


class HyperStates:
    """A sealed store, open for reading; made by `HyperStates.open`."""

    def __init__(
        self, path: Path, layout: HyperStateLayout, checksums: Mapping[str, list[list[str]]]
    ) -> None:
        """Holds what `open` verified."""
        self.path = path
        self.layout = layout
        self._checksums = checksums

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open and verify everything but the chunks' contents, which every read verifies.

        Raises:
            DataError: missing, not sealed, altered metadata, or chunks missing or too many.
        """
        attributes = dict(_read_attributes(path))
        digest = attributes.pop("sha256", None)
        if attributes.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{path} has format_version {attributes.get('format_version')!r} "
                f"(None: it was never finished); {FORMAT_VERSION} is needed"
            )
        if digest != _self_digest(attributes):
            raise DataError(f"{path}: the attributes do not match their sha256")
        layout = HyperStateLayout.from_json(attributes["layout"])
        _check_files(path, layout)
        for name, expected in attributes["metadata"].items():
            if digest_file(path / name / METADATA) != expected:
                raise DataError(f"{path / name / METADATA} does not match its sha256")
        return cls(path, layout, attributes["checksums"])

    @property
    def names(self) -> list[str]:
        """All fields."""
        return list(self.layout.fields())

    def read(self, names: Collection[str], task: int) -> dict[str, AnyArray]:
        """Fields of one task, without the task axis; the arrays are new and writable.

        Raises:
            DataError: no such field or task; a chunk damaged, missing or moved; contents that
                `write_task` refuses.
        """
        if not 0 <= task < self.layout.tasks:
            raise DataError(f"task {task} is not one of the {self.layout.tasks} tasks")
        arrays = self._read(names, range(task, task + 1))
        return {name: array[0] for name, array in arrays.items()}

    def load(
        self, names: Collection[str] | None = None, budget_bytes: int | None = None
    ) -> dict[str, AnyArray]:
        """Fields of all tasks in memory, task axis first; a few chunks more at the peak.

        Args:
            names: fields, all if None.
            budget_bytes: refuse to take more memory than this; None: no limit.

        Raises:
            DataError: more than the budget, naming both; or as `read`.
        """
        names = self.names if names is None else names
        needed = self.layout.nbytes(names)
        if budget_bytes is not None and needed > budget_bytes:
            raise DataError(
                f"{self.path}: {', '.join(names)} need {needed} bytes in memory, more than "
                f"budget_bytes = {budget_bytes}; raise the budget or collect fewer trials"
            )
        return self._read(names, range(self.layout.tasks))

    def _read(self, names: Collection[str], tasks: range) -> dict[str, AnyArray]:
        """Fields of successive tasks, task axis first, verified."""
        arrays = {name: self._read_field(name, tasks) for name in names}
        for index, task in enumerate(tasks):
            fields = {name: array[index] for name, array in arrays.items()}
            _check(self.layout, fields, f"{self.path}: task {task}")
        return arrays

    def _read_field(self, name: str, tasks: range) -> AnyArray:
        field = self.layout.field(name)
        for task in tasks:
            for block, expected in enumerate(self._checksums[name][task]):
                chunk = self.path / name / field.chunk_key(task, block)
                if _trailer(chunk) != expected:
                    raise DataError(f"{chunk} is damaged, or another chunk's file")
        try:
            # One request for all chunks: Zarr decodes several at a time, in place.
            array = zarr.open_array(self.path / name, mode="r", zarr_format=3)
            out = np.empty((len(tasks), *field.shape[1:]), field.dtype)
            selection = (slice(tasks.start, tasks.stop), *(slice(None) for _ in field.shape[1:]))
            array.get_basic_selection(selection, out=NDBuffer.from_numpy_array(out))
        except (ValueError, RuntimeError, OSError, TypeError, KeyError) as error:
            if len(tasks) > 1:
                for task in tasks:  # say which one
                    self._read_field(name, range(task, task + 1))
            raise DataError(
                f"{self.path}: {name} of task {tasks[0]} is damaged: {error}"
            ) from error
        return out


def _create_array(path: Path, name: str, field: FieldLayout) -> "zarr.Array[Any]":
    return zarr.create_array(
        path,
        name=name,
        shape=field.shape,
        dtype=field.dtype,
        chunks=field.chunk,
        compressors=[BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"), Crc32cCodec()],
        fill_value=FILL[field.dtype.kind],
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=field.axes,
        config={"write_empty_chunks": True},
    )


def _check(layout: HyperStateLayout, arrays: Mapping[str, AnyArray], where: str) -> None:
    for name, array in arrays.items():
        field = layout.field(name)
        check_array(array, field.shape[1:], str(field.dtype), f"{where}: {name}")
        noun = name.removesuffix("s").replace("_", " ")
        check_finite(array, where, noun, None if name.endswith("beliefs") else layout.horizon)
        if name == "actions":
            check_actions(array, where, layout.n_actions)


def _check_files(path: Path, layout: HyperStateLayout) -> None:
    """The files below the store are exactly those that the layout calls for."""
    wanted = {METADATA}
    for name, field in layout.fields().items():
        wanted.add(f"{name}/{METADATA}")
        wanted.update(
            f"{name}/{field.chunk_key(task, block)}"
            for task in range(layout.tasks)
            for block in range(field.blocks)
        )
    found = set(list_files(path))
    if found != wanted:
        raise DataError(
            f"{path} lacks {sorted(wanted - found)[:3]} ({len(wanted - found)} files) "
            f"and has unknown {sorted(found - wanted)[:3]} ({len(found - wanted)} files)"
        )


def _read_attributes(path: Path) -> dict[str, Any]:
    group = read_json(path / METADATA)
    attributes = group.get("attributes") if isinstance(group, dict) else None
    if not isinstance(attributes, dict) or group != {"attributes": attributes, **_GROUP}:
        raise DataError(f"{path / METADATA} is damaged or not a Zarr v3 group's")
    return attributes


def _self_digest(attributes: Mapping[str, Any]) -> str:
    return hashlib.sha256(json_bytes(attributes)).hexdigest()


def _trailer(chunk: Path) -> str:
    """The CRC-32C that ends a chunk's file, as 8 hex digits.

    Raises:
        DataError: the file is missing or too short to hold one.
    """
    try:
        with chunk.open("rb") as stream:
            stream.seek(-4, 2)
            return stream.read(4).hex()
    except OSError as error:
        raise DataError(f"{chunk} is missing or truncated: {error}") from error
