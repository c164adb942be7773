"""Files that are either whole or absent: atomic writes, digests, JSON, and points to fail at.

Every write goes to a temporary name in the same folder, is flushed to the disk and then renamed,
so that a reader sees the old file, the new one, or none. Temporaries start with ``.tmp-``.
"""

import errno
import hashlib
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from datasets.errors import DataError, DiskFullError

TEMPORARY_PREFIX = ".tmp-"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_hits: Counter[str] = Counter()


def fail_point(name: str) -> None:
    """Kill this process (SIGKILL) here if the environment asks for it: the crash tests' lever.

    ``OMRL_FAIL=<name>`` dies at the first hit of the point, ``OMRL_FAIL=<name>:<n>`` at the n-th.
    """
    wanted = os.environ.get("OMRL_FAIL")
    if not wanted:
        return
    point, _, count = wanted.partition(":")
    if point == name:
        _hits[name] += 1
        if _hits[name] == int(count or 1):
            os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def naming_full_disk(path: Path, bytes_needed: int) -> Iterator[None]:
    """Turn a "no space left" raised inside into a `DiskFullError` that names path and need."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        number = _no_room(error)
        if number is None:
            raise
        raise DiskFullError(path, bytes_needed, number) from error


def _no_room(error: BaseException) -> int | None:
    """The errno of a full disk, quota or file size limit in `error` or what caused it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
            return cause.errno
        for number in _NO_ROOM:  # HDF5 and safetensors report it in their text only
            if f"errno = {number}," in str(cause) or f"(os error {number})" in str(cause):
                return number
        cause = cause.__cause__ or cause.__context__
    return None


def write_atomically(
    path: Path, content: bytes | Callable[[Path], object], bytes_needed: int = 0
) -> None:
    """Write a whole file or nothing: temporary file beside it, fsync, rename, fsync of the folder.

    Args:
        path: the final name; an existing file is replaced only once the new one is on the disk.
        content: the bytes, or a function that writes the file whose path it is given.
        bytes_needed: the size to name if the disk is full (taken from `content` if that is bytes).

    Raises:
        DiskFullError: no room; the old file, if any, is untouched.
        OSError: the folder is missing or cannot be written.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}-{os.getpid()}")
    needed = len(content) if isinstance(content, bytes) else bytes_needed
    try:
        with naming_full_disk(path, needed):
            if isinstance(content, bytes):
                temporary.write_bytes(content)
            else:
                content(temporary)
            fsync_path(temporary)
            fail_point("file-written")
            temporary.replace(path)
            fsync_path(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sweep_temporaries(folder: Path, name: str = "") -> None:
    """Delete what killed writers left of the file `name` (of every file if empty) in `folder`.

    Only for the one writer of that name: another writer's live temporary would go too.
    """
    if folder.is_dir():
        for entry in folder.iterdir():
            if entry.name.startswith(TEMPORARY_PREFIX + name) and entry.is_file():
                entry.unlink(missing_ok=True)


def fsync_path(path: Path) -> None:
    """Force one file's contents, or one folder's list of names, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Force every file below `folder`, then every folder from the leaves up, onto the disk."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            fsync_path(Path(root, name))
        fsync_path(Path(root))


def list_files(folder: Path) -> list[str]:
    """Relative POSIX paths of all files below `folder`, sorted.

    Raises:
        DataError: the folder is missing, or holds a link or another thing that is not a file.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    names: list[str] = []
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    names.append(Path(entry.path).relative_to(folder).as_posix())
                else:
                    raise DataError(
                        f"{entry.path} is a link or a special file; only plain files belong here"
                    )
    return sorted(names)


def digest_file(path: Path) -> str:
    """sha256 of one file's bytes, as 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_files(folder: Path, exclude: Collection[str] = ()) -> dict[str, str]:
    """sha256 of every file below `folder` by relative path, but for the paths in `exclude`.

    Raises:
        DataError: as `list_files`.
    """
    return {name: digest_file(folder / name) for name in list_files(folder) if name not in exclude}


def digest_tree(folder: Path, exclude: Collection[str] = ()) -> str:
    """One sha256 for a folder: relative paths and contents of all its files (see `digest_files`).

    A renamed, added, removed or altered file changes it; times, owners and modes do not.
    """
    return hashlib.sha256(json_bytes(digest_files(folder, exclude))).hexdigest()


def json_bytes(value: Any) -> bytes:
    """Canonical JSON: sorted keys, exact floats, UTF-8, newline at the end. Same value, same bytes.

    Raises:
        DataError: the value holds NaN or Inf, or something that JSON has no word for.
    """
    try:
        text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
        return (text + "\n").encode()
    except (TypeError, ValueError) as error:
        raise DataError(f"cannot be written as JSON: {error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write canonical JSON atomically (see `json_bytes`, `write_atomically`)."""
    write_atomically(path, json_bytes(value))


def read_json(path: Path) -> Any:
    """Read a JSON file strictly: no NaN, no Infinity, no key twice.

    Raises:
        DataError: the file is missing, damaged or not strict JSON; names the file.
    """
    try:
        return json.loads(
            path.read_bytes(),
            parse_constant=_refuse_constant,
            object_pairs_hook=_object_without_duplicates,
        )
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = Counter(key for key, _ in pairs)
    for key, count in keys.items():
        if count > 1:
            raise ValueError(f"key {key!r} stands {count} times")
    return dict(pairs)
