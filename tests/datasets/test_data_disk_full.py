"""A disk without room, made by the kernel: a limit on file sizes, and a real small tmpfs."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.checkpoints import CheckpointFile, load_tensors, save_tensors
from datasets.errors import DataError, DiskFullError
from datasets.files import digest_tree, list_files, write_json
from datasets.hyper_state_layout import HyperStateLayout
from datasets.hyper_states import HyperStates, HyperStateWriter
from datasets.trial_store import missing_tasks, read_trials, write_meta, write_trials


@pytest.mark.parametrize("limit", [0, 1000, 10_000])
def test_trials_name_the_file_and_leave_the_others(
    tmp_path: Path, make_trials: Any, make_meta: Any, disk_limit: Any, limit: int
) -> None:
    trials = make_trials(count=100)
    meta = make_meta(trials)
    write_meta(tmp_path, meta)
    write_trials(tmp_path, meta, 0, trials)
    before = digest_tree(tmp_path)
    with disk_limit(limit), pytest.raises(DiskFullError, match=r"task-0001\.h5: \d+ bytes are"):
        write_trials(tmp_path, meta, 1, trials)
    assert digest_tree(tmp_path) == before
    assert missing_tasks(tmp_path, meta) == [1, 2]
    write_trials(tmp_path, meta, 1, trials)
    read_trials(tmp_path, 1)


@pytest.mark.parametrize("limit", [0, 300])
def test_a_store_cannot_even_begin(
    tmp_path: Path, small_layout: HyperStateLayout, disk_limit: Any, limit: int
) -> None:
    with disk_limit(limit), pytest.raises(DiskFullError, match=r"x\.zarr: \d+ bytes are needed"):
        HyperStateWriter(tmp_path / "x.zarr", small_layout)


def test_a_store_full_in_the_middle_or_at_the_end_stays_unsealed(
    tmp_path: Path, make_fields: Any, disk_limit: Any
) -> None:
    layout = HyperStateLayout(2, 50, 2, 20, 5, 2, 4)
    need = layout.nbytes(layout.fields())
    path = tmp_path / "x.zarr"
    writer = HyperStateWriter(path, layout)
    writer.write_task(0, make_fields(layout))
    message = rf"x\.zarr: {need} bytes are needed"
    with disk_limit(2000), pytest.raises(DiskFullError, match=message):
        writer.write_task(1, make_fields(layout))
    writer.write_task(1, make_fields(layout))  # room again: the same task once more
    with disk_limit(100), pytest.raises(DiskFullError, match=r"x\.zarr: \d+ bytes"):
        writer.close()
    with pytest.raises(DataError):
        HyperStates.open(path)
    writer.close()
    HyperStates.open(path).load()


def test_json_names_the_file(tmp_path: Path, disk_limit: Any) -> None:
    write_json(tmp_path / "a.json", 1)
    with disk_limit(3), pytest.raises(DiskFullError, match=r"a\.json: \d+ bytes are needed"):
        write_json(tmp_path / "a.json", "much longer")
    assert list_files(tmp_path) == ["a.json"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_on_a_really_full_disk_everything_earlier_stays(
    tiny_disk: Path, make_trials: Any, make_meta: Any, make_fields: Any
) -> None:
    trials = make_trials(count=1000)
    meta = make_meta(trials)
    write_trials(tiny_disk, meta, 0, trials)
    save_tensors(tiny_disk / "small", {"x": np.zeros(10)}, None)
    checkpoint = CheckpointFile(tiny_disk / "c")
    checkpoint.save({}, 1)
    before = digest_tree(tiny_disk)
    with pytest.raises(DiskFullError, match=r"task-0001\.h5"):
        write_trials(tiny_disk, meta, 1, make_trials(count=5000))
    with pytest.raises(DiskFullError, match="small: 2000000 bytes"):
        save_tensors(tiny_disk / "small", {"x": np.zeros(250_000)}, None)
    with pytest.raises(DiskFullError):
        checkpoint.save({"x": np.zeros(250_000)}, 2)
    assert digest_tree(tiny_disk) == before
    layout = HyperStateLayout(2, 1000, 2, 20, 5, 2, 4)
    writer = HyperStateWriter(tiny_disk / "x.zarr", layout)
    with pytest.raises(DiskFullError, match=r"x\.zarr"):
        writer.write_task(0, make_fields(layout))
    assert checkpoint.load() == ({}, 1)
    assert load_tensors(tiny_disk / "small")[1] is None
    read_trials(tiny_disk, 0, meta)
