"""Frames to MP4, through an ffmpeg program, or to GIF, through pillow; one frame at a time."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from environments.rendering.base import Frame
from pipeline.errors import ConfigError


def find_ffmpeg() -> str:
    """The program's path: of the package imageio-ffmpeg, or of the system.

    Raises:
        ConfigError: there is none.
    """
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return str(get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        found = shutil.which("ffmpeg")
    if found is None:
        raise ConfigError(
            "MP4 needs ffmpeg, which is not here: `apt-get install ffmpeg` or `pip install "
            "imageio-ffmpeg`; --format gif works without"
        )
    return found


def write_mp4(path: Path, frames: Iterable[Frame], rate: int) -> None:
    """H.264 that every browser plays; frames (height, width, 3), both even."""
    encoder: subprocess.Popen[bytes] | None = None
    for frame in frames:
        if encoder is None:
            encoder = _start(path, frame, rate)
        assert encoder.stdin is not None
        try:
            encoder.stdin.write(frame.tobytes())
        except BrokenPipeError:
            break  # ffmpeg says why
    if encoder is None:
        raise ConfigError("there is no frame to write")
    problem = encoder.communicate()[1].decode(errors="replace").strip()
    if encoder.returncode != 0:
        raise ConfigError(f"ffmpeg could not write {path.name}: {problem[-300:]}")


def write_gif(path: Path, frames: Iterable[Frame], rate: int) -> None:
    """An animation that repeats for ever, in a palette of 256 colours a frame."""
    from PIL import Image

    first, *rest = [Image.fromarray(frame).quantize(256) for frame in frames]
    first.save(path, "GIF", save_all=True, append_images=rest, duration=round(1000 / rate), loop=0)


def _start(path: Path, frame: Frame, rate: int) -> subprocess.Popen[bytes]:
    height, width, _ = frame.shape
    source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {rate} -i -".split()
    codec = ["-c:v", "libx264", "-crf", "20", "-pix_fmt", "yuv420p"]
    target = [*codec, "-movflags", "+faststart", "-f", "mp4"]
    command = [find_ffmpeg(), "-y", "-loglevel", "error", *source, *target, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
