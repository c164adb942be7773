"""What a stage is given besides its config, inputs and output: runtime things only.

Nothing in here may change a result's bytes; it is left out of fingerprints.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from stages.errors import StageError

Precision = Literal["float32", "tf32"]


class Interrupted(Exception):  # noqa: N818 - not an error: the user asked for it
    """The user asked to stop; the stage has saved a checkpoint."""


def check_device(device: str) -> None:
    """Raise StageError where torch cannot use `cpu`, `cuda` or `cuda:N` on this machine."""
    if device == "cpu":
        return
    import torch  # late: light commands import this module too

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(device.partition(":")[2] or 0) >= count:
        found = f"{count} CUDA device{'s' * (count > 1)}, counted from 0" if count else "none"
        raise StageError(
            f"--device {device}: this machine has {found}; `--device cpu` always works"
        )


def check_precision(precision: str, device: str) -> None:
    """Raise StageError where `tf32` would change nothing."""
    if precision == "tf32" and device == "cpu":
        raise StageError(
            "--precision tf32: only a GPU rounds so; add `--device cuda`, or leave it out on a CPU"
        )


class Bar:
    """A progress bar with a rate and the time left; silent when its context is quiet."""

    def __init__(self, total: int, label: str, unit: str, quiet: bool, done: int = 0) -> None:
        self._bar = tqdm(
            total=total,
            initial=done,  # not counted in the rate
            desc=f"{label:<14}",
            unit=f" {unit}",
            disable=quiet,
            mininterval=0.5 if sys.stderr.isatty() else 10.0,
            dynamic_ncols=True,
        )

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Move on by `steps`; `note` replaces the text behind the bar."""
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(steps)

    def note(self, text: str) -> None:
        """Replace the text behind the bar, and show it if the bar was not drawn lately."""
        if text == self._bar.postfix or self._bar.disable:
            return
        self._bar.set_postfix_str(text, refresh=False)
        if time.time() - self._bar.last_print_t >= self._bar.mininterval:
            self._bar.refresh()
            self._bar.last_print_t = time.time()

    def write(self, text: str) -> None:
        """A line on standard error, above the bar."""
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


@dataclass(frozen=True)
class StageContext:
    """Runtime of one stage.

    `checkpoints` is a folder that outlives a killed run and is removed when the stage's artefact
    is committed; `logs` takes TensorBoard events, None for none.
    """

    checkpoints: Path
    logs: Path | None = None
    device: str = "cpu"
    precision: Precision = "float32"  # of products while training on a GPU
    threads: int = 2
    workers: int = 2
    quiet: bool = False
    checkpoint_seconds: float = 20.0
    stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def progress(self, total: int, label: str, unit: str = "step", done: int = 0) -> Iterator[Bar]:
        """A progress bar over `total` units of which `done` are already behind us."""
        bar = Bar(total, label, unit, self.quiet, done)
        try:
            yield bar
        finally:
            bar.close()

    @property
    def interrupted(self) -> bool:
        """True once the user asked to stop: save a checkpoint and raise `Interrupted`."""
        return self.stop.is_set()
