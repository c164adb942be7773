"""evaluate: numbers against hand computation, whom it judges from where, and what it refuses."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import CORRIDOR, DRIFT, RESTLESS
from tiny_inputs import LATENT_DIM, make_inputs, save_untrained
from torch import Tensor

import stages.evaluate
from algorithms.agent_files import load_agent_description, save_description
from algorithms.errors import AlgorithmError
from algorithms.filtering import OnlineFilter
from algorithms.rollouts import OracleAgent
from algorithms.vae_files import load_vae
from datasets.checkpoints import load_tensors
from datasets.errors import DataError
from datasets.files import digest_tree, read_json, write_json
from datasets.trial_store import read_meta, read_trials, write_meta
from environments.base import TaskFamily
from environments.registry import load_family
from stages.config import EvaluateConfig, OfflineConfig
from stages.context import Interrupted, StageContext
from stages.errors import StageError
from stages.evaluate import _split_label, evaluate
from stages.train_offline import train_offline

Inputs = dict[str, Path]


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def add_agents(inputs: Inputs, folder: Path, rule: str) -> Inputs:
    """An agent and a task-blind one of three updates each."""
    for name, beliefs in (("agent", True), ("blind-agent", False)):
        config = OfflineConfig.model_validate(
            {
                "learner": {"rule": rule, "critic_layers": (4,), "actor_layers": (4,)},
                "updates": 3,
                "batch_size": 4,
                "beliefs": beliefs,
            }
        )
        (folder / name).mkdir()
        context = StageContext(folder / f"{name}-checkpoints", threads=1, quiet=True)
        train_offline(config, 1, inputs, folder / name, context)
        inputs = inputs | {name: folder / name}
    return inputs


@pytest.fixture(scope="module")
def corridor(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Goals -2, -1, 1, 2; two to train on, two to evaluate on."""
    folder = tmp_path_factory.mktemp("corridor")
    return add_agents(make_inputs(folder, CORRIDOR, 2, train=2, test=2), folder, "dqn")


