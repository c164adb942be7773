"""Stage 5, evaluate: K episodes on every test task from the prior, all tasks as one batch.

Beside the agent stands a task-blind agent and, where the family defines them, the oracle, which
knows the task, and scripted search. The protocol is part of the result, and where episodes start is
checked: wide starts belong to collection, and only a configuration that says so evaluates on them
(the oracle then has the same starts, and search, which is defined from the origin, stays out).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from algorithms.agent_files import (
    BEST,
    FINAL,
    AgentDescription,
    load_agent,
    load_agent_description,
)
from algorithms.filtering import OnlineFilter
from algorithms.rollouts import (
    Agent,
    Context,
    ExploringAgent,
    OracleAgent,
    Rollouts,
    gather_context,
    roll_out,
)
from algorithms.vae_files import load_description, load_vae
from datasets.checkpoints import save_tensors
from datasets.files import write_json
from datasets.flat_hdf5 import open_flat
from datasets.trial_store import CollectionMeta, read_meta, task_path
from environments.base import TaskFamily
from environments.processes import parallel_simulator
from environments.registry import load_family
from stages.config import EvaluateConfig
from stages.context import Interrupted, StageContext
from stages.errors import StageError
from stages.precision import products
from stages.seeds import numpy_generator

GIVEN_CONTEXT = "agent_given_context"
_ADAPTING = ("agent", "agent_best")  # who gains by looking around in the first episode

Contenders = dict[str, Agent]


def evaluate(
    config: EvaluateConfig,
    seed: int,
    inputs: Mapping[str, Path],
    output: Path,
    context: StageContext,
) -> None:
    """Score the agents on the test tasks: scores.json and rollouts.safetensors.

    Raises:
        StageError: an agent and the trials are of different domains, or the domain has changed.
        AlgorithmError: the domain starts episodes elsewhere than configured.
        Interrupted: the user asked to stop.
    """
    torch.set_num_threads(context.threads)
    meta = read_meta(inputs["trials"])
    family = load_family(meta.family)
    _check_horizon(meta, family)
    episodes = config.episodes or meta.episodes
    tasks = np.repeat(meta.tasks_test, config.trials_per_task, axis=0)
    contenders = _contenders(inputs, family, context.device)
    if config.start != "origin" and family.has_oracle:  # where the family has no returns of its own
        contenders["oracle"] = OracleAgent(family, tasks)
    belief_filter = OnlineFilter(load_vae(inputs["vae"], context.device))
    rollouts: dict[str, Rollouts] = {}
    jobs = len(contenders) + (1 if config.context_episodes else 0)
    with (
        products(context.device, "float32"),  # training alone may round
        parallel_simulator(meta.family, family, tasks, config.start, context.workers) as simulator,
        context.progress(jobs, "evaluate", "agent") as bar,
    ):

        def run(name: str, agent: Agent, shown: Context | None = None) -> None:
            if context.interrupted:
                raise Interrupted("evaluate: stopped")
            rng = numpy_generator(seed, "evaluate", "starts")  # the same starts for every agent
            if config.exploration_noise and name in _ADAPTING:
                noise, steps = config.exploration_noise, family.spec.horizon
                draws = numpy_generator(seed, "evaluate", "exploration")
                agent = ExploringAgent(agent, noise, steps, draws)
            rollouts[name] = roll_out(
                family,
                tasks,
                agent,
                belief_filter,
                episodes,
                config.start,
                rng,
                context.device,
                simulator,
                shown,
            )
            bar.advance()

        for name, agent in contenders.items():
            run(name, agent)
        if config.context_episodes:
            rng = numpy_generator(seed, "evaluate", "context")
            shown = gather_context(
                family, tasks, simulator, config.context_episodes, config.context_noise, rng
            )
            run(GIVEN_CONTEXT, contenders["agent"], shown)
    count = config.trials_per_task
    returns = {name: _by_task(r.returns, count) for name, r in rollouts.items()}
    solved = {name: _by_task(r.solved[:, None], count)[:, 0] for name, r in rollouts.items()}
    by_episode = {name: _by_task(r.episode_successes, count) for name, r in rollouts.items()}
    if config.start == "origin":
        returns |= _references(family, meta.tasks_test, episodes)
        solved |= _reference_successes(family, meta.tasks_test)
    if not family.has_success:
        solved, by_episode = {}, {}
    write_json(
        output / "scores.json",
        {
            "domain": family.spec.name,
            "protocol": _protocol(config, meta, family, episodes),
            "tasks": meta.tasks_test.tolist(),
            "data_return": _data_return(inputs["trials"], meta),
            "returns": {name: values.tolist() for name, values in returns.items()},
            "success": {name: values.tolist() for name, values in solved.items()},
            "episode_success": {name: values.tolist() for name, values in by_episode.items()},
        },
    )
    _save_rollouts(output / "rollouts.safetensors", rollouts["agent"])


def _check_horizon(meta: CollectionMeta, family: TaskFamily) -> None:
    if meta.horizon != family.spec.horizon:
        raise StageError(
            f"evaluate: the trials' episodes have {meta.horizon} steps, those of "
            f"{family.spec.name} have {family.spec.horizon} now; collect anew"
        )


def _contenders(inputs: Mapping[str, Path], family: TaskFamily, device: str) -> Contenders:
    """Final and best weights, and the task-blind agent if there is one."""
    latent_dim = load_description(inputs["vae"]).model.encoder.latent_dim
    for name in ("agent", "blind-agent"):
        if name in inputs:
            _check_agent(load_agent_description(inputs[name]), name, family, latent_dim)
    found: Contenders = {
        "agent": load_agent(inputs["agent"], FINAL, device),
        "agent_best": load_agent(inputs["agent"], BEST, device),
    }
    if "blind-agent" in inputs:
        found["blind"] = load_agent(inputs["blind-agent"], FINAL, device)
    return found


def _check_agent(agent: AgentDescription, name: str, family: TaskFamily, latent_dim: int) -> None:
    spec = family.spec
    if agent.family != spec.name:
        raise StageError(
            f"evaluate: the {name} was trained on {agent.family}, the trials are of {spec.name}"
        )
    needed = spec.observation_dim + (2 * latent_dim if agent.beliefs else 0)
    if agent.state_dim != needed:
        raise StageError(
            f"evaluate: the {name} acts on {agent.state_dim} numbers, but observation and belief "
            f"have {needed}; it was trained with another model"
        )


def _references(
    family: TaskFamily, tasks: NDArray[np.float64], episodes: int
) -> dict[str, NDArray[np.float64]]:
    """Returns (tasks, K) from the origin of who knows the task, and of a search if there is one."""
    found = {
        "oracle": family.oracle_returns(tasks, episodes),
        "goal_blind": family.goal_blind_returns(tasks, episodes),
        "search": family.search_returns(tasks, episodes),
    }
    return {name: returns for name, returns in found.items() if returns is not None}


def _reference_successes(
    family: TaskFamily, tasks: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Whether who knows the task, and who is kept from it, solve the tasks, (tasks,)."""
    found = {
        "oracle": family.oracle_success(tasks),
        "goal_blind": family.goal_blind_success(tasks),
    }
    return {name: values.astype(np.float64) for name, values in found.items() if values is not None}


