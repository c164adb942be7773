"""Meta-episodes in one batch against a plain loop over single environments; where they start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.config import LearnerConfig
from algorithms.errors import AlgorithmError
from algorithms.filtering import OnlineFilter, encode_trials
from algorithms.learners.registry import make_learner
from algorithms.rollouts import MetaAgent, OracleAgent, Rollouts, roll_out
from algorithms.vae_files import describe
from datasets.errors import DataError
from datasets.trials import Trials
from environments.base import Float32, Simulator, Start, Step, TaskFamily
from environments.registry import DOMAINS, load_family
from models.config import EncoderConfig, VaeModelConfig
from models.vae import Vae

MODEL = VaeModelConfig(encoder=EncoderConfig(gru_size=12, latent_dim=3, sees_observation=True))
BELIEF = 6


def make_vae(name: str) -> Vae:
    """An untrained belief encoder."""
    spec = load_family(name).spec
    vae = describe(MODEL, name, spec, spec.episodes, spec.horizon).build(
        torch.Generator().manual_seed(0)
    )
    return vae.eval().requires_grad_(False)


def make_agent(name: str, beliefs: bool = True) -> MetaAgent:
    """An untrained agent that reacts to what it sees."""
    spec = load_family(name).spec
    config = LearnerConfig(
        rule="dqn" if spec.n_actions else "sac", critic_layers=(16,), actor_layers=(16,)
    )
    width = spec.observation_dim + (BELIEF if beliefs else 0)
    learner = make_learner(config, width, spec.action_dim, spec.n_actions, seed=5)
    for parameter in learner.parameters():
        parameter.data.mul_(3.0)
    return MetaAgent(learner, beliefs)


@pytest.mark.parametrize("beliefs", [True, False])
@pytest.mark.parametrize("name", ["gridworld", "point_robot_wind"])
def test_a_batch_is_what_single_environments_do(name: str, beliefs: bool) -> None:
    family, vae, agent = load_family(name), make_vae(name), make_agent(name, beliefs)
    tasks = family.sample_tasks(2, np.random.default_rng(1))
    together = roll_out(
        family, tasks, agent, OnlineFilter(vae), 2, "origin", np.random.default_rng(0)
    )
    varied = np.unique(together.actions.reshape(-1, together.actions.shape[-1]), axis=0)
    assert len(varied) > 1 or not beliefs
    for i in range(2):
        simulator, online = family.simulator(tasks[i : i + 1]), OnlineFilter(vae)
        belief, t = online.reset(1), 0
        for k in range(2):
            here = simulator.reset(np.random.default_rng(9))
            for h in range(family.spec.horizon):
                np.testing.assert_allclose(together.observations[i, k, h], here[0], atol=1e-5)
                np.testing.assert_allclose(together.beliefs[i, t], belief[0], atol=1e-5)
                state = torch.from_numpy(here)
                action = agent.act(state, belief)
                np.testing.assert_allclose(together.actions[i, k, h], action[0], atol=1e-5)
                step = simulator.step(action.numpy())
                assert together.rewards[i, k, h] == pytest.approx(step.rewards[0], abs=1e-5)
                assert together.successes[i, k, h] == step.successes[0]
                belief = online.update(action, step.rewards, step.observations, here)
                here, t = step.observations, t + 1
            np.testing.assert_allclose(together.observations[i, k, -1], here[0], atol=1e-5)
        np.testing.assert_allclose(together.beliefs[i, t], belief[0], atol=1e-5)


def test_beliefs_are_those_that_relabelling_gives_the_same_trials() -> None:
    family, vae = load_family("gridworld"), make_vae("gridworld")
    tasks = family.sample_tasks(3, np.random.default_rng(1))
    rollouts = roll_out(
        family, tasks, make_agent("gridworld"), OnlineFilter(vae), 4, "wide",
        np.random.default_rng(0),
    )  # fmt: skip
    ends = np.zeros(rollouts.rewards.shape, np.bool_)
    trials = Trials(rollouts.observations, rollouts.actions, rollouts.rewards, ends, ends)
    np.testing.assert_allclose(encode_trials(vae, trials, 10), rollouts.beliefs, atol=1e-5)


def test_a_blind_agent_ignores_the_belief() -> None:
    observations = torch.rand(5, 2)
    for name in ("gridworld", "point_robot"):
        blind, seeing = make_agent(name, beliefs=False), make_agent(name)
        acted = [blind.act(observations, torch.randn(5, BELIEF)) for _ in range(2)]
        assert torch.equal(*acted)
        assert acted[0].shape == (5, load_family(name).spec.action_dim)
        beliefs = (torch.full((5, BELIEF), x) for x in (-9.0, 9.0))
        assert not torch.equal(*(seeing.act(observations, belief) for belief in beliefs))


@pytest.mark.parametrize("name", [n for n in DOMAINS if load_family(n).has_oracle])
def test_the_oracle_rolled_out_has_the_oracles_returns(name: str) -> None:
    family, vae = load_family(name), make_vae(name)
    tasks = family.sample_tasks(5, np.random.default_rng(2))
    rollouts = roll_out(
        family, tasks, OracleAgent(family, tasks), OnlineFilter(vae), 2, "origin",
        np.random.default_rng(0),
    )  # fmt: skip
    np.testing.assert_allclose(rollouts.returns, family.oracle_returns(tasks, 2), rtol=1e-6)
    assert rollouts.solved.all() or name == "point_robot"


def test_returns_and_successes_by_hand() -> None:
    rewards = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    successes = np.zeros((2, 2, 3), np.bool_)
    successes[1, 0, 2] = True
    rollouts = Rollouts(np.zeros(0), np.zeros(0), rewards, np.zeros(0), successes)  # type: ignore[arg-type]
    np.testing.assert_array_equal(rollouts.returns, [[3, 12], [21, 30]])
    np.testing.assert_array_equal(rollouts.solved, [False, True])


class OddSimulator(Simulator):
    """The wind's simulator with another start, or with a NaN."""

    def __init__(self, inner: Simulator, says: Start, nan: str) -> None:
        self.tasks, self.start, self._inner, self._nan = inner.tasks, says, inner, nan

    def reset(self, rng: np.random.Generator) -> Float32:
        return self._inner.reset(rng)

    def step(self, actions: np.ndarray) -> Step:
        step = self._inner.step(actions)
        if self._nan:
            getattr(step, self._nan)[2] = np.nan
        return step


