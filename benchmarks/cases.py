"""The shapes that are timed: published settings, and synthetic data of the right shapes and types.

Gridworld and semi-circle are the `_published` presets with random behaviour in their simulators.
Half-cheetah-vel has no task family yet: its published settings stand here, and its data come from a
stand-in without physics. Published observations carry a done flag besides; here nobody's do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from algorithms.collecting import Actor, ExperienceLog, group_simulator, run_trials
from algorithms.elbo_batch import ElboBatch, make_batch
from algorithms.filtering import encode_trials
from algorithms.learners.base import Learner
from algorithms.learners.registry import make_learner as build_learner
from algorithms.vae_files import describe
from datasets.behind import Behind
from datasets.hyper_state_layout import HyperStateLayout
from datasets.hyper_states import HyperStateWriter
from datasets.trials import Trials
from environments.base import Float32, Float64, TaskFamily
from environments.registry import load_family
from models.vae import Vae
from pipeline.config import RunConfig
from pipeline.presets import load_config

CASES = ("gridworld", "point_robot_sparse", "cheetah_vel")

_CHEETAH_LEARNER = {
    "rule": "sac",
    "learning_rate": 3e-4,
    "actor_learning_rate": 3e-4,
    "discount": 0.99,
    "polyak": 0.005,
    "temperature": 0.2,
}
_CHEETAH: dict[str, Any] = {
    "collect": {
        "domain": "benchmarks.cheetah_shapes:CheetahShapes",
        "tasks": {"train": 100, "test": 20},
        "random_trials": 50,
        "iterations": 1000,
        "trials_per_iteration": 2,  # 2050 trials a task in all
        "updates_per_iteration": 2000,
        "batch_size": 256,
        "learner": _CHEETAH_LEARNER | {"critic_layers": (128, 128), "actor_layers": (128, 128)},
    },
    "vae": {
        "updates": 642_500,  # 100 epochs of ceil(2050 / 8) trials x ceil(100 / 4) tasks
        "tasks_per_batch": 4,
        "trials_per_task": 8,
        "learning_rate": 3e-4,
        "model": {
            "encoder": {
                "latent_dim": 5,
                "gru_size": 128,
                "action_embedding": 16,
                "observation_embedding": 32,
                "reward_embedding": 16,
            },
            "reward_decoder": {
                "layers": (32, 32),
                "likelihood": "squared-error",
                "inputs": ("action", "observation", "next_observation"),
            },
        },
        "elbo": {"kl_weight": 20.0},  # published: 0.05 beside a mean over T = 400; ours is a sum
    },
    "offline": {
        "learner": _CHEETAH_LEARNER | {"critic_layers": (256, 256), "actor_layers": (256, 256)},
        "normalise": False,
        "updates": 1_000_000,
        "batch_size": 4096,  # published: 256 transitions of each of 16 tasks
    },
}


@dataclass(frozen=True)
class Case:
    """A domain with its published settings."""

    name: str
    config: RunConfig
    family: TaskFamily

    @property
    def state_dim(self) -> int:
        """Width of a hyper-state."""
        return self.family.spec.observation_dim + 2 * self.config.vae.model.encoder.latent_dim


def load_case(name: str) -> Case:
    """One of `CASES`."""
    if name == "cheetah_vel":
        config = RunConfig.model_validate(_CHEETAH)
    else:
        config = load_config(f"{name}_published").config
    return Case(name, config, load_family(config.collect.domain))


def make_tasks(case: Case, count: int, seed: int = 0) -> Float64:
    """Distinct tasks (count, task)."""
    return case.family.sample_tasks(count, np.random.default_rng(seed))


def make_log(case: Case, tasks: Float64, trials: int, seed: int = 0) -> ExperienceLog:
    """`trials` trials of random behaviour on every task, from the starts of collection."""
    start = case.config.collect.start
    generator = torch.Generator().manual_seed(seed)
    log = ExperienceLog.empty(case.family, len(tasks), trials, case.family.spec.episodes)
    simulator = group_simulator(case.family, tasks, trials, start)
    actor = Actor(None, case.family, generator, random_share=1.0)
    run_trials(log, simulator, trials, actor, np.random.default_rng(seed))
    return log


def make_vae(case: Case, seed: int = 0) -> Vae:
    """A model with initial weights."""
    spec = case.family.spec
    description = describe(
        case.config.vae.model, case.config.collect.domain, spec, spec.episodes, spec.horizon
    )
    return description.build(torch.Generator().manual_seed(seed))


def make_elbo_batch(case: Case, trials: int | None = None, seed: int = 0) -> ElboBatch:
    """A batch of `trials` trials of as many tasks as the settings say, all of them if None."""
    vae = case.config.vae
    tasks = min(vae.tasks_per_batch, trials or vae.tasks_per_batch)
    each = vae.trials_per_task if trials is None else trials // tasks
    log = make_log(case, make_tasks(case, tasks, seed), each, seed)
    joined = Trials.concatenate([log.trials(task) for task in range(tasks)])
    return make_batch(joined, case.family, vae.model.reward_decoder)


def make_noise(case: Case, batch: ElboBatch, seed: int = 0) -> Tensor:
    """Standard normal noise (B, T + 1, L) for a batch."""
    trials, steps = batch.transitions.rewards.shape
    shape = (trials, steps + 1, case.config.vae.model.encoder.latent_dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make_learner(
    case: Case,
    stage: Literal["collect", "offline"],
    agents: int = 1,
    seed: int = 0,
    device: str = "cpu",
) -> Learner:
    """The agents of a stage with initial weights."""
    spec = case.family.spec
    collects = stage == "collect"
    return build_learner(
        case.config.collect.learner if collects else case.config.offline.learner,
        spec.observation_dim if collects else case.state_dim,
        spec.action_dim,
        spec.n_actions,
        agents=agents,
        seed=seed,
        device=device,
    )


def make_beliefs(vae: Vae, trials: Trials) -> Float32:
    """Beliefs (N, T + 1, 2L) of a task's trials."""
    return encode_trials(vae, trials, block_trials=256)


