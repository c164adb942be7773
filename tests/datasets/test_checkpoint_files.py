"""Safetensors files with a verified note, and the pair of checkpoints."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from datasets.checkpoints import CheckpointFile, load_tensors, save_tensors
from datasets.errors import DataError, DiskFullError
from datasets.files import list_files

ARRAYS = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
    hnp.arrays(
        st.sampled_from([np.bool_, np.int64, np.uint8, np.float16, np.float32, np.float64]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
    ),
    max_size=4,
)
META = st.dictionaries(
    st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@settings(max_examples=50, deadline=None)
@given(arrays=ARRAYS, meta=META)
def test_arrays_and_note_come_back_and_bytes_repeat(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray], meta: Any
) -> None:
    folder = tmp_path_factory.mktemp("tensors")
    save_tensors(folder / "a", arrays, meta)
    save_tensors(folder / "b", dict(reversed(arrays.items())), dict(reversed(meta.items())))
    found, note = load_tensors(folder / "a")
    assert_same(found, arrays)
    assert note == meta
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()


def test_layout_in_memory_does_not_matter(tmp_path: Path) -> None:
    array = np.arange(6.0).reshape(2, 3)
    for name, same in (("c", array), ("f", np.asfortranarray(array)), ("big", array.astype(">f8"))):
        save_tensors(tmp_path / name, {"x": same}, None)
        found = load_tensors(tmp_path / name)[0]["x"]
        np.testing.assert_array_equal(found, array)
        found += 1  # writable: torch.from_numpy warns otherwise


@pytest.mark.parametrize(
    "array", [np.array([None, {}]), np.array(["a"]), np.zeros(2, complex), np.zeros(2, "M8[s]")]
)
def test_objects_and_other_types_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(DataError, match="array 'x' has dtype"):
        save_tensors(tmp_path / "a", {"x": array}, None)
    assert not list_files(tmp_path)


def test_a_note_that_is_not_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="JSON"):
        save_tensors(tmp_path / "a", {}, {"loss": float("nan")})


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a is missing"):
        load_tensors(tmp_path / "a")
    save_file({"x": np.zeros(3)}, tmp_path / "foreign")
    for name in ("null", "[]", '{"meta": 1}', '{"meta": 1, "sha256": "0"}'):
        save_file({"x": np.zeros(3)}, tmp_path / name[:1], {"omrl": name})
        with pytest.raises(DataError, match="damaged"):
            load_tensors(tmp_path / name[:1])
    with pytest.raises(DataError, match="not an omrl file"):
        load_tensors(tmp_path / "foreign")


def test_a_flipped_bit_in_any_byte_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_tensors(path, {"x": np.arange(5.0), "y": np.ones((2, 2), bool)}, {"step": 3})
    whole = path.read_bytes()
    silent = []
    for byte in range(len(whole)):
        damaged = bytearray(whole)
        damaged[byte] ^= 1 << byte % 8
        path.write_bytes(damaged)
        try:
            load_tensors(path)
        except DataError:
            continue
        silent.append(byte)
    assert silent == []


def test_every_truncation_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_tensors(path, {"x": np.arange(5.0)}, {"step": 3})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            load_tensors(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(DataError):
        load_tensors(path)


def test_the_newest_checkpoint_wins_and_the_one_before_stays(tmp_path: Path) -> None:
    checkpoint = CheckpointFile(tmp_path / "run" / "vae.safetensors")
    assert checkpoint.load() is None
    for step in range(3):
        checkpoint.save({"w": np.full(2, step)}, {"step": step})
    newest, before = checkpoint.load(), load_tensors(checkpoint.previous)
    assert newest is not None
    assert (newest[1], before[1]) == ({"step": 2}, {"step": 1})
    checkpoint.remove()
    assert checkpoint.load() is None
    assert not list_files(tmp_path)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "c"
    checkpoint = CheckpointFile(path)
    for step in range(2):
        checkpoint.save({}, step)
    path.write_bytes(path.read_bytes()[:-3])
    fresh = CheckpointFile(path)
    assert fresh.load() == ({}, 0)
    fresh.save({}, 2)  # the damaged file must not push out the good one
    assert load_tensors(fresh.previous)[1] == 0
    assert fresh.load() == ({}, 2)


def test_both_damaged_is_as_if_there_were_none(tmp_path: Path) -> None:
    checkpoint = CheckpointFile(tmp_path / "c")
    for step in range(2):
        checkpoint.save({}, step)
    checkpoint.path.write_bytes(b"")
    checkpoint.previous.write_bytes(b"x")
    assert checkpoint.load() is None


def test_another_object_verifies_before_it_trusts(tmp_path: Path) -> None:
    CheckpointFile(tmp_path / "c").save({}, 0)
    CheckpointFile(tmp_path / "c").save({}, 1)
    assert load_tensors(tmp_path / "c.previous")[1] == 0


@pytest.mark.parametrize("limit", [10, 1000, 4000])
def test_a_full_disk_keeps_the_checkpoint(tmp_path: Path, disk_limit: Any, limit: int) -> None:
    checkpoint = CheckpointFile(tmp_path / "c")
    checkpoint.save({"x": np.zeros(1)}, 0)
    with disk_limit(limit), pytest.raises(DiskFullError, match="8000 bytes are needed") as caught:
        checkpoint.save({"x": np.zeros(1000)}, 1)
    assert str(tmp_path) in str(caught.value)
    kept = checkpoint.load()
    assert kept is not None
    assert kept[1] == 0
    assert list_files(tmp_path) == ["c"]