def roll_out_odd(
    monkeypatch: pytest.MonkeyPatch, inner: Start, says: Start, asked: Start, nan: str = ""
) -> None:
    """Run random agents in an odd simulator."""
    family = load_family("gridworld")
    tasks = family.sample_tasks(3, np.random.default_rng(0))
    simulator = OddSimulator(family.simulator(tasks, inner), says, nan)
    vae, rng = make_vae("gridworld"), np.random.default_rng(0)
    with monkeypatch.context() as patch:
        patch.setattr(type(family), "simulator", lambda self, tasks, start: simulator)
        roll_out(family, tasks, make_agent("gridworld"), OnlineFilter(vae), 2, asked, rng)


def test_another_start_than_configured_is_impossible(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AlgorithmError, match=r"'origin' was asked for, .* starts from 'wide'"):
        roll_out_odd(monkeypatch, "wide", says="wide", asked="origin")
    with pytest.raises(AlgorithmError, match=r"'wide' was asked for, .* starts from 'origin'"):
        roll_out_odd(monkeypatch, "origin", says="origin", asked="wide")
    with pytest.raises(AlgorithmError, match=r"from the origin was asked for, but episode \d"):
        roll_out_odd(monkeypatch, "wide", says="origin", asked="origin")
    roll_out_odd(monkeypatch, "origin", says="origin", asked="origin")
    roll_out_odd(monkeypatch, "wide", says="wide", asked="wide")


@pytest.mark.parametrize(
    ("nan", "place"), [("rewards", "step 0: reward"), ("observations", "step 1: observation")]
)
def test_what_is_not_finite_is_refused_with_its_place(
    nan: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=f"evaluation, trial 2, {place} is NaN"):
        roll_out_odd(monkeypatch, "origin", "origin", "origin", nan)


def test_the_filter_is_on_the_way_of_every_step() -> None:
    """The belief that an agent acts on has seen all steps before, and none after."""

    class Recorder:
        """Acts at random; remembers its beliefs."""

        def __init__(self, family: TaskFamily) -> None:
            self.family, self.rng = family, np.random.default_rng(0)
            self.beliefs: list[Tensor] = []

        def act(self, observations: Tensor, belief: Tensor) -> Tensor:
            self.beliefs.append(belief)
            return torch.from_numpy(self.family.random_actions((len(observations),), self.rng))

    family, vae = load_family("gridworld"), make_vae("gridworld")
    tasks, recorder = family.all_tasks()[:3], Recorder(family)
    rng = np.random.default_rng(0)
    rollouts = roll_out(family, tasks, recorder, OnlineFilter(vae), 2, "origin", rng)
    np.testing.assert_array_equal(torch.stack(recorder.beliefs, 1), rollouts.beliefs[:, :-1])
    prior, _ = vae.encoder.initial(3)
    np.testing.assert_array_equal(rollouts.beliefs[:, 0], prior)
    assert rollouts.beliefs.shape == (3, 31, BELIEF)
