"""Flat HDF5 files: what is written, and what a reader will not follow."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from datasets import flat_hdf5
from datasets.errors import DataError, DiskFullError
from datasets.files import list_files
from datasets.flat_hdf5 import open_flat, write_flat

ARRAYS = {
    "a": np.arange(12, dtype=np.float32).reshape(6, 2),
    "b": np.arange(6) % 2 == 0,
    "infos/c": np.arange(6),
}


def read_all(path: Path) -> dict[str, np.ndarray]:
    with open_flat(path) as file:
        return {name: file.read(name) for name in sorted(file.names)}


def test_arrays_and_attributes_come_back(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    write_flat(path, ARRAYS, {"family": "Größe", "n": 3, "x": 0.1, "task": np.array([0.1, 1 / 3])})
    found = read_all(path)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    with open_flat(path) as file:
        assert {k: file.attributes[k] for k in ("family", "n", "x")} == {
            "family": "Größe", "n": 3, "x": 0.1
        }  # fmt: skip
        np.testing.assert_array_equal(file.attributes["task"], [0.1, 1 / 3])
        assert file.shape("a") == (6, 2)
        with pytest.raises(DataError, match=r"no data set 'zz', only \['a', 'b', 'infos/c'\]"):
            file.read("zz")


def test_every_data_set_is_chunked_and_checksummed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flat_hdf5, "CHUNK_BYTES", 16)
    write_flat(tmp_path / "x.h5", ARRAYS, {})
    with h5py.File(tmp_path / "x.h5") as file:
        for name in ARRAYS:
            assert file[name].fletcher32
            assert file[name].compression is None
        assert file["a"].chunks == (2, 2)
        assert file["infos/c"].chunks == (2,)
        assert np.isnan(file["a"].fillvalue)
    assert read_all(tmp_path / "x.h5").keys() == ARRAYS.keys()


def test_equal_data_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("x.h5", "y.h5"):
        write_flat(tmp_path / name, ARRAYS, {"family": "a"})
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "y.h5").read_bytes()


@pytest.mark.parametrize("limit", [0, 100, 5000])
def test_a_full_disk_names_path_and_bytes(tmp_path: Path, disk_limit: Any, limit: int) -> None:
    write_flat(tmp_path / "x.h5", ARRAYS, {})
    before = (tmp_path / "x.h5").read_bytes()
    big = {"a": np.zeros(100_000)}
    with disk_limit(limit), pytest.raises(DiskFullError, match=r"x\.h5: 8\d{5} bytes"):
        write_flat(tmp_path / "x.h5", big, {})
    assert (tmp_path / "x.h5").read_bytes() == before
    assert list_files(tmp_path) == ["x.h5"]


def soft_link(file: h5py.File, outside: Path) -> None:
    file["bad"] = h5py.SoftLink("/a")


def external_link(file: h5py.File, outside: Path) -> None:
    file["bad"] = h5py.ExternalLink(str(outside), "/a")


def hidden_external_link(file: h5py.File, outside: Path) -> None:
    file["infos/bad"] = h5py.ExternalLink(str(outside), "/a")


def virtual(file: h5py.File, outside: Path) -> None:
    layout = h5py.VirtualLayout((6, 2), np.float32)
    layout[:] = h5py.VirtualSource(outside, "a", (6, 2))
    file.create_virtual_dataset("bad", layout)


def external_storage(file: h5py.File, outside: Path) -> None:
    file.create_dataset("bad", (6,), np.uint8, external=[(str(outside), 0, 6)])


def named_type(file: h5py.File, outside: Path) -> None:
    file["bad"] = np.dtype("f8")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (soft_link, "bad is a SoftLink, which is not followed"),
        (external_link, "bad is a ExternalLink, which is not followed"),
        (hidden_external_link, "infos/bad is a ExternalLink, which is not followed"),
        (virtual, "bad is virtual, which is not followed"),
        (external_storage, "bad is stored in external files, which is not followed"),
        (named_type, "bad is a Datatype, not a data set"),
    ],
)
def test_nothing_outside_the_file_is_followed(tmp_path: Path, spoil: Any, message: str) -> None:
    write_flat(tmp_path / "outside.h5", ARRAYS, {})
    path = tmp_path / "x.h5"
    write_flat(path, ARRAYS, {})
    with h5py.File(path, "r+") as file:
        spoil(file, tmp_path / "outside.h5")
    with pytest.raises(DataError, match=message) as caught:
        read_all(path)
    assert str(path) in str(caught.value)


def test_groups_in_a_circle_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("a")
        group["a"] = group
    with pytest.raises(DataError, match="damaged"):
        read_all(path)


@pytest.mark.parametrize(
    "data", [np.array(["text", "more"], object), np.array([b"ab"]), np.zeros(2, "f4,i4")]
)
def test_objects_are_refused(tmp_path: Path, data: np.ndarray) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "a", data=data, dtype=h5py.string_dtype() if data.dtype == object else None
        )
    with pytest.raises(DataError, match=r"a has dtype .* but numbers or bool are needed"):
        read_all(path)


def test_a_chunk_never_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (6, 2), np.float32, chunks=(2, 2))[:4] = 1
    with pytest.raises(DataError, match="a has 2 of 3 chunks"):
        read_all(path)


def test_a_contiguous_data_set_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"] = ARRAYS["a"]
    np.testing.assert_array_equal(read_all(tmp_path / "x.h5")["a"], ARRAYS["a"])


def test_what_is_not_hdf5_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.h5 is missing"):
        read_all(tmp_path / "x.h5")
    (tmp_path / "x.h5").write_bytes(b"no" * 1000)
    with pytest.raises(DataError, match=r"x\.h5 is damaged or not HDF5"):
        read_all(tmp_path / "x.h5")
