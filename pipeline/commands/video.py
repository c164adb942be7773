"""`omrl video`: the final agent as it adapts, episode by episode, with its belief beside it."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.console import say
from pipeline.exits import OK

if TYPE_CHECKING:
    from pipeline.video.make import Request


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `omrl video`."""
    parser.add_argument("run", metavar="RUN", help="a complete run; its final agent is filmed")
    parser.add_argument("--task", type=int, default=0, help="test task, from 0 (default: 0)")
    parser.add_argument("--episodes", metavar="A..B", help="from 1, both included (default: all)")
    parser.add_argument("--every", type=int, default=5, help="a frame every N steps (default: 5)")
    parser.add_argument("--size", type=int, default=360, help="pixels of the scene (default: 360)")
    parser.add_argument("--format", choices=("mp4", "gif", "both"), default="mp4")
    parser.add_argument("--out", type=Path, metavar="FILE", help="its ending follows the format")
    parser.add_argument(
        "--camera",
        metavar="NAME",
        help="of domains that MuJoCo draws; Meta-World: corner, front, top",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def main(options: argparse.Namespace) -> int:
    """Write the video and say where it is."""
    request = _request(options)
    from pipeline.store import Store, default_root
    from pipeline.video.make import make_video

    for path in make_video(Store(default_root()), request):
        say(str(path))
    return OK


def _request(options: argparse.Namespace) -> Request:
    """The options, checked as far as they can be without the run."""
    from pipeline.errors import ConfigError
    from pipeline.video.make import Request

    if options.every < 1:
        raise ConfigError(f"--every {options.every}: at least 1 is needed")
    if not 64 <= options.size <= 2160:
        raise ConfigError(f"--size {options.size}: expected 64 to 2160 pixels")
    episodes = None
    if options.episodes is not None:
        match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", options.episodes)
        if match is None:
            raise ConfigError(f"--episodes {options.episodes}: expected A..B, as in 1..3")
        episodes = (int(match[1]), int(match[2] or match[1]))
    formats = ("mp4", "gif") if options.format == "both" else (options.format,)
    return Request(
        run=options.run,
        task=options.task,
        episodes=episodes,
        every=options.every,
        size=options.size,
        formats=formats,
        out=options.out,
        camera=options.camera,
        quiet=options.quiet,
    )