def write_noise(case: Case, folder: Path, tasks: int, nbytes: int) -> HyperStateLayout:
    """Hyper-states of the case's shapes and about `nbytes`, all of them random numbers."""
    spec, rng = case.family.spec, np.random.default_rng(0)
    one = HyperStateLayout(
        tasks=1,
        trials=1,
        episodes=spec.episodes,
        horizon=spec.horizon,
        observation_dim=spec.observation_dim,
        action_dim=spec.action_dim,
        latent_dim=case.config.vae.model.encoder.latent_dim,
        n_actions=spec.n_actions,
    )
    trials = nbytes // tasks // one.nbytes(one.fields())
    layout = replace(one, tasks=tasks, trials=trials)
    with HyperStateWriter(folder / "hyper_states.zarr", layout) as writer:
        for task in range(tasks):
            arrays: dict[str, Any] = {
                name: rng.uniform(-1, 1, field.shape[1:]).astype(field.dtype)  # 0 for whole numbers
                for name, field in layout.fields().items()
            }
            arrays["terminations"][:] = False
            writer.write_task(task, arrays)
    return layout


def write_hyper_states(case: Case, vae: Vae, log: ExperienceLog, folder: Path) -> None:
    """The log's trials with their beliefs in `folder`, as the relabel stage writes them."""
    tasks, trials, episodes, horizon = log.rewards.shape
    spec = case.family.spec
    layout = HyperStateLayout(
        tasks=tasks,
        trials=trials,
        episodes=episodes,
        horizon=horizon,
        observation_dim=spec.observation_dim,
        action_dim=spec.action_dim,
        latent_dim=vae.encoder.latent_dim,
        n_actions=spec.n_actions,
        belief_rewards=False,
    )
    with HyperStateWriter(folder / "hyper_states.zarr", layout) as writer, Behind() as behind:
        for task in range(tasks):
            own = log.trials(task)
            behind.call(
                writer.write_task,
                task,
                {
                    "observations": own.observations,
                    "actions": own.actions,
                    "rewards": own.rewards,
                    "terminations": own.terminations,
                    "beliefs": make_beliefs(vae, own),
                },
            )
