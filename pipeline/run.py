"""Carrying out a run in plain Python: each step from the store, or made by its stage.

Whoever wants to see the steps (Prefect, a test) passes its own `call`, which gets a `StageCall`
and returns what calling it returns.
"""

from __future__ import annotations

import importlib
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.building import Recipe, obtain
from pipeline.clock import saved_files, start_clock
from pipeline.config import RuntimeConfig
from pipeline.errors import MemoryShortError, StoreError
from pipeline.garbage import sweep
from pipeline.imports import ImportRecord, hold, read_import
from pipeline.plan import Step, chain
from pipeline.presets import LoadedConfig
from pipeline.records import RunRecord, find_record, write_record
from pipeline.store import Artefact, Store
from stages.context import Interrupted, StageContext

_NO_MEMORY = re.compile(
    "can't allocate memory|not enough memory|out of memory|Storage size calculation overflowed"
)
"""What torch says, which has no type for it on the CPU."""

StageFunction = Callable[[Any, int, Mapping[str, Path], Path, StageContext], None]


@dataclass(frozen=True)
class RunRequest:
    """One run: a configuration, a seed, and what to make anew."""

    loaded: LoadedConfig
    seed: int
    name: str
    refresh: frozenset[str] = frozenset()  # stages
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    command: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """What artefacts made for this run are labelled with."""
        domain = self.loaded.config.collect.domain
        return {"domain": domain, "preset": self.loaded.preset, "run": self.name}


@dataclass(frozen=True)
class StageCall:
    """One step of a run, ready to be called once; gives its artefact and keeps it from removal."""

    step: Step
    recipe: Recipe
    store: Store
    refresh: bool
    runtime: RuntimeConfig
    stop: threading.Event
    keep: ExitStack = field(repr=False)
    imported: ImportRecord | None = None  # of a step whose artefact is not ours to make

    def __call__(self) -> Artefact:
        """The step's artefact, found or made.

        Raises:
            Interrupted: the user asked to stop; the stage has saved a checkpoint.
            StoreError: imported trials are gone or damaged.
        """
        if self.imported is not None:
            lease = hold(self.store, self.imported, self.stop)
            self.keep.callback(lease.close)
            return lease.artefact
        lease = obtain(self.store, self.recipe, self._make, self.refresh, self.stop)
        self.keep.callback(lease.close)
        return lease.artefact

    def _make(self, output: Path) -> None:
        """Call the stage on the inputs' folders."""
        key = (self.recipe.kind, self.recipe.fingerprint)
        checkpoints = self.store.checkpoint_folder(*key)
        checkpoints.mkdir(parents=True, exist_ok=True)
        logs = self.store.log_folder(*key)
        if not saved_files(checkpoints):  # from the start, so earlier curves would overlap
            shutil.rmtree(logs, ignore_errors=True)
        start_clock(checkpoints)
        context = StageContext(
            checkpoints=checkpoints,
            logs=logs if self.runtime.tensorboard else None,
            device=self.runtime.device,
            precision=self.runtime.precision,
            threads=self.runtime.threads,
            workers=self.runtime.workers,
            quiet=self.runtime.quiet,
            stop=self.stop,
        )
        inputs = {name: artefact.folder for name, artefact in self.recipe.inputs.items()}
        stage = load_stage(self.step.function)
        with _naming_short_memory(self.step.name):
            stage(self.step.config, self.recipe.seed, inputs, output, context)


Call = Callable[[StageCall], Artefact]
OnStep = Callable[[Step, Artefact], None]


@dataclass(frozen=True)
class RunResult:
    """A complete run: its record, and its artefacts by step."""

    record: RunRecord
    artefacts: Mapping[str, Artefact]


def call_directly(call: StageCall) -> Artefact:
    """The plain way: the stage runs here and now."""
    return call()


def execute(
    request: RunRequest,
    store: Store,
    call: Call = call_directly,
    stop: threading.Event | None = None,
    on_step: OnStep | None = None,
) -> RunResult:
    """Carry out a run, step by step; its record is written as it grows.

    Args:
        call: how a step is called; gets a `StageCall`, returns its result.
        stop: set it to have the stage save a checkpoint and stop.
        on_step: told of each step as it is done.

    Raises:
        Interrupted: `stop` was set; the same request goes on from the checkpoint.
        StoreError: the run's name belongs to another run, or an input was swapped meanwhile.
        Exception: whatever a stage raises; nothing of it is left in the store.
    """
    stop = stop or threading.Event()
    sweep(store)
    record = _new_record(request, find_record(store, request.name))
    write_record(store, record)
    made: dict[str, Artefact] = {}
    with ExitStack() as keep:
        for step in chain(request.loaded.config):
            if stop.is_set():
                raise Interrupted(f"stopped before {step.name}")
            imported = imported_by(step, store)
            recipe = step.recipe(request.seed, made, request.labels)
            if imported is not None:
                recipe = imported.recipe
            refresh = step.stage in request.refresh
            record = replace(record, building=recipe.reference)
            write_record(store, record)  # from here on `gc` spares the step's checkpoints
            made[step.name] = call(
                StageCall(step, recipe, store, refresh, request.runtime, stop, keep, imported)
            )
            record = _extended(record, step.name, made[step.name])
            write_record(store, record)
            if on_step is not None:
                on_step(step, made[step.name])
        references = {name: artefact.reference for name, artefact in made.items()}
        record = replace(record, artefacts=references, status="complete", building="")
        write_record(store, record)
    store.empty_trash()
    return RunResult(record, made)


def imported_by(step: Step, store: Store) -> ImportRecord | None:
    """The import that a step's configuration names in place of what it would make.

    Raises:
        StoreError: there is none of that name.
    """
    name = getattr(step.config, "imported", None)
    return None if name is None else read_import(store, name)


def load_stage(function: str) -> StageFunction:
    """Import `module:function`; the first moment that torch is needed."""
    module, _, name = function.partition(":")
    found = getattr(importlib.import_module(module), name, None)
    if not callable(found):
        raise StoreError(f"there is no stage {function}")
    return found  # type: ignore[no-any-return]


@contextmanager
def _naming_short_memory(step: str) -> Iterator[None]:
    """Memory that the step asks for and does not get, in one sentence."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _NO_MEMORY.search(str(error)):
            raise
        raise MemoryShortError(
            f"{step}: its settings need more memory than there is; lower sizes such as layers, "
            "batches or the number of tasks"
        ) from error


def _new_record(request: RunRequest, old: RunRecord | None) -> RunRecord:
    """Starts from the artefacts of the run's last time, so that `gc` spares them meanwhile."""
    config = request.loaded.config
    return RunRecord(
        name=request.name,
        preset=request.loaded.preset,
        overrides=request.loaded.overrides,
        seed=request.seed,
        domain=config.collect.domain,
        config=config.model_dump(mode="json"),
        artefacts=old.artefacts if old is not None else {},
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
        command=request.command,
        runtime=request.runtime.decisive,
    )


def _extended(record: RunRecord, step: str, artefact: Artefact) -> RunRecord:
    return replace(record, artefacts={**record.artefacts, step: artefact.reference})
