"""Updates as CUDA graphs: hundreds of small kernels launched at once, and no result waited for.

A graph repeats the kernels of one call on the same memory. So inputs are copied into buffers of its
own, results lie where they lay the first time, and whatever changes from call to call has to be a
tensor: a number that Python computes is repeated for ever. Where Python takes one of several ways,
the caller says which by a `phase`; each phase, and each set of shapes, has a graph of its own.

The first calls run as they are, since libraries choose and prepare their kernels then. They are
real calls: what they learn counts, and recording a graph executes nothing. Random numbers come from
the generators' states, which a replay advances as a call does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor

Inputs = TypeVar("Inputs", bound=tuple[Any, ...])
Result = TypeVar("Result")

_FIRST_CALLS = 3  # that run as they are; autograd and cuDNN prepare in the first, cuBLAS by then
_MOST_GRAPHS = 8  # each keeps its memory: inputs of ever new shapes run as they are


class Graphs(Protocol):
    """What records and replays work on a device."""

    @property
    def device(self) -> torch.device:
        """Where inputs have to lie."""

    def run(self, work: Callable[[], Result]) -> Result:
        """Do the work now, in a way that what it prepares serves `record` too."""

    def record(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Record the work without doing it; the result does it, and returns the same tensors."""


class CudaGraphs:
    """CUDA's graphs, on a stream of their own."""

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator]) -> None:
        """Record on `device`; `generators` are all that the work draws from."""
        self.device = device
        self._generators = generators
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def run(self, work: Callable[[], Result]) -> Result:
        """Do the work now, on the stream that will record: cuBLAS has workspaces for each."""
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = work()
        current.wait_stream(self._stream)
        return result

    def record(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Record the work without doing it; the result does it, and returns the same tensors."""
        with torch.cuda.device(self.device):
            graph = torch.cuda.CUDAGraph()
            for generator in self._generators:
                graph.register_generator_state(generator)
            with torch.cuda.graph(graph, stream=self._stream):
                result = work()

        def replay() -> Result:
            graph.replay()
            return result

        return replay


def graphs_on(
    device: torch.device | str, generators: Sequence[torch.Generator]
) -> CudaGraphs | None:
    """Graphs on a CUDA device; None on others, which have none."""
    place = torch.device(device)
    return CudaGraphs(place, generators) if place.type == "cuda" else None


def placed(inputs: Inputs, device: torch.device | str) -> Inputs:
    """The same nested tuples with every tensor on `device`."""
    tensors = iter([tensor.to(device) for tensor in _tensors(inputs)])
    return cast(Inputs, _with_tensors(inputs, tensors))


class Captured(Generic[Inputs, Result]):
    """A function of tensors that is recorded once and replayed.

    What it returns is valid until the next call: a replay writes where the one before has written.
    Without graphs it is the function itself.
    """

    def __init__(self, function: Callable[[Inputs], Result], graphs: Graphs | None) -> None:
        """Prepare nothing yet.

        Args:
            function: of a tuple of tensors, which may hold None and tuples again. Reads and writes
                other tensors in place alone; does nothing but tensor operations that wait for no
                result.
            graphs: what records; None calls the function.
        """
        self._function, self._graphs = function, graphs
        self._recordings: dict[Hashable, _Recording[Inputs, Result]] = {}

    def __call__(self, inputs: Inputs, phase: Hashable = None) -> Result:
        """The function of `inputs`, on any device; `phase` says which way it takes in Python."""
        if self._graphs is None:
            return self._function(inputs)
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in _tensors(inputs))
        key = (phase, shapes)
        recording = self._recordings.get(key)
        if recording is None:
            recording = _Recording(self._function, self._graphs, inputs)
            if len(self._recordings) < _MOST_GRAPHS:
                self._recordings[key] = recording
        return recording(inputs)


class _Recording(Generic[Inputs, Result]):
    """One graph, and the buffers that it reads."""

    def __init__(
        self, function: Callable[[Inputs], Result], graphs: Graphs, inputs: Inputs
    ) -> None:
        buffers = iter([torch.empty_like(t, device=graphs.device) for t in _tensors(inputs)])
        self._buffers = cast(Inputs, _with_tensors(inputs, buffers))
        self._graphs = graphs
        self._work = lambda: function(self._buffers)
        self._calls = 0
        self._replay: Callable[[], Result] | None = None

    def __call__(self, inputs: Inputs) -> Result:
        for buffer, tensor in zip(_tensors(self._buffers), _tensors(inputs), strict=True):
            # from pinned memory, which torch keeps until it is read, the host need not wait
            pinned = tensor.pin_memory() if buffer.device != tensor.device else tensor
            buffer.copy_(pinned, non_blocking=True)
        self._calls += 1
        if self._calls <= _FIRST_CALLS:
            return self._graphs.run(self._work)
        if self._replay is None:
            self._replay = self._graphs.record(self._work)
        return self._replay()


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _tensors(part)


def _with_tensors(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The same nested tuples with those tensors in place of their own."""
    if isinstance(value, Tensor):
        return next(tensors)
    if not isinstance(value, tuple):
        return value
    parts = [_with_tensors(part, tensors) for part in value]
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
