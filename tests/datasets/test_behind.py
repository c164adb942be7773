"""Calls behind the caller: in order, one at a time, and nothing that goes wrong is lost."""

from __future__ import annotations

import threading

import pytest

from datasets.behind import Behind


def test_calls_are_made_in_order_on_another_thread() -> None:
    made: list[tuple[int, str]] = []

    def note(number: int, *, by: str) -> None:
        made.append((number, by + threading.current_thread().name[:6]))

    with Behind() as behind:
        for number in range(5):
            behind.call(note, number, by="the ")
    assert made == [(number, "the behind") for number in range(5)]


def test_the_caller_goes_on_meanwhile() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert may_end.wait(10)

    with Behind() as behind:
        behind.call(work)
        assert begun.wait(10)
        may_end.set()


def test_the_next_call_raises_what_the_one_before_did() -> None:
    made: list[int] = []
    with Behind() as behind:
        behind.call(int, "one")
        with pytest.raises(ValueError, match="one"):
            behind.call(made.append, 1)
        behind.call(made.append, 2)
    assert made == [2]


def test_the_end_raises_what_the_last_call_did() -> None:
    with pytest.raises(ValueError, match="one"), Behind() as behind:
        behind.call(int, "one")


def test_another_exception_passes_once_the_call_is_done() -> None:
    made: list[int] = []

    def work(word: str) -> None:
        with Behind() as behind:
            behind.call(lambda: made.append(int(word)))
            raise KeyError("mine")

    for word in ("1", "one"):
        with pytest.raises(KeyError, match="mine"):
            work(word)
    assert made == [1]