@pytest.fixture(scope="module")
def drift(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A continuous family with five test tasks."""
    folder = tmp_path_factory.mktemp("drift")
    return add_agents(make_inputs(folder, DRIFT, 2, train=2, test=5), folder, "sac")


def make_context(folder: Path, **settings: Any) -> StageContext:
    """A quiet context of one thread."""
    return replace(StageContext(folder / "checkpoints", threads=1, quiet=True), **settings)


def run(inputs: Inputs, folder: Path, seed: int = 3, **settings: Any) -> dict[str, Any]:
    """Evaluate below `folder`; the scores."""
    output = folder / "output"
    output.mkdir(parents=True)
    evaluate(EvaluateConfig(**settings), seed, inputs, output, make_context(folder))
    scores: dict[str, Any] = read_json(output / "scores.json")
    return scores


class GoRight:
    """Right to 1, then stay, in the corridor."""

    def act(self, observations: Tensor, belief: Tensor) -> Tensor:
        return torch.where(observations < 1, 2, 1)


class GoLeft:
    """Left without end."""

    def act(self, observations: Tensor, belief: Tensor) -> Tensor:
        return torch.zeros(len(observations), 1, dtype=torch.int64)


def fake_agents(monkeypatch: pytest.MonkeyPatch, **agents: Any) -> None:
    """Let files `agent`, `agent_best` and folder `blind` hold these agents."""

    def load(folder: Path, weights: str, device: str) -> Any:
        blind = folder.name == "blind-agent"
        return agents["blind" if blind else weights.removesuffix(".safetensors")]

    monkeypatch.setattr(stages.evaluate, "load_agent", load)


# ---------------------------------------------------------------------- numbers


@pytest.mark.parametrize("start", ["origin", "wide"])
def test_a_family_without_an_oracle_is_scored_without_one(
    corridor: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    fake_agents(monkeypatch, agent=GoRight(), agent_best=GoLeft(), blind=GoLeft())
    monkeypatch.setattr(type(load_family(CORRIDOR)), "oracle_actions", TaskFamily.oracle_actions)
    scores = run(corridor, tmp_path, start=start)
    assert scores["returns"].keys() == {"agent", "agent_best", "blind"}


def test_numbers_by_hand(corridor: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """H = 4, K = 2, from x = 0. Right: 1 1 1 1; goal 1 gives 4. Left: -1 -2 -2 -2."""
    fake_agents(monkeypatch, agent=GoRight(), agent_best=GoLeft(), blind=GoLeft())
    scores = run(corridor, tmp_path)
    goals = read_meta(corridor["trials"]).tasks_test[:, 0]
    right = [4.0 if goal == 1 else 0.0 for goal in goals]
    left = [{-1: 1.0, -2: 3.0}.get(int(goal), 0.0) for goal in goals]
    oracle = [{1: 4.0, 2: 3.0}[abs(int(goal))] for goal in goals]
    returns, success = scores["returns"], scores["success"]
    assert returns["agent"] == [[x, x] for x in right]
    assert returns["agent_best"] == returns["blind"] == [[x, x] for x in left]
    assert returns["oracle"] == [[x, x] for x in oracle]
    assert success["agent"] == [float(x > 0) for x in right]
    assert success["blind"] == success["agent_best"] == [float(x > 0) for x in left]
    assert returns.keys() == {"agent", "agent_best", "blind", "oracle"}
    assert scores["tasks"] == goals[:, None].tolist()
    assert scores["domain"] == "corridor"
    rollouts, _ = load_tensors(tmp_path / "output" / "rollouts.safetensors")
    assert rollouts["observations"][:, :, :, 0].tolist() == [[[0, 1, 1, 1, 1]] * 2] * 2
    assert rollouts["actions"].shape == (2, 2, 4, 1)
    np.testing.assert_array_equal(rollouts["rewards"].sum(-1), returns["agent"])
    assert rollouts["beliefs"].shape == (2, 9, 2 * LATENT_DIM)
    np.testing.assert_array_equal(rollouts["successes"].any((1, 2)), success["agent"])


def test_the_protocol_says_how(corridor: Inputs, tmp_path: Path) -> None:
    protocol = run(corridor, tmp_path, episodes=3, trials_per_task=2)["protocol"]
    assert protocol == {
        "task_count": 2,
        "train_task_count": 2,
        "test_tasks_seen": False,
        "start": "origin",
        "collection_start": "origin",
        "episodes": 3,
        "horizon": 4,
        "trials_per_task": 2,
        "policy": "deterministic",
        "belief": "from the prior, carried over all episodes",
        "checkpoint": "final",
    }


def test_a_family_without_success_has_none(
    corridor: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(load_family(CORRIDOR)), "has_success", False)
    scores = run(corridor, tmp_path)
    assert (scores["success"], scores["episode_success"]) == ({}, {})


def test_noise_is_in_the_first_episode_of_the_adapting_agents_alone(
    drift: Inputs, tmp_path: Path
) -> None:
    plain = run(drift, tmp_path / "plain", context_episodes=1, context_noise=0.3)
    noisy = run(
        drift,
        tmp_path / "noisy",
        context_episodes=1,
        context_noise=0.3,
        exploration_noise=0.5,
    )
    first, second = (
        load_tensors(tmp_path / name / "output" / "rollouts.safetensors")[0]["actions"]
        for name in ("plain", "noisy")
    )
    assert not np.isclose(first[:, 0], second[:, 0]).any()
    assert np.abs(second).max() <= 1
    for name in ("blind", "agent_given_context"):
        assert plain["returns"][name] == noisy["returns"][name]
    assert plain["returns"]["agent_best"] != noisy["returns"]["agent_best"]
    assert noisy["protocol"]["exploration"] == "noise 0.5 in the first episode"
    again = run(drift, tmp_path / "again", exploration_noise=0.5)
    assert again["returns"]["agent"] == noisy["returns"]["agent"]


def test_the_oracle_as_an_agent_scores_the_oracles_returns(
    drift: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, tasks = load_family(DRIFT), read_meta(drift["trials"]).tasks_test
    oracle = OracleAgent(family, tasks)
    fake_agents(monkeypatch, agent=oracle, agent_best=oracle, blind=oracle)
    returns = run(drift, tmp_path)["returns"]
    np.testing.assert_allclose(returns["agent"], family.oracle_returns(tasks), rtol=1e-6)
    np.testing.assert_allclose(returns["agent"], returns["oracle"], rtol=1e-6)
    assert np.shape(returns["agent"]) == (5, 2)


def test_from_wide_starts_all_have_the_same_ones(
    corridor: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each task is tried often, its trials' mean counts, and the oracle starts likewise."""
    fake_agents(monkeypatch, agent=GoRight(), agent_best=GoRight(), blind=GoLeft())
    scores = run(corridor, tmp_path, start="wide", trials_per_task=200, episodes=1)
    rollouts, _ = load_tensors(tmp_path / "output" / "rollouts.safetensors")
    assert rollouts["rewards"].shape == (400, 1, 4)
    starts = rollouts["observations"][:, 0, 0, 0]
    assert set(starts.tolist()) == {-2, -1, 0, 1, 2}
    goals = read_meta(corridor["trials"]).tasks_test[:, 0].repeat(200)
    distance = np.maximum(np.abs(starts - goals), 1)  # a step that stays ends on the goal too
    oracle = np.maximum(5 - distance, 0).reshape(2, 200).mean(1)
    np.testing.assert_allclose(np.array(scores["returns"]["oracle"])[:, 0], oracle)
    reached = rollouts["rewards"].any((1, 2)).reshape(2, 200).mean(1)
    np.testing.assert_allclose(scores["success"]["agent"], reached)
    assert scores["protocol"]["start"] == "wide"
    assert scores["protocol"]["collection_start"] == "origin"


def test_search_stands_beside_the_agents_where_there_is_one(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path, "gridworld", 1, train=2, test=3)
    inputs = add_agents(inputs, tmp_path, "dqn")
    returns = run(inputs, tmp_path)["returns"]
    tasks = read_meta(inputs["trials"]).tasks_test
    assert returns["search"] == load_family("gridworld").search_returns(tasks).tolist()
    assert "search" not in run(inputs, tmp_path / "wide", start="wide")["returns"]


def test_a_seed_gives_the_same_bytes(drift: Inputs, tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(drift, tmp_path / name, seed, start="wide")
        digests.append(digest_tree(tmp_path / name / "output"))
    assert digests[0] == digests[1] != digests[2]


def test_no_blind_agent_is_needed(drift: Inputs, tmp_path: Path) -> None:
    inputs = {name: path for name, path in drift.items() if name != "blind-agent"}
    scores = run(inputs, tmp_path)
    assert scores["returns"].keys() == {"agent", "agent_best", "oracle"}
    assert scores["success"].keys() == {"agent", "agent_best"}


# ---------------------------------------------------------------------- refusals


def test_a_family_that_starts_elsewhere_is_refused(drift: Inputs, tmp_path: Path) -> None:
    trials = altered_trials(drift, tmp_path, family=RESTLESS)
    with pytest.raises(AlgorithmError, match="evaluation from the origin was asked for"):
        run(drift | {"trials": trials}, tmp_path)


def altered_trials(inputs: Inputs, folder: Path, **changes: Any) -> Path:
    """The trials' facts with changes."""
    (folder / "trials").mkdir()
    write_meta(folder / "trials", replace(read_meta(inputs["trials"]), **changes))
    return folder / "trials"


def test_other_horizons_are_refused(drift: Inputs, tmp_path: Path) -> None:
    trials = altered_trials(drift, tmp_path, horizon=9)
    with pytest.raises(StageError, match="have 9 steps, those of drift have 3 now"):
        run(drift | {"trials": trials}, tmp_path)


def test_test_tasks_among_the_training_tasks_are_refused(drift: Inputs, tmp_path: Path) -> None:
    trials = altered_trials(drift, tmp_path)
    facts = read_json(trials / "tasks.json")
    facts["tasks_test"][2] = facts["tasks_train"][1]
    write_json(trials / "tasks.json", facts)
    with pytest.raises(DataError, match="test task 2 is training task 1"):
        run(drift | {"trials": trials}, tmp_path)


@pytest.mark.parametrize("name", ["agent", "blind-agent"])
def test_agents_of_another_domain_are_refused(
    name: str, drift: Inputs, corridor: Inputs, tmp_path: Path
) -> None:
    with pytest.raises(StageError, match=f"the {name} was trained on corridor, the trials are of"):
        run(drift | {name: corridor[name]}, tmp_path)


def alter_model(inputs: Inputs, folder: Path) -> Inputs:
    """Another model than the agent's."""
    (folder / "vae").mkdir()
    save_untrained(folder / "vae", DRIFT, latent_dim=3)
    return inputs | {"vae": folder / "vae"}


def alter_blind_agent(inputs: Inputs, folder: Path) -> Inputs:
    """A blind agent that says it sees."""
    description = load_agent_description(inputs["blind-agent"])
    (folder / "blind").mkdir()
    save_description(folder / "blind", description.model_copy(update={"beliefs": True}))
    return inputs | {"blind-agent": folder / "blind"}


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (alter_model, "the agent acts on 17 numbers, but observation and belief have 7"),
        (alter_blind_agent, "the blind-agent acts on 1 numbers, but .* have 17"),
    ],
)
def test_agents_of_another_model_are_refused(
    alter: Callable[[Inputs, Path], Inputs], message: str, drift: Inputs, tmp_path: Path
) -> None:
    with pytest.raises(StageError, match=message):
        run(alter(drift, tmp_path), tmp_path)


