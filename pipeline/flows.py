"""The Prefect flow `collect-vae-offline`: the same run, with its stages as Prefect's tasks.

Prefect shows and schedules; what is cached is the store's business (its own result cache cannot
tell whether data are whole). Importing this imports Prefect, so nothing else does it early.
"""

from __future__ import annotations

import shlex
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from prefect import flow, get_run_logger, task
from prefect import runtime as runtime_of
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from pydantic import AfterValidator, BaseModel, Field, NonNegativeInt

from pipeline.again import run_words
from pipeline.artifacts import publish_artifacts
from pipeline.config import RuntimeConfig
from pipeline.fit import check_fit
from pipeline.fit_imported import check_imported, imported_setting
from pipeline.overrides import (
    CollectOverrides,
    DonorsOverrides,
    EvaluateOverrides,
    OfflineOverrides,
    RelabelOverrides,
    VaeOverrides,
    settings,
)
from pipeline.plan import REPORT, Step
from pipeline.presets import load_config, runnable_names
from pipeline.records import run_name
from pipeline.run import OnStep, RunRequest, RunResult, StageCall, execute
from pipeline.store import Artefact, Store, default_root
from stages.context import check_device, check_precision

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

StageName = Literal[
    "collect", "plan-donors", "train-vae", "relabel", "train-offline", "evaluate", "report"
]

if TYPE_CHECKING:
    Preset = str
else:  # a drop-down in the form, checked at submission; a program may also give a YAML file
    Preset = Annotated[str, Field(json_schema_extra={"enum": runnable_names()})]

_NO_COLLECT, _NO_VAE, _NO_RELABEL = CollectOverrides(), VaeOverrides(), RelabelOverrides()
_NO_DONORS = DonorsOverrides()
_NO_OFFLINE, _NO_EVALUATE = OfflineOverrides(), EvaluateOverrides()
_RUNTIME = RuntimeConfig(quiet=True)


class ArtefactReference(BaseModel):
    """What a stage's task returns: small enough for any database, and all that there is to say."""

    stage: str
    kind: str
    fingerprint: str
    digest: str
    cached: bool


@dataclass
class Session:
    """What a calling program wants of a flow in its own process beside the flow's parameters."""

    store: Store
    stop: threading.Event
    on_step: OnStep | None = None
    command: str = ""
    results: list[RunResult] = field(default_factory=list)
    error: BaseException | None = None  # a stage's own, as raised
    on_sigterm: Any = None  # the program's own handler, as signal.getsignal gives it

    def done(self, step: Step, artefact: Artefact) -> None:
        """Say that a step is done: in the run's log, and to whoever called."""
        how = "cached" if artefact.cached else f"{artefact.manifest.seconds:.1f} s"
        get_run_logger().info("%s: %s, %s", step.name, how, artefact.reference)
        if self.on_step is not None:
            self.on_step(step, artefact)


SESSION: ContextVar[Session | None] = ContextVar("SESSION", default=None)


def _flow_run_name() -> str:
    """`gridworld, seed 0`, as it stands in Prefect's lists."""
    given = runtime_of.flow_run.parameters
    seeds = ", ".join(map(str, given["seeds"]))
    return f"{given['preset']}, seed {seeds}"


