"""Calls on a thread of their own, one at a time: what is written while the next is made."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, ParamSpec, Self

P = ParamSpec("P")


class Behind:
    """A thread that makes one call at a time; as a context manager it has ended afterwards."""

    def __init__(self) -> None:
        """Nothing to do yet."""
        self._thread = ThreadPoolExecutor(1, "behind")
        self._pending: Future[Any] | None = None

    def call(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Have this called once the call before is done, whose exception is raised here."""
        self.wait()
        self._pending = self._thread.submit(function, *args, **kwargs)

    def wait(self) -> None:
        """Until the last call is done; raises its exception."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait; an exception of the last call is raised unless another passes through."""
        self._thread.shutdown()
        if kind is None:
            self.wait()
