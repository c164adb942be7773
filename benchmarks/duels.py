"""Each stage on each case: our code and the plain loop, ready to be timed on the same work."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
import torch

from algorithms.collecting import Actor, ExperienceLog, group_simulator, run_trials
from algorithms.elbo import elbo
from algorithms.filtering import OnlineFilter
from algorithms.learners.base import Learner
from algorithms.optimisers import optimise
from algorithms.relabelling import relabel_rewards
from algorithms.rollouts import MetaAgent, roll_out
from benchmarks import cases, floor
from benchmarks.cases import Case
from benchmarks.reference import elbo as plain_elbo
from benchmarks.reference import evaluation, hyper_states, offline, rewards
from benchmarks.reference.agents import plain_agent
from benchmarks.reference.buffers import ReplayBuffer
from benchmarks.reference.collection import Collection
from benchmarks.reference.elbo import PlainVae
from benchmarks.reference.networks import PlainEncoder
from benchmarks.reference.simulators import make_simulator
from benchmarks.settings import Settings
from datasets.trials import Trials
from environments.base import Float64
from models.kernels.parts import torch_resting
from stages.residents import Residents
from stages.stored_tasks import StoredTasks

COLLECTED_TASKS, EVALUATED_TASKS = 80, 20
_LOGGED_TRIALS = 40  # a task, of the logs that are encoded and learned from
_LOGGED_TASKS = 16
_ENCODED_TASKS, _ENCODED_TRIALS = 8, 512  # published runs hold 500 to 2,000 trials a task
_ROTATED_TASKS = 64
ROTATED_BYTES = 256 << 20  # of all of these tasks
_SHARE_HELD = 4  # one part in so many of those is the memory that they get

Work = Callable[[], float]
"""Does some work, a fraction of a second of it; returns how many units that was."""


@dataclass(frozen=True)
class Duel:
    """Two ways to do the same work."""

    stage: str
    case: str
    unit: str
    ours: Work
    plain: Work
    operations: float | None = None  # of a unit, that nobody can do without
    moved: float | None = None  # bytes of a unit that are read or written at least
    plain_settings: Settings = Settings.DEFAULT


def collection(case: Case) -> Duel:
    """Gradient steps of single-task agents, each on a draw from its own log."""
    config, spec = case.config.collect, case.family.spec
    tasks = _collected_tasks(case)
    log = cases.make_log(case, tasks, trials=4)
    learner = cases.make_learner(case, "collect", agents=len(tasks))
    draws = torch.Generator().manual_seed(0)
    plain = plain_agent(learner)
    steps = 4 * spec.episodes * spec.horizon
    buffer = ReplayBuffer(steps, spec.observation_dim, spec.action_dim, spec.n_actions is not None)
    trials = log.trials(0)
    buffer.size = steps
    arrays = (
        trials.observations[:, :, :-1],
        trials.actions,
        trials.rewards,
        trials.next_observations,
        trials.terminations,
    )
    for field, array in zip(buffer.fields(), arrays, strict=True):
        field[:] = array.reshape(field.shape)
    rng = np.random.default_rng(0)

    @torch_resting(learner.compiles)
    def ours() -> float:
        learner.update(log.sample(config.batch_size, draws))
        return len(tasks)

    def alone() -> float:
        for _ in range(5):
            plain.update(buffer.sample(rng, config.batch_size))
        return 5

    operations = config.batch_size * floor.agent_update(
        config.learner, spec.observation_dim, spec.action_dim, spec.n_actions
    )
    return Duel("collection", case.name, "task-update", ours, alone, operations)


def acting(case: Case) -> Duel:
    """A round's trials of single-task agents in their environments, logged."""
    config, spec = case.config.collect, case.family.spec
    tasks = _collected_tasks(case)
    learner = cases.make_learner(case, "collect", agents=len(tasks))
    simulator = group_simulator(case.family, tasks, config.trials_per_iteration, config.start)
    log = ExperienceLog.empty(case.family, len(tasks), config.trials_per_iteration, spec.episodes)
    share = config.epsilon_end if spec.n_actions is not None else 0.0
    actor = Actor(learner, case.family, torch.Generator().manual_seed(0), share)
    starts = np.random.default_rng(0)
    alone = Collection(
        plain_agent(learner),
        make_simulator(case.family, tasks[0], config.start),
        spec,
        config,
        np.random.default_rng(0),
    )

    def ours() -> float:
        log.filled = 0
        run_trials(log, simulator, config.trials_per_iteration, actor, starts)
        return log.rewards.numel()

    def one_by_one() -> float:
        alone.buffer.size = 0
        alone.collect_trial(share)
        return log.rewards[0, 0].numel()

    operations = floor.acting(config.learner, spec.observation_dim, spec.action_dim, spec.n_actions)
    return Duel("collection, acting", case.name, "step", ours, one_by_one, operations)


