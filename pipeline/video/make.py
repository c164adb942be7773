"""From a run's evaluation to video files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from environments.base import Float32, TaskFamily
from environments.registry import load_family
from pipeline.errors import ConfigError, StoreError
from pipeline.records import RunRecord, read_record
from pipeline.scores import SCORES_STEP
from pipeline.store import Store
from pipeline.video.compose import Composer
from pipeline.video.encode import Encoder, GifEncoder, Mp4Encoder, find_ffmpeg
from pipeline.video.replay import Trial, read_trial, replay_states
from pipeline.video.scene import PlottedScene, RenderedScene, Scene
from stages.context import Bar

RATE = 15  # frames a second
HOLD = 10  # times that an episode's last frame is shown
ENCODERS: dict[str, type[Mp4Encoder] | type[GifEncoder]] = {"mp4": Mp4Encoder, "gif": GifEncoder}


@dataclass(frozen=True)
class Request:
    """What is to be filmed."""

    run: str
    task: int = 0  # test task, from 0
    episodes: tuple[int, int] | None = None  # first and last, from 1; None: all
    every: int = 5  # steps from frame to frame
    size: int = 360  # pixels of the scene
    formats: tuple[str, ...] = ("mp4",)
    out: Path | None = None
    camera: str | None = None
    quiet: bool = False


def make_video(store: Store, request: Request) -> list[Path]:
    """Write one file a format; each appears whole or not at all.

    Raises:
        StoreError: no such run or task, or a trial that cannot be stepped again.
        ConfigError: episodes that were not, or a format that this machine cannot write.
        TaskError: the domain needs a graphics library that is not here, or has no such camera.
    """
    if "mp4" in request.formats:
        find_ffmpeg()
    record = read_record(store, request.run)
    trial = read_trial(_artefact(store, record, SCORES_STEP), request.task)
    family = load_family(record.domain)
    moments = _moments(request, *trial.rewards.shape)
    paths = {kind: _path(store, request, kind) for kind in request.formats}
    with ExitStack() as stack:
        scene = stack.enter_context(_scene(family, trial, request))
        title = f"{family.spec.name} · test task {request.task} · final agent"
        predicted = _predicted(store, record, family, trial)
        composer = Composer(title, trial, predicted, scene, request.size)
        encoders = [
            stack.enter_context(_published(store, request, path, kind))
            for kind, path in paths.items()
        ]
        bar = Bar(len(moments), "video", "frame", request.quiet)
        stack.callback(bar.close)
        for episode, step in moments:
            frame = composer.frame(episode, step)
            for encoder in encoders:
                encoder.add(frame, HOLD if step == trial.rewards.shape[1] else 1)
            bar.advance()
    return list(paths.values())


def _artefact(store: Store, record: RunRecord, step: str) -> Path:
    reference = record.artefacts.get(step)
    artefact = None if reference is None else store.find(*store.parse(reference))
    if artefact is None:
        raise StoreError(
            f"run {record.name} has no whole artefact of {step} in the store; go on with: "
            f"{record.command}"
        )
    return artefact.folder


def _moments(request: Request, episodes: int, horizon: int) -> list[tuple[int, int]]:
    """(episode, step), both from 0; the last step of an episode is always shown."""
    first, last = request.episodes or (1, episodes)
    if not 1 <= first <= last <= episodes:
        raise ConfigError(f"--episodes {first}..{last}: this run's trials have 1..{episodes}")
    steps = [*range(0, horizon, request.every), horizon]
    return [(episode, step) for episode in range(first - 1, last) for step in steps]


@contextmanager
def _scene(family: TaskFamily, trial: Trial, request: Request) -> Iterator[Scene]:
    """The family's own scene where it has one, else its plot."""
    source = family.frame_source(trial.task, request.size, request.camera)
    if source is None:
        if request.camera is not None:
            name = family.spec.name
            raise ConfigError(f"--camera {request.camera}: {name} is drawn without cameras")
        yield PlottedScene(family, trial, request.size)
        return
    try:
        yield RenderedScene(source, replay_states(family, trial))
    finally:
        source.close()


def _predicted(store: Store, record: RunRecord, family: TaskFamily, trial: Trial) -> Float32 | None:
    """The rewards that the belief expected, (K, H), or None where it predicts none."""
    from stages.predicted_rewards import predicted_rewards  # late: it waits for torch

    vae = _artefact(store, record, "train-vae")
    return predicted_rewards(
        vae, family, trial.observations, trial.actions, trial.rewards, trial.beliefs
    )


def _path(store: Store, request: Request, kind: str) -> Path:
    if request.out is not None:
        return request.out.with_suffix(f".{kind}")
    return store.folder("videos") / request.run / f"task{request.task}.{kind}"


@contextmanager
def _published(store: Store, request: Request, path: Path, kind: str) -> Iterator[Encoder]:
    """Encodes into a temporary file, which takes its place when all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(store, request, path) as temporary:
        encoder: Encoder = ENCODERS[kind](temporary, RATE)
        try:
            yield encoder
            encoder.finish()
            temporary.replace(path)
        finally:
            encoder.drop()
            temporary.unlink(missing_ok=True)


@contextmanager
def _temporary(store: Store, request: Request, path: Path) -> Iterator[Path]:
    """Under a lock of the store where it lies there, so that a killed run's file is swept."""
    if request.out is not None:
        yield path.with_name(f".{path.name}.partial")
        return
    temporary = store.folder(".tmp") / f"video-{request.run}-{path.name}"
    lock = store.lock(temporary.name)
    lock.wait_exclusive()
    try:
        yield temporary
    finally:
        lock.release()
