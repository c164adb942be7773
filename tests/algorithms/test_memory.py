"""Freed memory stays in the process where the C library agrees."""

from __future__ import annotations

import platform

import pytest

from algorithms.memory import give_freed_memory_back, keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_glibc_agrees() -> None:
    try:
        assert keep_freed_memory()
    finally:
        give_freed_memory_back()


def test_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not keep_freed_memory()
    give_freed_memory_back()
