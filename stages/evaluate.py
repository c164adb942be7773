"""Stage 5, evaluate: K episodes on every test task from the prior, all tasks as one batch.

Beside the agent stand the oracle, which knows the task, a task-blind agent, and scripted search
where the family defines it. The protocol is part of the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from algorithms.agent_files import BEST, FINAL, load_agent
from algorithms.filtering import OnlineFilter
from algorithms.rollouts import MetaAgent, Rollouts, roll_out
from algorithms.vae_files import load_vae
from datasets.checkpoints import save_tensors
from datasets.files import read_json, write_json
from datasets.trial_store import CollectionMeta, read_meta
from environments.registry import load_family
from stages.config import EvaluateConfig
from stages.context import StageContext
from stages.errors import StageError
from stages.seeds import numpy_generator


def evaluate(
    config: EvaluateConfig,
    seed: int,
    inputs: Mapping[str, Path],
    output: Path,
    context: StageContext,
) -> None:
    """Score the agent on the test tasks: scores.json and rollouts.safetensors.

    Raises:
        StageError: the agent was trained on another domain than the trials'.
    """
    torch.set_num_threads(context.threads)
    meta = read_meta(inputs["trials"])
    family = load_family(meta.family)
    trained_on = read_json(inputs["agent"] / "agent.json")["family"]
    if trained_on != family.spec.name:
        raise StageError(
            f"evaluate: the agent was trained on {trained_on}, the trials are of {family.spec.name}"
        )
    episodes = config.episodes or meta.episodes
    tasks = np.repeat(meta.tasks_test, config.trials_per_task, axis=0)
    belief_filter = OnlineFilter(load_vae(inputs["vae"], context.device))

    def run(agent: MetaAgent) -> Rollouts:
        rng = numpy_generator(seed, "evaluate", "starts")  # the same starts for every agent
        return roll_out(
            family, tasks, agent, belief_filter, episodes, config.start, rng, context.device
        )

    final = run(load_agent(inputs["agent"], FINAL, context.device))
    contenders = {
        "agent": final,
        "agent_best": run(load_agent(inputs["agent"], BEST, context.device)),
    }
    if "blind-agent" in inputs:
        contenders["blind"] = run(load_agent(inputs["blind-agent"], FINAL, context.device))
    count = config.trials_per_task
    returns = {name: _by_task(r.returns, count) for name, r in contenders.items()}
    success = {name: _by_task(r.solved[:, None], count)[:, 0] for name, r in contenders.items()}
    returns["oracle"] = family.oracle_returns(meta.tasks_test, episodes)
    searched = family.search_returns(meta.tasks_test, episodes)
    if searched is not None:
        returns["search"] = searched
    write_json(
        output / "scores.json",
        {
            "domain": family.spec.name,
            "protocol": _protocol(config, meta, episodes),
            "tasks": meta.tasks_test.tolist(),
            "returns": {name: values.tolist() for name, values in returns.items()},
            "success": {name: values.tolist() for name, values in success.items()},
        },
    )
    _save_rollouts(output / "rollouts.safetensors", final)


def _by_task(values: NDArray[Any], trials: int) -> NDArray[np.float64]:
    """Mean over a task's trials: (tasks * trials, ...) to (tasks, ...)."""
    grouped = values.reshape(-1, trials, *values.shape[1:]).astype(np.float64)
    mean: NDArray[np.float64] = grouped.mean(1)
    return mean


def _protocol(config: EvaluateConfig, meta: CollectionMeta, episodes: int) -> dict[str, Any]:
    """Everything a reader needs to compare a score with another."""
    return {
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
