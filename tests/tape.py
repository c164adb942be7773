"""What a CUDA graph does, on a CPU: tensor operations are noted once and repeated on their memory.

Python is not run again, so a number that it computed, or a branch that it took, stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from algorithms.optimisers import Optimiser

Result = TypeVar("Result")


_OF_SHAPES = {torch.ops.aten.transpose_.default}  # in place, and yet no number is written


class Tape(TorchDispatchMode):
    """Operations in the order in which they were done while it was entered."""

    def __init__(self) -> None:
        super().__init__()
        self._operations: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # as they are now: an operation such as `transpose_` changes their shapes later
        given = tree_map(_same_memory, (args, kwargs or {}))
        result = func(*args, **(kwargs or {}))
        aliases = [value.alias_info for value in func._schema.returns if value.alias_info]
        views = any(not alias.is_write for alias in aliases)
        if not views and func not in _OF_SHAPES:
            fresh = [] if aliases else [t.detach() for t in _tensors(result)]
            self._operations.append((func, *given, fresh))
        return result

    @torch.no_grad()
    def play(self) -> None:
        """Do them again, each result in the memory of the first time."""
        for func, args, kwargs, fresh in self._operations:
            for old, new in zip(fresh, _tensors(func(*args, **kwargs)), strict=bool(fresh)):
                old.copy_(new)


class TapeGraphs:
    """Stands for `algorithms.capture.CudaGraphs`; `recorded` counts its graphs."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.recorded = 0

    def run(self, work: Callable[[], Result]) -> Result:
        """Do the work now."""
        return work()

    def record(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """What does the work: noted at the first call, repeated at the others."""
        self.recorded += 1
        kept: list[tuple[Tape, Result]] = []

        def replay() -> Result:
            if not kept:
                tape = Tape()
                with tape:
                    kept.append((tape, work()))
            else:
                kept[0][0].play()
            return kept[0][1]

        return replay


def do_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let optimisers and agents do on a CPU as on other devices: rates lie in tensors, no loops."""
    prepare = Optimiser.__init__

    def preparing(self: Optimiser, *args: Any) -> None:
        prepare(self, *args)
        self.decay = torch.ones(())

    monkeypatch.setattr(Optimiser, "__init__", preparing)
    for module in ("models.mlp", "algorithms.learners.dqn"):
        monkeypatch.setattr(f"{module}.takes", lambda tensor: False)


def _same_memory(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _tensors(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    return [t for t in result if isinstance(t, Tensor)] if isinstance(result, tuple | list) else []
