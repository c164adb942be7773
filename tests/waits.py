"""Finds what would make the host wait for a device, on a CPU too."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_WAITING = {
    "aten::_local_scalar_dense",  # item(), bool(), float()
    "aten::equal",
    "aten::is_nonzero",
    "aten::masked_select",
    "aten::nonzero",
    "aten::_unique2",
    "aten::bincount",
    "aten::lift_fresh",  # a tensor of Python's numbers, which another device has to copy
    "aten::repeat_interleave",
}


class Waits(TorchDispatchMode):
    """Notes, while it is entered, operations whose result the host must see to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        masks = name == "aten::index" and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if masks or name in _WAITING:
            self.found.append(name)
        return func(*args, **(kwargs or {}))
