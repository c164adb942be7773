"""How products of float32 matrices are rounded on a GPU, for as long as a stage runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stages.context import Precision


@contextmanager
def products(device: str, precision: Precision) -> Iterator[None]:
    """Products of float32, or of inputs rounded to 10 bits (tf32); as they were afterwards.

    Both settings are made in either case: torch's own default rounds in cuDNN's recurrent layers
    and nowhere else. On a CPU nothing is set.
    """
    if device == "cpu":
        yield
        return
    matrices, recurrent = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    rounds = precision == "tf32"
    torch.set_float32_matmul_precision("high" if rounds else "highest")
    torch.backends.cudnn.allow_tf32 = rounds
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matrices)
        torch.backends.cudnn.allow_tf32 = recurrent
