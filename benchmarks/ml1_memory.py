"""Peak memory of every stage on an ML1 set of published size: 50 tasks x 45 episodes x 500 steps.

    python -m benchmarks.ml1_memory FOLDER  # half an hour, some gigabytes; says peaks in GiB

The stages are those of `ml1_published/push`, one after the other on each other's results, but for
the number of updates, on which no peak depends. Every stage runs in a process of its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

from pipeline.plan import Step, chain
from pipeline.presets import load_config
from pipeline.run import load_stage
from stages.context import StageContext

PRESET = "ml1_published/push"
FEW = (
    *("vae.updates=5", "vae.validate_every=5", "vae.log_every=5"),
    *("offline.updates=20", "offline.evaluate_every=20", "offline.log_every=10"),
)
_GIB = 1 << 30


def steps() -> tuple[Step, ...]:
    """The steps of the run."""
    return chain(load_config(PRESET, FEW).config)


def run_step(step: Step, folder: Path) -> float:
    """Run a step on what the ones before it left in the folder; this process's peak in GiB."""
    checkpoints, output = folder / f"{step.name}-checkpoints", folder / step.name
    checkpoints.mkdir(parents=True)
    output.mkdir()
    inputs = {name: folder / made for name, made in step.inputs.items()}
    context = StageContext(checkpoints, quiet=True, threads=1, workers=1)
    load_stage(step.function)(step.config, 0, inputs, output, context)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB


def main() -> int:
    """Run all steps, or the one that is named behind the folder."""
    folder = Path(sys.argv[1])
    if len(sys.argv) > 2:
        step = next(step for step in steps() if step.name == sys.argv[2])
        sys.stdout.write(f"{run_step(step, folder):.2f}\n")
        return 0
    for step in steps():
        command = [sys.executable, "-m", "benchmarks.ml1_memory", str(folder), step.name]
        begun = time.monotonic()
        peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        took = time.monotonic() - begun
        sys.stdout.write(f"{step.name}: {peak} GiB ({took:.0f} s)\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
