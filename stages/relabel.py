"""Stage 3, relabel: every trial through the belief encoder, in order, into the hyper-state store.

Each task is encoded on its own, in blocks of trials, one recurrent pass a block, while the task
before is written; belief 0 is the prior, and the hidden state is never reset inside a trial. A
finished task's beliefs are kept among the checkpoints, so a killed run only has to encode the tasks
that are left.

`relabelled_copies` adds trials whose rewards were relabelled from other tasks' behaviour, before
encoding as always: logs of single-task agents hold few long searches that find nothing, and these
copies hold many. With `original_trials` off only the copies are kept. Donors come from all tasks (a
search of everything needs somebody who went there), from `DONOR_STEPS` steps of theirs at most, so
that memory does not grow with their number.

A single-task agent knows its goal, so in its own log reward follows wherever it heads, before the
belief can know; an offline agent that learns from that over-estimates every heading (the log is
confounded). `relabelling.task_averaging` removes this bias, and with it the noise of which task was
drawn: both outcomes of a step in doubt are kept, each with its chance given the rewards so far, and
targets average over them. The published program has no counterpart to either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from algorithms.donor_plans import DonorPlan, load_plan
from algorithms.donors import Donors
from algorithms.filtering import belief_rewards, encode_outcomes, encode_trials
from algorithms.relabelling import check_relabelling, relabel_batch
from algorithms.vae_files import VaeDescription, load_description, load_vae
from datasets.behind import Behind
from datasets.checkpoints import CheckpointFile
from datasets.files import write_json
from datasets.hyper_state_layout import HyperStateLayout
from datasets.hyper_states import HyperStateWriter
from datasets.trial_store import CollectionMeta, read_meta, read_trials
from datasets.trials import Trials
from environments.base import TaskFamily
from environments.registry import load_family
from models.kernels.parts import takes, torch_resting
from models.vae import Vae
from stages.config import RelabelConfig
from stages.context import Interrupted, StageContext
from stages.errors import StageError
from stages.precision import products
from stages.seeds import numpy_generator, torch_generator

Arrays = dict[str, NDArray[np.float32]]

DONOR_STEPS = 4_000_000
_COPIED_AT_ONCE = 128  # no donor twice among them; so many trials of every task at least are held


def relabel(
    config: RelabelConfig,
    seed: int,
    inputs: Mapping[str, Path],
    output: Path,
    context: StageContext,
) -> None:
    """Encode the trials with the model; writes `hyper_states.zarr` and `meta.json` to `output`.

    Raises:
        StageError: trials and model belong to different families or shapes, or too few trials.
        AlgorithmError: R+ is asked for and the model has no reward decoder.
        Interrupted: the user asked to stop; finished tasks are kept.
    """
    torch.set_num_threads(context.threads)
    meta = read_meta(inputs["trials"])
    description = load_description(inputs["vae"])
    _check_fit(meta, description)
    vae = load_vae(inputs["vae"], context.device)
    family = load_family(meta.family)
    tasks = len(meta.tasks_train)
    if config.relabelled_copies:
        check_relabelling(family, tasks, config.relabelling)
    if config.keeps_outcomes and family.spec.tasks_differ_in == "dynamics":
        raise StageError(
            f"relabel.relabelling.task_averaging: tasks of {family.spec.name} differ in dynamics, "
            "so rewards under other tasks are not known; set it to false"
        )
    donors = None
    if config.relabelled_copies:
        plan = load_plan(inputs["donors"]) if "donors" in inputs else None
        donors = _read_donors(inputs["trials"], meta, family, config, seed, plan)
    writer: HyperStateWriter | None = None
    with (
        products(context.device, "float32"),  # training alone may round
        # beliefs are loops, R+ is not
        torch_resting(takes(vae.encoder.heads.weight) and not config.belief_rewards),
        Behind() as behind,
        context.progress(tasks, "relabel", "task") as bar,
    ):
        for task in range(tasks):
            trials = _read(inputs["trials"], task, meta, config)
            if donors is not None:
                rng = numpy_generator(seed, "relabel", task)
                trials = _with_copies(rng, trials, task, donors, config)
            if writer is None:
                layout = _layout(meta, description, trials, config)
                writer = HyperStateWriter(output / "hyper_states.zarr", layout)
            _check_count(trials, writer.layout.trials, task)
            encoded = _encode(vae, trials, family, config, seed, task, meta.tasks_train, context)
            behind.call(writer.write_task, task, _stored(trials) | encoded)
            bar.advance()
            if context.interrupted and task < tasks - 1:
                raise Interrupted
    assert writer is not None  # a collection has at least one task
    writer.close()
    _write_meta(output / "meta.json", meta, writer.layout, config)


def _encode(
    vae: Vae,
    trials: Trials,
    family: TaskFamily,
    config: RelabelConfig,
    seed: int,
    task: int,
    tasks: NDArray[np.float64],
    context: StageContext,
) -> Arrays:
    """Beliefs (N, T + 1, 2L) of a task's trials, R+ (N, K, H) and other outcomes if asked for."""
    file = CheckpointFile(context.checkpoints / f"task-{task:04d}.safetensors")
    stored = file.load()
    if stored is not None:
        return stored[0]
    if config.keeps_outcomes:
        own = np.full(trials.count, task)
        found = encode_outcomes(vae, trials, own, family, tasks, config.block_trials)
        encoded: Arrays = found._asdict()
    else:
        encoded = {"beliefs": encode_trials(vae, trials, config.block_trials)}
    if config.belief_rewards:
        encoded["belief_rewards"] = belief_rewards(
            vae,
            trials,
            encoded["beliefs"],
            family,
            config.belief_reward_samples,
            torch_generator(seed, "relabel", task, device=context.device),
            config.block_trials,
        )
    file.save(encoded, {})
    return encoded