def vae_update(case: Case) -> Duel:
    """A gradient step on the ELBO of a published batch."""
    config = case.config.vae
    vae, batch = cases.make_vae(case), cases.make_elbo_batch(case)
    noise = cases.make_noise(case, batch)
    plain = PlainVae(vae)
    optimiser = optimise(list(vae.parameters()), config.learning_rate, None)
    plain_optimiser = torch.optim.Adam(plain.parameters(), config.learning_rate)

    @torch_resting()
    def ours() -> float:
        optimiser.step(elbo(vae, batch, noise, config.elbo).loss[None])
        return 1

    def looped() -> float:
        plain_elbo.update(plain, plain_optimiser, batch, noise, config.elbo)
        return 1

    trials, steps = batch.transitions.rewards.shape
    operations = floor.elbo_update(vae, trials, steps)
    return Duel("VAE update", case.name, "update", ours, looped, operations)


def state_relabelling(case: Case) -> Duel:
    """Beliefs of tasks' trials; ours writes the hyper-states to a Zarr store as well."""
    vae = cases.make_vae(case).requires_grad_(False)
    log = cases.make_log(case, cases.make_tasks(case, _ENCODED_TASKS), _ENCODED_TRIALS)
    plain = PlainEncoder(vae.encoder)

    @torch_resting()
    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            cases.write_hyper_states(case, vae, log, Path(folder))
        return log.rewards.numel()

    def stepped() -> float:
        hyper_states.encode_trials(plain, log.trials(0))  # a task costs the same as any other
        return log.rewards[0].numel()

    width = case.state_dim + case.family.spec.action_dim + 1
    return Duel(
        "state relabelling",
        case.name,
        "transition",
        ours,
        stepped,
        floor.encoder_step(vae.encoder),
        moved=4.0 * width,
    )


def offline_update(case: Case) -> Duel:
    """A gradient step of the meta-agent on a draw of hyper-states."""
    config = case.config.offline
    vae = cases.make_vae(case).requires_grad_(False)
    tasks = _some_tasks(case, _LOGGED_TASKS)
    log = cases.make_log(case, tasks, _LOGGED_TRIALS)
    with tempfile.TemporaryDirectory() as folder:
        cases.write_hyper_states(case, vae, log, Path(folder))
        residents = Residents(
            StoredTasks(Path(folder), config), config, np.random.default_rng(0), "cpu"
        )
        residents.turn_to(0)
    learner = cases.make_learner(case, "offline")
    draws = torch.Generator().manual_seed(0)
    parts = [log.trials(task) for task in range(len(tasks))]
    buffers = [offline.fill_buffer(part, cases.make_beliefs(vae, part)) for part in parts]
    agent, rng = plain_agent(learner), np.random.default_rng(0)
    drawn = offline.draw_tasks(rng, buffers)

    @torch_resting(learner.compiles)
    def ours() -> float:
        learner.update(residents.table.sample(config.batch_size, draws))
        return 1

    def task_by_task() -> float:
        offline.update(agent, rng, buffers, drawn)
        return 1

    operations = _offline_operations(case)
    return Duel("offline RL update", case.name, "update", ours, task_by_task, operations)