def test_ctrl_c_stops_between_agents(drift: Inputs, tmp_path: Path) -> None:
    context = make_context(tmp_path)
    context.stop.set()
    (tmp_path / "output").mkdir()
    with pytest.raises(Interrupted):
        evaluate(EvaluateConfig(), 3, drift, tmp_path / "output", context)
    assert not list((tmp_path / "output").iterdir())


@pytest.mark.parametrize(
    ("name", "seed", "label"),
    [("idaq", 1337, "idaq"), ("idaq", 5, "idaq, seed 5"), ("ml1", 1337, "ml1, seed 1337")],
)
def test_a_split_of_another_seed_is_told_apart(name: str, seed: int, label: str) -> None:
    family = load_family("ml1/push")
    assert _split_label({"split": name, "task_seed": seed}, family) == label


def test_given_context_is_read_before_the_agent_acts(
    corridor: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that goes right only if the belief is not the prior any more."""

    class Informed:
        def act(self, observations: Tensor, belief: Tensor) -> Tensor:
            vae = load_vae(corridor["vae"])
            prior = OnlineFilter(vae).reset(len(belief))
            moved = (belief - prior).abs().amax(1, keepdim=True) > 0
            right = torch.where(observations < 1, 2, 1)
            return torch.where(moved, right, torch.ones_like(right))

    fake_agents(monkeypatch, agent=Informed(), agent_best=GoRight(), blind=GoLeft())
    scores = run(corridor, tmp_path, context_episodes=1)
    goals = [task[0] for task in scores["tasks"]]
    online, given = scores["returns"]["agent"], scores["returns"]["agent_given_context"]
    assert given == scores["returns"]["agent_best"]  # informed from the first step on
    if 1 in goals:
        row = goals.index(1)
        assert online[row][0] < given[row][0]
    assert scores["protocol"]["given_context"] == "1 episodes of the script, noise 0.3"
    assert np.shape(scores["episode_success"]["agent_given_context"]) == (len(goals), 2)


def test_what_the_logs_return_is_stored(corridor: Inputs, tmp_path: Path) -> None:
    scores = run(corridor, tmp_path)
    meta = read_meta(corridor["trials"])
    returns = [
        read_trials(corridor["trials"], task, meta).rewards.sum(-1).mean()
        for task in range(len(meta.tasks_train))
    ]
    assert scores["data_return"] == pytest.approx(np.mean(returns))