def _data_return(folder: Path, meta: CollectionMeta) -> float:
    """Mean return of an episode of the logs: what published scores are divided by."""
    total, episodes = 0.0, 0
    for task in range(len(meta.tasks_train)):
        with open_flat(task_path(folder, task)) as file:
            rewards = file.read("rewards")
        total += float(rewards.sum(dtype=np.float64))
        episodes += len(rewards) // meta.horizon
    return total / episodes


def _by_task(values: NDArray[Any], trials: int) -> NDArray[np.float64]:
    """Mean over a task's trials: (tasks * trials, ...) to (tasks, ...)."""
    grouped = values.reshape(-1, trials, *values.shape[1:]).astype(np.float64)
    mean: NDArray[np.float64] = grouped.mean(1)
    return mean


def _protocol(
    config: EvaluateConfig, meta: CollectionMeta, family: TaskFamily, episodes: int
) -> dict[str, Any]:
    """Everything a reader needs to compare a score with another."""
    extra: dict[str, Any] = {}
    if family.spec.goal != "hidden":
        extra["goal"] = family.spec.goal
    if "split" in meta.details:
        extra["split"] = _split_label(meta.details, family)
    if config.exploration_noise:
        extra["exploration"] = f"noise {config.exploration_noise:g} in the first episode"
    if config.context_episodes:
        extra["given_context"] = (
            f"{config.context_episodes} episodes of the script, noise {config.context_noise:g}"
        )
    return extra | {
        "task_count": len(meta.tasks_test),
        "train_task_count": len(meta.tasks_train),
        "test_tasks_seen": meta.test_tasks_seen,
        "start": config.start,
        "collection_start": meta.start,
        "episodes": episodes,
        "horizon": meta.horizon,
        "trials_per_task": config.trials_per_task,
        "policy": "deterministic",
        "belief": "from the prior, carried over all episodes",
        "checkpoint": "final",
    }


def _split_label(details: Mapping[str, Any], family: TaskFamily) -> str:
    """A split's name, with the seed unless it is the one that the name stands for."""
    name, seed = details["split"], details["task_seed"]
    return name if family.split_seeds.get(name) == seed else f"{name}, seed {seed}"


def _save_rollouts(path: Path, rollouts: Rollouts) -> None:
    save_tensors(
        path,
        {
            "observations": rollouts.observations,
            "actions": rollouts.actions,
            "rewards": rollouts.rewards,
            "beliefs": rollouts.beliefs,
            "successes": rollouts.successes,
        },
        {},
    )