def _read_donors(
    folder: Path,
    meta: CollectionMeta,
    family: TaskFamily,
    config: RelabelConfig,
    seed: int,
    plan: DonorPlan | None,
) -> Donors:
    """Trials of every task, equally many and drawn at random where all are too many to hold.

    With a plan, the trials that it names.
    """
    if plan is not None:
        return _read_planned(folder, meta, family, config, plan)
    rng = numpy_generator(seed, "relabel", "donors")
    tasks = len(meta.tasks_train)
    most = max(_COPIED_AT_ONCE, DONOR_STEPS // (tasks * meta.episodes * meta.horizon))
    parts = []
    for task in range(tasks):
        trials = replace(_read(folder, task, meta, config), infos={})
        if trials.count > most:
            trials = trials.select(np.sort(rng.choice(trials.count, most, replace=False)))
        parts.append(trials)
    return _joined(parts, family, meta)


def _read_planned(
    folder: Path,
    meta: CollectionMeta,
    family: TaskFamily,
    config: RelabelConfig,
    plan: DonorPlan,
) -> Donors:
    """The trials that a plan names, and the plan with their numbers among those."""
    parts, trial = [], plan.trial.copy()
    for task in range(len(meta.tasks_train)):
        theirs = plan.task == task
        named, trial[theirs] = np.unique(plan.trial[theirs], return_inverse=True)
        trials = replace(read_trials(folder, task, meta).select(named), infos={})
        pieces = config.relabelling.piece_steps
        parts.append(trials if pieces is None else trials.cut(pieces))
    return _joined(parts, family, meta)._replace(plan=replace(plan, trial=trial))


def _joined(parts: list[Trials], family: TaskFamily, meta: CollectionMeta) -> Donors:
    """Donors of all tasks, each of whose trials are a part."""
    firsts = np.cumsum([0, *(part.count for part in parts)])
    pools = [np.arange(*ends) for ends in pairwise(firsts)]
    joined = Trials.concatenate(parts)
    return Donors(joined, pools, family, meta.tasks_train, firsts=firsts[:-1])


def _with_copies(
    rng: np.random.Generator, trials: Trials, task: int, donors: Donors, config: RelabelConfig
) -> Trials:
    """The trials of a task, if they are to be kept, and copies relabelled from donors' trials."""
    own = replace(trials, infos={})
    parts = np.array_split(np.arange(own.count), math.ceil(own.count / _COPIED_AT_ONCE))
    copies = [
        relabel_batch(rng, own.select(part), np.full(len(part), task), donors, config.relabelling)
        for _ in range(config.relabelled_copies)
        for part in parts
    ]
    return Trials.concatenate([*[own][: config.original_trials], *copies])


def _read(folder: Path, task: int, meta: CollectionMeta, config: RelabelConfig) -> Trials:
    """The trials of a task to keep, cut into pieces where donors change inside episodes."""
    trials = _select(read_trials(folder, task, meta), config, task)
    pieces = config.relabelling.piece_steps
    return trials if pieces is None or not config.relabelled_copies else trials.cut(pieces)


def _select(trials: Trials, config: RelabelConfig, task: int) -> Trials:
    """The trials to keep."""
    if trials.count <= config.skip_trials:
        raise StageError(
            f"relabel.skip_trials is {config.skip_trials}, but task {task} has only "
            f"{trials.count} trials"
        )
    last = None if config.trials is None else config.skip_trials + config.trials
    kept = trials.select(slice(config.skip_trials, last))
    if config.trials is not None and kept.count < config.trials:
        raise StageError(
            f"relabel.trials is {config.trials}, but task {task} has {kept.count} trials"
            + (f" after the first {config.skip_trials}" if config.skip_trials else "")
        )
    return kept


def _check_count(trials: Trials, expected: int, task: int) -> None:
    if trials.count != expected:
        raise StageError(
            f"task {task} has {trials.count} trials and task 0 has {expected}: set relabel.trials "
            "to what every task has"
        )


def _check_fit(meta: CollectionMeta, description: VaeDescription) -> None:
    for name in ("family", "observation_dim", "action_dim", "n_actions"):
        found, wanted = getattr(meta, name), getattr(description, name)
        if found != wanted:
            raise StageError(
                f"the model was trained for {name} {wanted!r}, but the trials have {found!r}"
            )


def _layout(
    meta: CollectionMeta, description: VaeDescription, trials: Trials, config: RelabelConfig
) -> HyperStateLayout:
    return HyperStateLayout(
        tasks=len(meta.tasks_train),
        trials=trials.count,
        episodes=trials.episodes,
        horizon=trials.horizon,
        observation_dim=meta.observation_dim,
        action_dim=meta.action_dim,
        latent_dim=description.model.encoder.latent_dim,
        n_actions=meta.n_actions,
        belief_rewards=config.belief_rewards,
        outcomes=config.keeps_outcomes,
        pieces=meta.horizon // trials.horizon,
    )


def _stored(trials: Trials) -> dict[str, NDArray[np.generic]]:
    names = ("observations", "actions", "rewards", "terminations")
    return {name: getattr(trials, name) for name in names}


def _write_meta(
    path: Path, meta: CollectionMeta, layout: HyperStateLayout, config: RelabelConfig
) -> None:
    """All that the collection says of itself, and what was kept of it."""
    kept = {
        "trials": layout.trials,
        "skipped_trials": config.skip_trials,
        "latent_dim": layout.latent_dim,
        "belief_rewards": layout.belief_rewards,
    }
    write_json(path, {**meta.to_json(), "hyper_states": kept})