def rotation(case: Case) -> Duel:
    """The same step on a store that exceeds its memory; the plain side holds all of it."""
    config = case.config.offline
    folder = tempfile.TemporaryDirectory()
    layout = cases.write_noise(case, Path(folder.name), _ROTATED_TASKS, ROTATED_BYTES)
    updates = layout.trials * layout.steps // config.batch_size  # a turn of the rotation

    def learning(nbytes: int) -> Work:
        limited = config.model_copy(update={"memory_gb": nbytes / 2**30})
        draws, done = torch.Generator().manual_seed(0), count()

        @cache  # on the first call: peaks of memory are those of one side alone
        def prepared() -> tuple[Residents, Learner]:
            tasks = StoredTasks(Path(folder.name), limited)
            rng = np.random.default_rng(0)
            return Residents(tasks, limited, rng, "cpu"), cases.make_learner(case, "offline")

        def work() -> float:
            residents, learner = prepared()
            with torch_resting(learner.compiles):
                for _ in range(updates):
                    residents.turn_to(next(done))
                    learner.update(residents.table.sample(config.batch_size, draws))
            return updates

        return work

    operations = _offline_operations(case)
    return Duel(
        "offline RL, rotating",
        case.name,
        "update",
        learning(ROTATED_BYTES // _SHARE_HELD),
        learning(4 * ROTATED_BYTES),  # more than enough
        operations,
        plain_settings=Settings.BEST,
    )


def evaluate(case: Case) -> Duel:
    """Meta-episodes on held-out tasks, from the prior."""
    spec = case.family.spec
    vae = cases.make_vae(case).requires_grad_(False)
    learner = cases.make_learner(case, "offline")
    tasks = _some_tasks(case, EVALUATED_TASKS)
    agent, encoder = plain_agent(learner), PlainEncoder(vae.encoder)
    simulators = [make_simulator(case.family, task, "origin") for task in tasks[:2]]
    rng = np.random.default_rng(0)

    def ours() -> float:
        filtered = roll_out(
            case.family,
            tasks,
            MetaAgent(learner, beliefs=True),
            OnlineFilter(vae),
            spec.episodes,
            "origin",
            rng,
        )
        return filtered.rewards.size

    def one_by_one() -> float:
        for simulator in simulators:  # a task costs the same, however many there are
            evaluation.evaluate_task(agent, encoder, simulator, spec.episodes, spec.horizon, rng)
        return len(simulators) * spec.episodes * spec.horizon

    operations = floor.evaluation_step(case, vae.encoder)
    return Duel("evaluation", case.name, "step", ours, one_by_one, operations)


def reward_relabelling(case: Case) -> Duel:
    """Rewards of the donors' episodes in a batch of trials, under the trials' tasks."""
    vae = case.config.vae
    tasks = _some_tasks(case, vae.tasks_per_batch)
    log = cases.make_log(case, tasks, vae.trials_per_task)
    each = [log.trials(task) for task in range(len(tasks))]
    trials, donors = Trials.concatenate(each), Trials.concatenate(each[1:] + each[:1])
    own = np.repeat(tasks, vae.trials_per_task, axis=0)
    single = [make_simulator(case.family, task, "origin").reward for task in own]
    relabelled = trials.count * max(1, trials.episodes // 2) * trials.horizon

    def ours() -> float:
        relabel_rewards(trials, donors, case.family, own)
        return relabelled

    def one_by_one() -> float:
        rewards.relabel_rewards(trials, donors, single)
        return relabelled

    spec = case.family.spec
    width = 2 * spec.observation_dim + spec.action_dim + 1
    moved = 4.0 * width
    return Duel("reward relabelling", case.name, "transition", ours, one_by_one, moved=moved)


DUELS: dict[str, Callable[[Case], Duel]] = {
    "collection": collection,
    "acting": acting,
    "vae": vae_update,
    "relabel": state_relabelling,
    "offline": offline_update,
    "rotation": rotation,
    "evaluation": evaluate,
    "rewards": reward_relabelling,
}

TARGETS: dict[str, tuple[float, ...]] = {
    "collection": (30, 15, 3),
    "acting": (),
    "vae": (12, 3.2, 6.5),
    "relabel": (3, 3, 3),
    "offline": (2.5, 2, 2),
    "rotation": (0.7, 0.7, 0.7),
    "evaluation": (30, 30),
    "rewards": (50, 50, 50),
}
"""How many times as fast as the plain loop we want to be at least, in the order of `CASES`."""


def _collected_tasks(case: Case) -> Float64:
    """COLLECTED_TASKS of them: where there are fewer, as several seeds side by side would have."""
    tasks = _some_tasks(case, COLLECTED_TASKS)
    return tasks[np.arange(COLLECTED_TASKS) % len(tasks)]


def _some_tasks(case: Case, count: int) -> Float64:
    """`count` distinct tasks, or all where there are fewer."""
    every = case.family.all_tasks()
    return cases.make_tasks(case, count if every is None else min(count, len(every)))


def _offline_operations(case: Case) -> int:
    """Of an update of the meta-agent, for the floor."""
    config, spec = case.config.offline, case.family.spec
    return config.batch_size * floor.agent_update(
        config.learner, case.state_dim, spec.action_dim, spec.n_actions
    )
