"""Whatever happens to stored bytes is detected on reading, or at the latest by the digest.

A bit flipped in a stored number must be refused by the reader itself. A flip elsewhere (padding
that no reader looks at) may leave the data as they were, but never silently change them, and always
changes `digest_tree`.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from datasets.errors import DataError
from datasets.files import digest_tree, list_files, read_json, write_json
from datasets.hyper_state_layout import HyperStateLayout
from datasets.hyper_states import HyperStates
from datasets.trial_store import read_trials, task_path, write_meta, write_trials

Arrays = dict[str, np.ndarray]
Reader = Callable[[], Arrays]
FLIPS = 200
LAYOUT = HyperStateLayout(2, 4, 2, 3, 2, 1, 2)


def same(found: Arrays, wanted: Arrays) -> bool:
    return found.keys() == wanted.keys() and all(
        np.array_equal(found[name], wanted[name]) for name in wanted
    )


def outcome(read: Reader, wanted: Arrays) -> str:
    try:
        return "unchanged" if same(read(), wanted) else "silent"
    except DataError:
        return "detected"


def flip(whole: bytes, bit: int) -> bytes:
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


@pytest.fixture
def trial_folder(tmp_path: Path, make_trials: Any, make_meta: Any) -> tuple[Path, Reader]:
    folder = tmp_path / "trials"
    folder.mkdir()
    trials = make_trials(count=10, horizon=10, infos=True)
    write_meta(folder, make_meta(trials, tasks=1))
    write_trials(folder, make_meta(trials, tasks=1), 0, trials)
    return folder, lambda: read_trials(folder, 0).arrays


@pytest.fixture
def store(tmp_path: Path, make_store: Any) -> tuple[Path, Reader]:
    path = make_store(tmp_path / "x.zarr", LAYOUT)
    return path, lambda: HyperStates.open(path).load()


def stored_bits(path: Path) -> np.ndarray:
    """Every bit of an HDF5 file that lies in a chunk of data."""
    spans = []
    with h5py.File(path) as file:
        for name in ("observations", "actions", "rewards", "terminals", "infos/qpos"):
            for number in range(file[name].id.get_num_chunks()):
                chunk = file[name].id.get_chunk_info(number)
                spans.append(np.arange(8 * chunk.byte_offset, 8 * (chunk.byte_offset + chunk.size)))
    return np.concatenate(spans)


def test_every_flip_in_a_stored_trial_is_refused(trial_folder: tuple[Path, Reader]) -> None:
    folder, read = trial_folder
    path, wanted = task_path(folder, 0), read()
    whole = path.read_bytes()
    results = []
    for bit in np.random.default_rng(0).choice(stored_bits(path), FLIPS, replace=False):
        path.write_bytes(flip(whole, int(bit)))
        results.append(outcome(read, wanted))
    assert results == ["detected"] * FLIPS


def test_no_flip_in_a_folder_of_trials_is_silent(trial_folder: tuple[Path, Reader]) -> None:
    folder, read = trial_folder
    wanted, digest = read(), digest_tree(folder)
    rng = np.random.default_rng(0)
    for name in list_files(folder):
        whole = (folder / name).read_bytes()
        for bit in rng.choice(8 * len(whole), min(FLIPS, 8 * len(whole)), replace=False):
            (folder / name).write_bytes(flip(whole, int(bit)))
            if name.endswith(".h5"):
                assert outcome(read, wanted) != "silent", (name, bit)
            assert digest_tree(folder) != digest
        (folder / name).write_bytes(whole)
    assert digest_tree(folder) == digest


def test_every_flip_in_a_hyper_state_store_is_refused(store: tuple[Path, Reader]) -> None:
    path, read = store
    wanted = read()
    rng = np.random.default_rng(0)
    names = list_files(path)
    for name in names:
        whole = (path / name).read_bytes()
        flips = max(8, FLIPS // len(names))
        for bit in rng.choice(8 * len(whole), flips, replace=False):
            (path / name).write_bytes(flip(whole, int(bit)))
            assert outcome(read, wanted) == "detected", (name, bit)
        (path / name).write_bytes(whole)
    assert outcome(read, wanted) == "unchanged"


def test_every_truncation_is_refused(
    trial_folder: tuple[Path, Reader], store: tuple[Path, Reader]
) -> None:
    rng = np.random.default_rng(0)
    for folder, read in (trial_folder, store):
        names = list_files(folder)
        wanted = read()
        for name in names:
            whole = (folder / name).read_bytes()
            lengths = rng.choice(len(whole), min(len(whole), 100 // len(names)), replace=False)
            for length in {0, len(whole) - 1, *lengths.tolist()}:
                if name == "tasks.json" and length == len(whole) - 1:
                    continue  # the newline at the end
                (folder / name).write_bytes(whole[:length])
                assert outcome(read, wanted) == "detected", (name, length)
            (folder / name).write_bytes(whole)


def test_every_missing_file_is_refused(store: tuple[Path, Reader]) -> None:
    path, read = store
    for name in list_files(path):
        (path / name).rename(path.parent / "away")
        with pytest.raises(DataError, match=r"lacks|missing"):
            read()
        (path.parent / "away").rename(path / name)


@pytest.mark.parametrize("extra", ["beliefs/c.2.0.0.0", "beliefs/c.0.1.0.0", "goal", "beliefs/x/y"])
def test_an_extra_file_is_refused(store: tuple[Path, Reader], extra: str) -> None:
    path, read = store
    (path / extra).parent.mkdir(exist_ok=True)
    shutil.copy(path / "beliefs/c.0.0.0.0", path / extra)
    with pytest.raises(DataError, match=rf"has unknown \['{extra}'\]"):
        read()


def test_a_damaged_chunk_is_named_among_many(store: tuple[Path, Reader]) -> None:
    path, read = store
    chunk = path / "rewards/c.1.0.0.0"
    chunk.write_bytes(flip(chunk.read_bytes(), 40))
    with pytest.raises(DataError, match="rewards of task 1 is damaged: Stored and computed"):
        read()


def test_swapped_chunks_are_refused(store: tuple[Path, Reader]) -> None:
    path, read = store
    first, second = path / "rewards/c.0.0.0.0", path / "rewards/c.1.0.0.0"
    first.rename(path.parent / "away")
    second.rename(first)
    (path.parent / "away").rename(second)
    with pytest.raises(DataError, match=r"rewards/c\.0\.0\.0\.0 is damaged, or another chunk's"):
        read()


def test_a_chunk_of_another_store_is_refused(
    store: tuple[Path, Reader], tmp_path: Path, make_store: Any
) -> None:
    path, read = store
    other = make_store(tmp_path / "other.zarr", LAYOUT, seed=7)
    shutil.copy(other / "beliefs/c.1.0.0.0", path / "beliefs/c.1.0.0.0")
    with pytest.raises(DataError, match="another chunk's file"):
        read()
    HyperStates.open(path).read(["beliefs"], 0)  # other tasks stay readable


def test_edited_array_metadata_are_refused(store: tuple[Path, Reader]) -> None:
    path, read = store
    metadata = read_json(path / "rewards/zarr.json")
    write_json(path / "rewards/zarr.json", metadata | {"fill_value": 0.0})
    with pytest.raises(DataError, match=r"rewards/zarr\.json does not match its sha256"):
        read()


def test_a_link_to_a_chunk_is_refused(store: tuple[Path, Reader]) -> None:
    path, read = store
    chunk = path / "rewards/c.0.0.0.0"
    chunk.rename(path.parent / "away")
    chunk.symlink_to(path.parent / "away")
    with pytest.raises(DataError, match="is a link or a special file"):
        read()


def test_a_chunk_too_short_for_its_checksum_is_refused(store: tuple[Path, Reader]) -> None:
    path, _ = store
    opened = HyperStates.open(path)
    (path / "rewards/c.0.0.0.0").write_bytes(b"abc")
    with pytest.raises(DataError, match="missing or truncated"):
        opened.read(["rewards"], 0)
