"""From a run's evaluation to video files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from environments.registry import load_family
from environments.rendering.base import Frame
from pipeline.errors import ConfigError, StoreError
from pipeline.records import RunRecord, read_record
from pipeline.scores import SCORES_STEP
from pipeline.store import Store
from pipeline.video.compose import Composer
from pipeline.video.encode import find_ffmpeg, write_gif, write_mp4
from pipeline.video.replay import read_trial
from stages.context import Bar

RATE = 15  # frames a second
HOLD = 10  # times that an episode's last frame is shown
WRITERS = {"mp4": write_mp4, "gif": write_gif}


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
    trial = read_trial(_scores(store, record), request.task)
    family = load_family(record.domain)
    moments = _moments(request, *trial.rewards.shape)
    source = family.frame_source(trial.task, request.size, request.camera)
    if source is None and request.camera is not None:
        raise ConfigError(f"--camera {request.camera}: {record.domain} is drawn without cameras")
    try:
        composer = Composer(family, trial, request.size, source)
        bar = Bar(len(moments), "video", "frame", request.quiet)
        frames = []
        for moment in moments:
            frames.append(composer.frame(*moment))
            bar.advance()
        bar.close()
    finally:
        if source is not None:
            source.close()
    shown = [
        frame
        for moment, frame in zip(moments, frames, strict=True)
        for frame in [frame] * (HOLD if moment[1] == trial.rewards.shape[1] else 1)
    ]
    return [_write(_path(store, record, request, kind), kind, shown) for kind in request.formats]


def _scores(store: Store, record: RunRecord) -> Path:
    reference = record.artefacts.get(SCORES_STEP)
    artefact = None if reference is None else store.find(*store.parse(reference))
    if artefact is None:
        raise StoreError(
            f"run {record.name} has no evaluation in the store; go on with: {record.command}"
        )
    return artefact.folder


def _moments(request: Request, episodes: int, horizon: int) -> list[tuple[int, int]]:
    """(episode, step), both from 0; the last step of an episode is always shown."""
    first, last = request.episodes or (1, episodes)
    if not 1 <= first <= last <= episodes:
        raise ConfigError(f"--episodes {first}..{last}: this run's trials have 1..{episodes}")
    steps = [*range(0, horizon, request.every), horizon]
    return [(episode, step) for episode in range(first - 1, last) for step in steps]


def _path(store: Store, record: RunRecord, request: Request, kind: str) -> Path:
    if request.out is not None:
        return request.out.with_suffix(f".{kind}")
    folder = store.folder("reports") / record.name / "videos"
    return folder / f"task{request.task}.{kind}"


def _write(path: Path, kind: str, frames: list[Frame]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        WRITERS[kind](temporary, frames, RATE)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
