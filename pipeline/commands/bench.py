"""`omrl bench`: every stage timed beside a plain loop; for a source checkout."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `omrl bench` and of `python -m benchmarks`."""
    parser.add_argument(
        "stages",
        nargs="*",
        metavar="STAGE",
        help="collection, acting, vae, relabel, offline, rotation, evaluation, rewards, loss, "
        "startup, device; all but the last if left out",
    )
    parser.add_argument(
        "--case",
        action="append",
        default=[],
        metavar="CASE",
        help="gridworld, point_robot_sparse or cheetah_vel; may be repeated",
    )
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="of both sides (7)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of both sides (2)")
    parser.add_argument("--device", default="cpu", help="of the stage `device`: cpu, cuda, cuda:N")
    parser.add_argument("--no-memory", action="store_true", help="leave the peaks of memory out")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md and .json")


def main(options: argparse.Namespace) -> int:
    """Hand over to the benchmarks, which nothing that is installed may import."""
    from pipeline.errors import ConfigError

    if not (CHECKOUT / "benchmarks" / "__main__.py").is_file():
        raise ConfigError(
            "the plain loops to compare with are not installed: run this in a checkout of the "
            "sources (`make bench`)"
        )
    words = [*options.stages, "--rounds", str(options.rounds), "--threads", str(options.threads)]
    for case in options.case:
        words += ["--case", case]
    words += ["--device", options.device] if options.device != "cpu" else []
    words += ["--no-memory"] if options.no_memory else []
    words += ["--write"] if options.write else []
    command = [sys.executable, "-m", "benchmarks", *words]
    return subprocess.run(command, cwd=CHECKOUT, check=False).returncode
