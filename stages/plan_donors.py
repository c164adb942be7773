"""Stage 1b, plan-donors: rewards of donor episodes under other tasks, where a simulator is needed.

Families whose exact rewards need simulator states (`Spec.infos`) cannot be relabelled inside
training at any useful rate. Here donor episodes are chosen for every training task and their
rewards, terminations and shared steps are computed once, from the states in the logs. Later stages
draw from them; a setting of theirs that changes leaves the plan cached.

Before anything is relabelled, the logs are checked: under its own task an episode of every task
must get back exactly the rewards that were recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algorithms.config import RelabellingConfig
from algorithms.donor_plans import DonorPlan, choose_donors, save_plan
from algorithms.relabelling import check_relabelling
from datasets.checkpoints import CheckpointFile
from datasets.files import write_json
from datasets.flat_hdf5 import open_flat
from datasets.trial_store import CollectionMeta, read_meta, read_trials, task_path
from datasets.trials import Trials
from environments.base import Sim, TaskFamily
from environments.registry import load_family
from stages.config import DonorsConfig
from stages.context import Interrupted, StageContext
from stages.errors import StageError
from stages.recomputed_rewards import tolerated
from stages.seeds import numpy_generator
from stages.workers import run_jobs

Arrays = dict[str, NDArray[Any]]

log = logging.getLogger("omrl.stages")


@dataclass(frozen=True)
class DonorJob:
    """The episodes that one task gives as a donor: what a worker needs to relabel them."""

    folder: Path
    checkpoints: Path
    donor: int
    targets: NDArray[np.int64]  # (n,)
    trials: NDArray[np.int64]  # (n,)
    episodes: NDArray[np.int64]  # (n,)

    @property
    def checkpoint(self) -> CheckpointFile:
        """Where the job's result is kept until all are done."""
        return CheckpointFile(self.checkpoints / f"donor-{self.donor:04d}.safetensors")


def plan_donors(
    config: DonorsConfig,
    seed: int,
    inputs: Mapping[str, Path],
    output: Path,
    context: StageContext,
) -> None:
    """Relabel the planned donors of every task; writes plan.safetensors and plan.json.

    Raises:
        AlgorithmError: there is nothing to relabel, or only one task.
        StageError: recorded rewards are not those of the family now.
        Interrupted: the user asked to stop; finished donors are kept.
        ChildProcessError: a worker process was killed; finished donors are kept.
    """
    folder = inputs["trials"]
    meta = read_meta(folder)
    family = load_family(meta.family)
    tasks = len(meta.tasks_train)
    check_relabelling(family, tasks, RelabellingConfig())
    rng = numpy_generator(seed, "plan-donors")
    counts = [_count(folder, task) for task in range(tasks)]
    chosen = choose_donors(rng, counts, meta.episodes, config.episodes)
    task, trial, episode = chosen
    jobs = []
    for donor in range(tasks):
        places = np.nonzero(task == donor)
        jobs.append(
            DonorJob(folder, context.checkpoints, donor, places[0], trial[places], episode[places])
        )
    with context.progress(tasks, "plan-donors", "donor") as bar:
        for done in run_jobs("plan-donors", relabel_donor, jobs, context):
            bar.advance(done)
    results = {job.donor: _finished(job) for job in jobs}
    plan = _assemble(chosen, results, family.spec.horizon, config)
    if not plan.usable.any():
        raise StageError(
            "plan-donors: every donor episode touches the goal from its first step on, so "
            "donors.after_contact=drop leaves nothing; set it to keep"
        )
    _write(output, plan, results, family)


def _count(folder: Path, task: int) -> int:
    with open_flat(task_path(folder, task)) as file:
        return int(file.attributes["trials"])


def _finished(job: DonorJob) -> Arrays:
    """What a donor's checkpoint holds.

    Raises:
        StageError: it is gone or damaged.
    """
    stored = job.checkpoint.load()
    if stored is None:
        raise StageError(
            f"plan-donors: {job.checkpoint.path} was removed or damaged meanwhile; run again to "
            "go on from what is left"
        )
    return stored[0]


def relabel_donor(job: DonorJob, context: StageContext) -> Iterator[int]:
    """Relabel a donor's episodes under their targets into its checkpoint; yields 1 once done.

    The checkpoint holds rewards and terminations (n, H), `shared` (n,) and `gap`: how far the
    recomputed rewards of some of its own episodes are from the recorded ones.

    Raises:
        StageError: they are further than rounding.
        Interrupted: the user asked to stop before this donor; finished ones are kept.
    """
    if context.interrupted:
        raise Interrupted("plan-donors: stopped after a whole donor")
    if job.checkpoint.load() is None:
        job.checkpoint.save(_relabelled(job), {})
    yield 1


