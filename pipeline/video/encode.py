"""Frames to MP4, through an ffmpeg program, or to GIF, through pillow; one frame at a time."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from environments.rendering.base import Frame
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image


class Encoder(Protocol):
    """Takes the frames of one file, all of one size."""

    def add(self, frame: Frame, times: int = 1) -> None:
        """The next frame (height, width, 3), shown for so many frames."""

    def finish(self) -> None:
        """Complete the file.

        Raises:
            ConfigError: it could not be written.
        """

    def drop(self) -> None:
        """Let go of everything; the file, if there is one, is not whole unless it was finished."""


def find_ffmpeg() -> str:
    """The program's path: that of the package imageio-ffmpeg, or the system's.

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


class Mp4Encoder:
    """H.264 that every browser plays; both sides of a frame must be even."""

    def __init__(self, path: Path, rate: int) -> None:
        self._path, self._rate = path, rate
        self._ffmpeg: subprocess.Popen[bytes] | None = None

    def add(self, frame: Frame, times: int = 1) -> None:
        """The next frame (height, width, 3), shown for so many frames."""
        if self._ffmpeg is None:
            self._ffmpeg = self._start(frame)
        assert self._ffmpeg.stdin is not None
        try:
            for _ in range(times):
                self._ffmpeg.stdin.write(frame.tobytes())
        except BrokenPipeError:
            self.finish()  # ffmpeg says why

    def finish(self) -> None:
        """Complete the file; raises ConfigError, with what ffmpeg says, where it could not."""
        if self._ffmpeg is None:
            raise ConfigError(f"{self._path.name}: there is no frame to write")
        problem = self._ffmpeg.communicate()[1].decode(errors="replace").strip()
        if self._ffmpeg.returncode != 0:
            raise ConfigError(f"ffmpeg could not write {self._path.name}: {problem[-300:]}")

    def drop(self) -> None:
        """End ffmpeg if it still runs."""
        if self._ffmpeg is not None and self._ffmpeg.poll() is None:
            self._ffmpeg.kill()
            self._ffmpeg.communicate()

    def _start(self, frame: Frame) -> subprocess.Popen[bytes]:
        height, width, _ = frame.shape
        source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {self._rate} -i -".split()
        codec = ["-c:v", "libx264", "-crf", "20", "-pix_fmt", "yuv420p"]
        target = [*codec, "-movflags", "+faststart", "-f", "mp4"]
        command = [find_ffmpeg(), "-y", "-loglevel", "error", *source, *target, str(self._path)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)


class GifEncoder:
    """An animation that repeats for ever; frames wait in palettes of 256 colours each."""

    def __init__(self, path: Path, rate: int) -> None:
        self._path, self._rate = path, rate
        self._frames: list[Image] = []
        self._durations: list[int] = []  # milliseconds

    def add(self, frame: Frame, times: int = 1) -> None:
        """The next frame (height, width, 3), shown for so many frames."""
        from PIL import Image

        self._frames.append(Image.fromarray(frame).quantize(256))
        self._durations.append(times * round(1000 / self._rate))

    def finish(self) -> None:
        """Write the file; raises ConfigError where there was no frame."""
        if not self._frames:
            raise ConfigError(f"{self._path.name}: there is no frame to write")
        first, *rest = self._frames
        first.save(
            self._path, "GIF", save_all=True, append_images=rest, duration=self._durations, loop=0
        )

    def drop(self) -> None:
        """Forget the frames."""
        self._frames = []
