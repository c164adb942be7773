"""How products are rounded: as asked for while a stage trains, and as before afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from stages.context import Precision, check_precision
from stages.errors import StageError
from stages.precision import products


def settings() -> tuple[str, bool]:
    """Of matrix products, and of cuDNN's layers."""
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = settings()
    yield
    assert settings() == before


@pytest.mark.parametrize(
    ("precision", "inside"), [("float32", ("highest", False)), ("tf32", ("high", True))]
)
def test_a_gpu_rounds_as_asked(precision: Precision, inside: tuple[str, bool]) -> None:
    with products("cuda:1", precision):
        assert settings() == inside
        with products("cuda:1", "float32"):
            assert settings() == ("highest", False)
        assert settings() == inside


def test_settings_come_back_after_an_error() -> None:
    with pytest.raises(KeyError), products("cuda", "tf32"):
        raise KeyError


def test_nothing_is_set_on_a_cpu() -> None:
    before = settings()
    with products("cpu", "tf32"):
        assert settings() == before


def test_a_cpu_refuses_to_round() -> None:
    check_precision("float32", "cpu")
    check_precision("tf32", "cuda:1")
    with pytest.raises(StageError, match="--precision tf32: only a GPU rounds so"):
        check_precision("tf32", "cpu")