def _relabelled(job: DonorJob) -> Arrays:
    """Rewards, terminations (n, H), shared (n,) and gap of a donor's episodes."""
    meta = read_meta(job.folder)
    family = load_family(meta.family)
    trials = read_trials(job.folder, job.donor, meta)
    for name in family.spec.infos.keys() - trials.infos.keys():
        raise StageError(
            f"plan-donors: the trials of task {job.donor} have no infos/{name}, so their rewards "
            "cannot be recomputed; relabel none, or take trials that have them"
        )
    gap = _own_gap(family, trials, meta, job.donor)
    if not len(job.targets):  # fewer donors are planned than there are other tasks
        empty = np.empty((0, meta.horizon))
        return {
            "rewards": empty.astype(np.float32),
            "terminations": empty.astype(np.bool_),
            "shared": np.empty(0, np.int64),
            "gap": np.array(gap),
        }
    observations = trials.observations[job.trials, job.episodes]
    actions = trials.actions[job.trials, job.episodes]
    sim = _sim(trials, job.trials, job.episodes, meta.tasks_train[job.donor])
    targets = meta.tasks_train[job.targets]
    told = (observations[:, :-1], actions, observations[:, 1:], targets[:, None], sim)
    return {
        "rewards": family.reward(*told).astype(np.float32, copy=False),
        "terminations": family.termination(*told),
        "shared": _shared(family, sim, targets, meta.horizon),
        "gap": np.array(gap),
    }


def _shared(
    family: TaskFamily, sim: Sim, targets: NDArray[np.float64], horizon: int
) -> NDArray[np.int64]:
    if not family.spec.solid_goal or not len(targets):
        return np.full(len(targets), horizon)
    return family.shared_prefix(np.asarray(sim["task"][:, 0]), targets, sim)


def _own_gap(family: TaskFamily, trials: Trials, meta: CollectionMeta, task: int) -> float:
    """How far recomputed rewards of a task's first and last episode are from the recorded ones.

    Raises:
        StageError: it is more than rounding.
    """
    rows, slots = np.array([0, trials.count - 1]), np.array([0, trials.episodes - 1])
    observations = trials.observations[rows, slots]
    own = meta.tasks_train[task]
    sim = _sim(trials, rows, slots, own)
    again = family.reward(
        observations[:, :-1], trials.actions[rows, slots], observations[:, 1:], own, sim
    )
    recorded = trials.rewards[rows, slots]
    gaps = np.abs(again.astype(np.float64) - recorded)
    if not (gaps <= np.maximum(tolerated(recorded), _known_gap(meta, task))).all():
        now = dict(family.provenance)
        made = {name: meta.details[name] for name in now if name in meta.details}
        raise StageError(
            f"plan-donors: rewards of task {task} recomputed from its states differ from the "
            f"recorded ones by up to {gaps.max():.3g}, so the data are of another simulator (data: "
            f"{made or 'unknown'}, now: {now}); collect or import anew, or install what made them"
        )
    return float(gaps.max())


def _known_gap(meta: CollectionMeta, task: int) -> float:
    """The gap that an import found in a task's log and took all the same; 0 of other trials."""
    imported = meta.details.get("import")
    return float(imported["logs"][task]["gap"]) if imported is not None else 0.0


def _sim(
    trials: Trials,
    rows: NDArray[np.int64],
    slots: NDArray[np.int64],
    task: NDArray[np.float64],
) -> dict[str, NDArray[Any]]:
    """What a reward needs of some episodes, (n, H, ...)."""
    found = {name: array[rows, slots] for name, array in trials.infos.items()}
    lead = (len(rows), trials.horizon)
    return found | {"task": np.broadcast_to(task, (*lead, len(task)))}


def _assemble(
    chosen: tuple[NDArray[np.int64], ...],
    results: Mapping[int, Arrays],
    horizon: int,
    config: DonorsConfig,
) -> DonorPlan:
    task, trial, episode = chosen
    rewards = np.empty((*task.shape, horizon), np.float32)
    terminations = np.empty(rewards.shape, np.bool_)
    shared = np.empty(task.shape, np.int64)
    for donor, arrays in results.items():
        places = np.nonzero(task == donor)
        rewards[places] = arrays["rewards"]
        terminations[places] = arrays["terminations"]
        shared[places] = arrays["shared"]
    dropping = config.after_contact == "drop"
    usable = shared > 0 if dropping else np.ones_like(task, np.bool_)
    return DonorPlan(task, trial, episode, rewards, terminations, shared, usable, dropping)


def _write(
    output: Path, plan: DonorPlan, results: Mapping[int, Arrays], family: TaskFamily
) -> None:
    save_plan(output, plan)
    touched = float((plan.shared < plan.horizon).mean())
    if family.spec.solid_goal:
        log.warning(
            "%s: the goal is a solid body; %.0f %% of the planned donors touch it, and their "
            "relabelled steps from then on could not have been lived in the other task (%s)",
            family.spec.name,
            100 * touched,
            "left out" if plan.dropping else "kept; donors.after_contact=drop leaves them out",
        )
    write_json(
        output / "plan.json",
        {
            "donor_episodes": int(plan.task.size),
            "transitions": int(plan.rewards.size),
            "largest_own_gap": max(float(arrays["gap"]) for arrays in results.values()),
            "share_touching_the_goal": touched,
            "usable": int(plan.usable.sum()),
            **({"usable_steps": float(plan.limit.mean() / plan.horizon)} if plan.dropping else {}),
        },
    )
