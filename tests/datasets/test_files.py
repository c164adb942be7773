"""Atomic writes, digests, strict JSON and fail points."""

import errno
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import files
from datasets.errors import DataError, DiskFullError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


def test_a_write_replaces_the_old_file_and_leaves_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "a"
    files.write_atomically(path, b"old")
    files.write_atomically(path, lambda temporary: temporary.write_bytes(b"new"))
    assert path.read_bytes() == b"new"
    assert files.list_files(tmp_path) == ["a"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    files.write_atomically(path, b"old")

    def half(temporary: Path) -> None:
        temporary.write_bytes(b"ne")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        files.write_atomically(path, half)
    assert path.read_bytes() == b"old"
    assert files.list_files(tmp_path) == ["a"]


def test_contents_reach_the_disk_before_the_rename_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = files.fsync_path, Path.replace
    monkeypatch.setattr(files, "fsync_path", lambda p: (steps.append(f"sync {p.name}"), fsync(p)))
    monkeypatch.setattr(Path, "replace", lambda p, to: (steps.append("rename"), replace(p, to)))
    files.write_atomically(tmp_path / "a", b"x")
    temporary = f"{files.TEMPORARY_PREFIX}a-{os.getpid()}"
    assert steps == [f"sync {temporary}", "rename", f"sync {tmp_path.name}"]


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.write_atomically(tmp_path / "none" / "a", b"x")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_path_and_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "a"
    files.write_atomically(path, b"old")

    def full(temporary: Path, data: bytes) -> int:
        raise OSError(number, os.strerror(number), str(temporary))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFullError, match=f"{path}: 5 bytes are needed") as caught:
        files.write_atomically(path, b"12345")
    assert (caught.value.path, caught.value.bytes_needed, caught.value.errno) == (path, 5, number)
    assert path.read_bytes() == b"old"
    assert files.list_files(tmp_path) == ["a"]


def test_another_io_error_stays_what_it_is(tmp_path: Path) -> None:
    def broken(temporary: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error") as caught:
        files.write_atomically(tmp_path / "a", broken)
    assert not isinstance(caught.value, DiskFullError)


def test_a_full_disk_is_recognised_through_causes_text_and_nesting(tmp_path: Path) -> None:
    def wrapped() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("while writing") from error

    def hdf5() -> None:
        raise RuntimeError("Can't close (file write failed: errno = 28, error message = '...')")

    def nested() -> None:
        raise DiskFullError(tmp_path / "inner", 3, errno.ENOSPC)

    for action, name in ((wrapped, "a"), (hdf5, "a"), (nested, "inner")):
        with pytest.raises(DiskFullError) as caught, files.naming_full_disk(tmp_path / "a", 7):
            action()
        assert caught.value.path == tmp_path / name
    with pytest.raises(RuntimeError, match="else"), files.naming_full_disk(tmp_path, 7):
        raise RuntimeError("something else")


def test_sweeping_takes_only_the_named_temporaries(tmp_path: Path) -> None:
    for name in (".tmp-a-1", ".tmp-b-1", "a"):
        (tmp_path / name).touch()
    files.sweep_temporaries(tmp_path, "a")
    assert files.list_files(tmp_path) == [".tmp-b-1", "a"]
    files.sweep_temporaries(tmp_path)
    files.sweep_temporaries(tmp_path / "none")
    assert files.list_files(tmp_path) == ["a"]


def test_the_digest_sees_names_and_contents_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "b").mkdir(parents=True)
    (root / "a").write_bytes(b"1")
    (root / "b" / "c").write_bytes(b"2")
    first = files.digest_tree(root)
    os.utime(root / "a", (1, 1))
    (root / "a").chmod(0o600)
    assert files.digest_tree(root) == first
    assert files.digest_files(root).keys() == {"a", "b/c"}

    changed = []
    (root / "a").write_bytes(b"3")
    changed.append(files.digest_tree(root))
    (root / "a").rename(root / "d")
    changed.append(files.digest_tree(root))
    (root / "e").touch()
    changed.append(files.digest_tree(root))
    (root / "b" / "c").unlink()
    changed.append(files.digest_tree(root))
    assert len({first, *changed}) == 5
    assert files.digest_tree(root, exclude=["e"]) == files.digest_tree(root, exclude={"e", "zz"})
    files.fsync_tree(root)


def test_swapped_contents_change_the_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    first = files.digest_tree(tmp_path)
    (tmp_path / "a").write_bytes(b"2")
    (tmp_path / "b").write_bytes(b"1")
    assert files.digest_tree(tmp_path) != first


def test_links_special_files_and_missing_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        files.digest_tree(tmp_path / "none")
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(DataError, match="link is a link or a special file"):
        files.digest_tree(tmp_path)
    (tmp_path / "link").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe is a link or a special file"):
        files.digest_tree(tmp_path)


@settings(max_examples=100, deadline=None)
@given(value=JSON)
def test_json_comes_back_exactly_and_is_canonical(
    tmp_path_factory: pytest.TempPathFactory, value: Any
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    files.write_json(path, value)
    back = files.read_json(path)
    assert back == value
    assert files.json_bytes(back) == path.read_bytes()


def test_json_does_not_depend_on_the_order_of_keys() -> None:
    assert files.json_bytes({"a": 1, "b": 2}) == files.json_bytes({"b": 2, "a": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, {"a": object()}, "\ud800"])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match="cannot be written as JSON"):
        files.json_bytes(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b"[-Infinity]", "-Infinity is not a JSON number"),
        (b'{"a": 1, "a": 2}', "key 'a' stands 2 times"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_bad_json_is_refused_by_name(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(DataError, match=message) as caught:
        files.read_json(path)
    assert str(path) in str(caught.value)


def test_missing_json_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json is missing"):
        files.read_json(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("wanted", "hits"), [("point", 0), ("point:1", 0), ("point:3", 2), ("other", 5), ("", 5)]
)
def test_a_fail_point_kills_at_the_hit_asked_for(wanted: str, hits: int) -> None:
    script = (
        "from datasets.files import fail_point\n"
        "for i in range(5):\n    fail_point('point')\n    print(i, flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "OMRL_FAIL": wanted},
        capture_output=True,
        check=False,
    )
    assert len(done.stdout.split()) == hits
    assert done.returncode == (0 if hits == 5 else -signal.SIGKILL)


def test_a_fail_point_sends_sigkill_to_itself_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *call: sent.append(call))
    monkeypatch.setattr(files, "_hits", Counter())
    monkeypatch.setenv("OMRL_FAIL", "point:2")
    for _ in range(3):
        files.fail_point("other")
        files.fail_point("point")
    assert sent == [(os.getpid(), signal.SIGKILL)]
