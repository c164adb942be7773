"""Finding the tensor that is not finite."""

from __future__ import annotations

import pytest
import torch

from algorithms.divergence import not_finite


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_first_bad_tensor_is_named(bad: float) -> None:
    good = {"a": torch.zeros(3), "b": torch.arange(4), "c": torch.zeros(2, dtype=torch.uint8)}
    assert not_finite(good) is None
    assert not_finite({}) is None
    broken = {**good, "d": torch.tensor([0.0, bad]), "e": torch.tensor(bad)}
    assert not_finite(broken) == "d"
