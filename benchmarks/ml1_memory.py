"""Peak memory of the stages on an ML1 set of published size: 50 tasks x 45 episodes x 500 steps.

    python -m benchmarks.ml1_memory FOLDER  # some gigabytes of room; says peaks in GiB

The numbers of the data are random, since nothing here depends on them; shapes and settings are
those of `ml1_published`, with a few updates only. Every stage runs in a process of its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from algorithms.donor_plans import DonorPlan, choose_donors, save_plan
from datasets.trial_store import CollectionMeta, write_meta, write_trials
from datasets.trials import Trials
from environments.registry import load_family
from pipeline.presets import load_config
from stages.context import StageContext

DOMAIN, TASKS, TRIALS, K, H = "ml1/push", 50, 15, 3, 500
STAGES = ("train-vae", "relabel", "train-offline")
_GIB = 1 << 30


def write_inputs(folder: Path) -> None:
    """Trials and a donor plan of random numbers."""
    spec = load_family(DOMAIN).spec
    rng = np.random.default_rng(0)
    tasks = load_family(DOMAIN).sample_tasks(TASKS + 1, rng)
    meta = CollectionMeta(
        family=DOMAIN,
        tasks_train=tasks[:TASKS],
        tasks_test=tasks[TASKS:],
        start="wide",
        behaviour="scripted",
        episodes=K,
        horizon=H,
        observation_dim=spec.observation_dim,
        action_dim=spec.action_dim,
    )
    (folder / "trials").mkdir(parents=True)
    write_meta(folder / "trials", meta)
    lead = (TRIALS, K, H)
    ends = np.zeros(lead, np.bool_)
    for task in range(TASKS):
        trials = Trials(
            rng.normal(size=(TRIALS, K, H + 1, spec.observation_dim)).astype(np.float32),
            rng.uniform(-1, 1, (*lead, spec.action_dim)).astype(np.float32),
            rng.uniform(0, 10, lead).astype(np.float32),
            ends,
            ends,
            {name: rng.normal(size=(*lead, width)) for name, width in spec.infos.items()},
        )
        write_trials(folder / "trials", meta, task, trials)
    count = load_config("ml1_published/push").config.donors.episodes
    donors, trial, episode = choose_donors(rng, [TRIALS] * TASKS, K, count)
    rewards = rng.uniform(0, 10, (*donors.shape, H)).astype(np.float32)
    shared = np.full(donors.shape, H)
    usable = np.ones(donors.shape, np.bool_)
    (folder / "donors").mkdir()
    plan = DonorPlan(
        donors, trial, episode, rewards, np.zeros(rewards.shape, np.bool_), shared, usable
    )
    save_plan(folder / "donors", plan)


def run_stage(name: str, folder: Path) -> float:
    """Run a stage on what is in the folder; the process's peak memory in GiB."""
    config: Any = load_config("ml1_published/push").config
    inputs = {kind: folder / kind for kind in ("trials", "donors", "vae", "hyper-states")}
    context = StageContext(folder / f"{name}-checkpoints", quiet=True, workers=1)
    context.checkpoints.mkdir(exist_ok=True)
    if name == "train-vae":
        from stages.train_vae import train_vae

        inputs["vae"].mkdir()
        short = config.vae.model_copy(update={"updates": 3})
        train_vae(short, 0, inputs, inputs["vae"], context)
    elif name == "relabel":
        from stages.relabel import relabel

        inputs["hyper-states"].mkdir()
        relabel(config.relabel, 0, inputs, inputs["hyper-states"], context)
    else:
        from stages.train_offline import train_offline

        output = folder / "agent"
        output.mkdir()
        short = config.offline.model_copy(update={"updates": 20, "evaluate_every": 1000})
        train_offline(short, 0, inputs, output, context)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB


def main() -> int:
    """Run all stages, or the one that is named behind the folder."""
    folder = Path(sys.argv[1])
    if len(sys.argv) > 2:
        sys.stdout.write(f"{run_stage(sys.argv[2], folder):.2f}\n")
        return 0
    write_inputs(folder)
    for name in STAGES:
        command = [sys.executable, "-m", "benchmarks.ml1_memory", str(folder), name]
        peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        sys.stdout.write(f"{name}: {peak} GiB\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
