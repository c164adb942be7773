"""What compiled loops share: which tensors they are for, how they round, what a thread does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Float32 = NDArray[np.float32]

FAST = {"contract", "nsz"}  # fused multiply-adds; sums keep their order
LOOSE = FAST | {"reassoc"}  # sums in as many parts as a vector has lanes


def takes(tensor: Tensor) -> bool:
    """Whether compiled loops are for such a tensor: float32 in the memory of a CPU."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


_reserved: list[int] = []


@contextmanager
def torch_resting(rests: bool = True) -> Iterator[None]:
    """All of torch's threads for compiled loops: torch itself has one inside, if it `rests`.

    Between its operations torch's threads wait busily, for milliseconds, on the cores that the
    threads of loops need. Worth it where nearly all work is done by loops.
    """
    threads = torch.get_num_threads()
    if threads == 1 or not rests:
        yield
        return
    _reserved.append(threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(_reserved.pop())


def spread(kernel: Any, jobs: int, arrays: tuple[Any, ...], rows: int = 1) -> None:
    """Run kernel(first, last, *arrays) over all jobs, in as many parts as there are threads.

    A part is whole blocks of `rows` jobs.
    """
    blocks = -(-jobs // rows)
    threads = _reserved[-1] if _reserved else torch.get_num_threads()
    parts = min(threads, blocks)
    if parts <= 1:
        kernel(0, jobs, *arrays)
        return
    edges = [min(jobs, blocks * part // parts * rows) for part in range(parts + 1)]
    spans = list(pairwise(edges))
    others = [_pool().submit(kernel, first, last, *arrays) for first, last in spans[1:]]
    kernel(*spans[0], *arrays)
    for other in others:
        other.result()


def summed_blocks(parts: Sequence[Float32]) -> list[Float32]:
    """The sum over the blocks (members, blocks, ...) of each array."""
    return [array[:, 0] if array.shape[1] == 1 else array.sum(1) for array in parts]


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that live as long as the process; the kernels let go of Python's lock."""
    return ThreadPoolExecutor(thread_name_prefix="kernels")
