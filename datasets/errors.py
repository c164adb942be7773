"""What the datasets room refuses, and how it says so."""

from pathlib import Path


class DataError(ValueError):
    """Data on disk or in memory that breaks its contract: what, where, and what would be right."""


class DiskFullError(OSError):
    """A write that the file system had no room for.

    Attributes:
        path: the file or folder that could not be written; nothing readable was left there.
        bytes_needed: how much the write needed, in bytes.
    """

    def __init__(self, path: Path, bytes_needed: int, errno: int) -> None:
        self.path = path
        self.bytes_needed = bytes_needed
        super().__init__(
            errno,
            f"no room to write {path}: {bytes_needed} bytes are needed; "
            "free that much (or choose another folder) and run again, "
            "earlier files are untouched",
        )

    def __str__(self) -> str:
        return str(self.args[1])
