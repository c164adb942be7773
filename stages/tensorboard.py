"""TensorBoard events of a training stage; they lie outside of artefacts and their digests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ScalarWriter = Callable[[Mapping[str, float]], None]


@contextmanager
def scalar_writer(folder: Path | None) -> Iterator[ScalarWriter]:
    """A function that writes a row of scalars with its `step`; does nothing without a folder."""
    if folder is None:
        yield lambda row: None
        return
    from torch.utils.tensorboard import SummaryWriter  # a second to import: only when wanted

    writer = SummaryWriter(str(folder))

    def write(row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if name != "step":
                writer.add_scalar(name, value, int(row["step"]))

    try:
        yield write
    finally:
        writer.close()