def _all_different(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed stands twice")
    return seeds


Seeds = Annotated[list[NonNegativeInt], Field(min_length=1), AfterValidator(_all_different)]


@flow(
    name="collect-vae-offline",
    flow_run_name=_flow_run_name,
    persist_result=False,
    result_serializer="json",  # of a failed run's exception: nothing is pickled
)
def collect_vae_offline(
    preset: Preset,
    seeds: Seeds = [0],  # noqa: B006 (Prefect shows it as the form's default)
    refresh: list[StageName] = [],  # noqa: B006
    overrides: list[str] = [],  # noqa: B006
    collect: CollectOverrides = _NO_COLLECT,
    donors: DonorsOverrides = _NO_DONORS,
    vae: VaeOverrides = _NO_VAE,
    relabel: RelabelOverrides = _NO_RELABEL,
    offline: OfflineOverrides = _NO_OFFLINE,
    evaluate: EvaluateOverrides = _NO_EVALUATE,
    name: str | None = None,
    report: bool = True,
    runtime: RuntimeConfig = _RUNTIME,
    trials: str | None = None,
) -> list[str]:
    """Collect trials, train the belief encoder, relabel, train an agent offline, evaluate, report.

    Args:
        preset: what the run starts from; only what differs needs to be set below.
        seeds: the run is carried out once for each.
        refresh: stages to make anew though they are in the store.
        overrides: any setting as KEY=VALUE, such as vae.kl_weight=0.1; they win over those below.
        collect: settings of the collection that differ from the preset's.
        donors: settings of the donor plan that differ, where the domain has one.
        vae: settings of the belief encoder's training that differ.
        relabel: settings of state relabelling that differ.
        offline: settings of offline RL that differ.
        evaluate: settings of the evaluation that differ.
        name: the run's name instead of the preset's.
        report: draw the HTML page and leave its tables and figures as artifacts.
        runtime: device, precision, threads and workers; results do not depend on them.
        trials: name of imported trials to begin with instead of collecting.

    Returns:
        The names of the runs.
    """
    sections = (
        ("collect", collect),
        ("donors", donors),
        ("vae", vae),
        ("relabel", relabel),
        ("offline", offline),
        ("evaluate", evaluate),
    )
    texts = [text for section in sections for text in settings(*section)]
    texts += [imported_setting(trials)] if trials is not None else []
    loaded = load_config(preset, [*texts, *overrides])
    check_fit(loaded)
    check_device(runtime.device)
    check_precision(runtime.precision, runtime.device)
    session = SESSION.get() or Session(Store(default_root()), threading.Event())
    check_imported(loaded, session.store, frozenset(refresh))
    caller = TaskCaller(session)
    for seed in seeds:
        request = RunRequest(
            loaded=loaded,
            seed=seed,
            name=run_name(loaded.stem, loaded.overrides, seed, name),
            refresh=frozenset(refresh),
            runtime=runtime,
            command=session.command
            or shlex.join(run_words(preset, loaded.overrides, [seed], name, runtime.decisive)),
        )
        with own_sigterm(session.on_sigterm):
            result = execute(request, session.store, caller.call, session.stop, session.done)
        session.results.append(result)
    names = [result.record.name for result in session.results]
    if report:
        _report(session.store, names, REPORT in refresh, list(caller.states.values()))
    return names


@contextmanager
def own_sigterm(handler: Any) -> Iterator[None]:
    """Let SIGTERM reach the calling program's handler, which has the stage save a checkpoint.

    Prefect puts its own over it, which raises wherever the program is. A worker's run keeps that
    one: without it, Prefect could not tell a cancelled run from a crashed one.
    """
    if handler is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    prefects = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, prefects)


@dataclass
class TaskCaller:
    """Calls each step as a Prefect task that waits for those it reads from."""

    session: Session
    states: dict[str, State[Any]] = field(default_factory=dict)  # by reference

    def call(self, call: StageCall) -> Artefact:
        """The step's artefact; its task ends as *Cached* where the store had it.

        Raises:
            Exception: whatever the stage raises.
        """
        made: list[Artefact] = []

        @task(
            name=call.step.name,
            task_run_name=f"{call.step.name}-seed{call.recipe.seed}",
            cache_policy=NO_CACHE,
            persist_result=False,
            result_serializer="json",
        )
        def stage() -> Any:
            try:
                made.append(call())
            except BaseException as error:
                self.session.error = error
                raise
            return _completed(call.step, made[0])

        inputs = [a.reference for a in call.recipe.inputs.values() if a.reference in self.states]
        state = stage(wait_for=[self.states[name] for name in inputs], return_state=True)
        state.result()  # raises what the stage raised
        self.states[made[0].reference] = state
        return made[0]


def _completed(step: Step, artefact: Artefact) -> State[ArtefactReference]:
    manifest = artefact.manifest
    reference = ArtefactReference(
        stage=step.name,
        kind=manifest.kind,
        fingerprint=manifest.fingerprint,
        digest=manifest.digest,
        cached=artefact.cached,
    )
    name = "Cached" if artefact.cached else None
    return Completed(name=name, message=artefact.reference, data=reference)


def _report(store: Store, names: Sequence[str], anew: bool, after: Sequence[State[Any]]) -> None:
    """The page of these runs, and its tables and figures as Prefect artifacts."""
    from pipeline.commands.report import write

    @task(
        name=REPORT,
        task_run_name=REPORT,
        cache_policy=NO_CACHE,
        persist_result=False,
        result_serializer="json",
    )
    def draw() -> State[str]:
        begun = time.time_ns()
        page = write(store, names, refresh=anew)
        publish_artifacts(page.parent)
        name = "Cached" if page.stat().st_mtime_ns < begun else None
        return Completed(name=name, message=str(page), data=str(page))

    draw(wait_for=after, return_state=True).result()
