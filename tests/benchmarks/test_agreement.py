"""The plain loops compute what our stages compute: same weights, inputs and noise, same numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from algorithms.collecting import Actor, ExperienceLog, group_simulator, run_trials
from algorithms.config import ElboConfig
from algorithms.elbo import elbo
from algorithms.filtering import OnlineFilter
from algorithms.learners.base import Batch, Learner
from algorithms.learners.dqn import DQN
from algorithms.learners.sac import SAC
from algorithms.optimisers import optimise
from algorithms.relabelling import relabel_rewards
from algorithms.rollouts import MetaAgent, roll_out
from benchmarks import cases
from benchmarks.cases import CASES, Case, load_case
from benchmarks.reference import elbo as plain_elbo
from benchmarks.reference import evaluation, hyper_states, offline, rewards
from benchmarks.reference.agents import PlainAgent, PlainDqn, PlainSac, plain_agent
from benchmarks.reference.buffers import ReplayBuffer, Sample
from benchmarks.reference.collection import Collection
from benchmarks.reference.elbo import PlainCellDecoder, PlainVae
from benchmarks.reference.networks import PlainEncoder, member_of
from benchmarks.reference.simulators import make_simulator
from datasets.trials import Trials
from models.mlp import EnsembleMLP
from models.vae import Vae
from stages.residents import Residents
from stages.stored_tasks import StoredTasks

TOLERANCE = 1e-5
UPDATES = 3


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """Published networks, but short episodes."""
    loaded = load_case(request.param)
    spec = loaded.family.spec
    loaded.family.spec = replace(spec, horizon=min(spec.horizon, 20))
    return loaded


def assert_close(found: Tensor | NDArray, wanted: Tensor | NDArray, what: str = "") -> None:
    """Equal but for a relative error of 1e-5 in the Euclidean norm."""
    found, wanted = torch.as_tensor(found).double(), torch.as_tensor(wanted).double()
    assert found.shape == wanted.shape, what
    error = float((found - wanted).norm() / wanted.norm().clamp_min(1e-30))
    assert error < TOLERANCE, f"{what}: relative error {error:.1e}"


# ---------------------------------------------------------------------------------- the ELBO


def plain_gradients(vae: PlainVae) -> dict[str, Tensor]:
    """Gradients under the names of our model's parameters."""
    found = {}

    def take(prefix: str, layers: Iterable[tuple[str, nn.Module]]) -> None:
        for name, layer in layers:
            for kind, parameter in layer.named_parameters():
                found[f"{prefix}.{name}.{kind}"] = parameter.grad

    encoder, decoder = vae.encoder, vae.decoder
    take("encoder.embedding.layers", encoder.embeddings.items())
    take("encoder", [("gru", encoder.gru)])
    for kind in ("weight", "bias"):
        heads = [getattr(head, kind).grad for head in (encoder.mean, encoder.log_variance)]
        found[f"encoder.heads.{kind}"] = torch.cat(heads)
    linears = [layer for layer in decoder.network if isinstance(layer, nn.Linear)]
    if isinstance(decoder, PlainCellDecoder):
        take("reward_decoder.layers", [(str(i), layer) for i, layer in enumerate(linears)])
        return found
    take("reward_decoder.embedding.layers", decoder.embeddings.items())
    first, *upper = linears
    latent = encoder.mean.out_features
    found["reward_decoder.latent.weight"] = first.weight.grad[:, :latent]
    found["reward_decoder.transition.weight"] = first.weight.grad[:, latent:]
    found["reward_decoder.latent.bias"] = first.bias.grad
    take("reward_decoder.upper", [(str(i), layer) for i, layer in enumerate(upper)])
    return found


def test_elbo_has_the_same_terms_and_gradients(case: Case) -> None:
    vae, batch = cases.make_vae(case), cases.make_elbo_batch(case, trials=8)
    noise, config = cases.make_noise(case, batch), case.config.vae.elbo
    plain = PlainVae(vae)
    wanted = plain_elbo.elbo(plain, batch, noise, config)
    wanted.loss.backward()
    found = elbo(vae, batch, noise, config)
    found.loss.backward()
    for name in ("loss", "reward", "kl"):
        assert_close(getattr(found, name).detach(), getattr(wanted, name).detach(), name)
    gradients = plain_gradients(plain)
    own = dict(vae.named_parameters())
    assert gradients.keys() == own.keys()
    for name, parameter in own.items():
        assert_close(parameter.grad, gradients[name], name)


def test_elbo_updates_stay_together(case: Case) -> None:
    vae, batch = cases.make_vae(case), cases.make_elbo_batch(case, trials=8)
    config = case.config.vae
    plain = PlainVae(vae)
    plain_optimiser = torch.optim.Adam(plain.parameters(), config.learning_rate)
    optimiser = optimise(list(vae.parameters()), config.learning_rate, None)
    losses = []
    for update in range(UPDATES):
        noise = cases.make_noise(case, batch, update)
        wanted = plain_elbo.update(plain, plain_optimiser, batch, noise, config.elbo)
        terms = elbo(vae, batch, noise, config.elbo)
        optimiser.step(terms.loss[None])
        losses.append((float(terms.loss.detach()), wanted))
    assert len({loss for loss, _ in losses}) == UPDATES
    for found, wanted in losses:
        assert found == pytest.approx(wanted, rel=TOLERANCE)


# ---------------------------------------------------------------------------------- agents


def share_noise(
    monkeypatch: pytest.MonkeyPatch, learner: Learner, agents: dict[int, PlainAgent]
) -> None:
    """Give the learner and each of its plain agents the same noise, call by call."""

    def draws(shape: tuple[int, ...], call: int, agent: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * call + agent)
        return torch.randn(shape, generator=generator)

    calls = iter(range(1000))

    def batched(agents: int, rows: int, width: int) -> Tensor:
        call = next(calls)
        return torch.stack([draws((rows, width), call, agent) for agent in range(agents)])

    monkeypatch.setattr(learner, "noise", batched)
    for number, agent in agents.items():
        if isinstance(agent, PlainSac):
            own = iter(range(1000))

            def plain(shape: torch.Size, own=own, number=number) -> Tensor:
                return draws(tuple(shape), next(own), number)

            monkeypatch.setattr(agent, "noise", plain)


def assert_same_networks(learner: Learner, agents: dict[int, PlainAgent]) -> None:
    """All networks of the plain agents are those of the learner's members."""
    for number, agent in agents.items():
        pairs: list[tuple[nn.Module, EnsembleMLP, int]]
        if isinstance(agent, PlainDqn):
            assert isinstance(learner, DQN)
            pairs = [
                (agent.critic, learner.critic, number),
                (agent.target_critic, learner.target_critic, number),
            ]
        else:
            assert isinstance(agent, PlainSac)
            assert isinstance(learner, SAC)
            pairs = [(agent.actor, learner.actor, number)]
            for j in range(2):
                member = number + j * learner.sizes.agents
                pairs += [
                    (agent.critics[j], learner.critic, member),
                    (agent.target_critics[j], learner.target_critic, member),
                ]
        for plain, network, member in pairs:
            for found, wanted in zip(
                member_of(network, member).parameters(), plain.parameters(), strict=True
            ):
                assert_close(found.detach(), wanted.detach(), f"agent {number}")


def end_some(log: ExperienceLog) -> None:
    """Let a third of the log's steps be terminations: none of the domains has any."""
    generator = torch.Generator().manual_seed(2)
    log.terminations = torch.rand(log.rewards.shape, generator=generator) < 0.3


def only(batch: Batch, agent: int) -> Sample:
    """One agent's rows."""
    actions = batch.actions[agent]
    return Sample(
        batch.states[agent],
        actions[:, None] if actions.ndim == 1 else actions,
        batch.rewards[agent],
        batch.next_states[agent],
        1 - batch.continues[agent],
    )


def test_collecting_agents_learn_the_same(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents of three tasks as one batched network, and each on its own."""
    log = cases.make_log(case, cases.make_tasks(case, 3), trials=2)
    generator = torch.Generator().manual_seed(1)
    end_some(log)
    learner = cases.make_learner(case, "collect", agents=3)
    agents = {number: plain_agent(learner, number) for number in range(3)}
    share_noise(monkeypatch, learner, agents)
    for _ in range(UPDATES):
        batch = log.sample(64, generator)
        found = learner.update(batch)
        for number, agent in agents.items():
            for name, loss in agent.update(only(batch, number)).items():
                assert float(found[name][number]) == pytest.approx(loss, rel=TOLERANCE), name
    assert_same_networks(learner, agents)


def make_collection(case: Case, agent: PlainAgent, **changes: int) -> tuple[Collection, NDArray]:
    """The plain loop on one task, and that task (1, task)."""
    config = case.config.collect.model_copy(update=changes)
    tasks = cases.make_tasks(case, 1)
    simulator = make_simulator(case.family, tasks[0], config.start)
    rng = np.random.default_rng(5)
    return Collection(agent, simulator, case.family.spec, config, rng), tasks


def test_trials_are_collected_alike(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = cases.make_learner(case, "collect")
    agent = plain_agent(learner)
    share_noise(monkeypatch, learner, {0: agent})
    collection, tasks = make_collection(case, agent)
    total = collection.collect_trial(random_share=0.0)
    log = ExperienceLog.empty(case.family, 1, 1, case.family.spec.episodes)
    simulator = group_simulator(case.family, tasks, 1, case.config.collect.start)
    actor = Actor(learner, case.family, torch.Generator(), random_share=0.0)
    returns = run_trials(log, simulator, 1, actor, np.random.default_rng(5))
    assert total == pytest.approx(float(returns[0]), rel=TOLERANCE)
    trials = log.trials(0)
    states, actions, rewards_, following, terminals = collection.buffer.fields()
    width = case.family.spec.observation_dim
    assert_close(trials.observations[:, :, :-1].reshape(-1, width), states)
    assert_close(trials.actions.reshape(len(actions), -1), actions)
    assert_close(trials.rewards.reshape(-1), rewards_)
    assert_close(trials.next_observations.reshape(-1, width), following)
    assert not terminals.any()


def weights(agent: PlainAgent) -> Tensor:
    """Of the critics, in one row."""
    critics = agent.critic if isinstance(agent, PlainDqn) else agent.critics
    return nn.utils.parameters_to_vector(critics.parameters()).detach().clone()


def test_simulators_start_and_step_alike(case: Case) -> None:
    rng, again = np.random.default_rng(7), np.random.default_rng(7)
    actions = np.random.default_rng(8)
    for task in cases.make_tasks(case, 8):
        ours = case.family.simulator(task[None], "wide")
        plain = make_simulator(case.family, task, "wide")
        for _ in range(10):
            assert_close(ours.reset(rng)[0], plain.reset(again))
            for _ in range(3):
                action = case.family.random_actions((1,), actions)
                step, (observation, reward) = ours.step(action), plain.step(action[0])
                assert_close(step.observations[0], observation)
                assert reward == pytest.approx(float(step.rewards[0]), rel=TOLERANCE)


def test_buffers_draw_whole_transitions_from_all_that_is_filled() -> None:
    buffer = ReplayBuffer(capacity=60, state_dim=2, action_dim=1, discrete=True)
    for row in range(40):
        state = np.full(2, row, np.float32)
        buffer.add(state, np.array([row]), float(row), state + 1, terminal=row % 2 == 0)
    sample = buffer.sample(np.random.default_rng(0), 2000)
    rows = sample.rewards
    assert len(rows) == 2000
    assert set(rows.tolist()) == set(range(40))
    assert (sample.states == rows[:, None]).all()
    assert (sample.actions == rows[:, None]).all()
    assert (sample.next_states == rows[:, None] + 1).all()
    assert (sample.terminals == (rows % 2 == 0)).all()


def test_the_collection_schedule_fills_the_buffer_and_learns(case: Case) -> None:
    agent = plain_agent(cases.make_learner(case, "collect"))
    collection, tasks = make_collection(
        case,
        agent,
        random_trials=2,
        iterations=2,
        trials_per_iteration=1,
        updates_per_iteration=2,
        epsilon_decay=2,
    )
    before = weights(agent)
    returns = collection.run()
    states, actions, rewards_, following, _ = collection.buffer.fields()
    steps = case.family.spec.episodes * case.family.spec.horizon
    assert len(rewards_) == len(collection.buffer.rewards) == 4 * steps
    assert returns[0] == pytest.approx(rewards_[: 2 * steps].sum() / 2, rel=TOLERANCE)
    assert_close(case.family.reward(states, actions, following, tasks), rewards_)
    assert not torch.equal(weights(agent), before)


@pytest.mark.parametrize(("random_share", "acted"), [(1.0, 0.0), (0.25, 0.75), (0.0, 1.0)])
def test_the_agent_acts_where_actions_are_not_random(
    monkeypatch: pytest.MonkeyPatch, random_share: float, acted: float
) -> None:
    case = load_case("gridworld")
    agent = plain_agent(cases.make_learner(case, "collect"))
    collection, _ = make_collection(case, agent)
    calls = []
    monkeypatch.setattr(agent, "act", lambda *_, **__: calls.append(1) or np.array([0]))
    for _ in range(10):
        collection.collect_trial(random_share)
    assert len(calls) / collection.buffer.size == pytest.approx(acted, abs=0.06)


def test_epsilon_falls_to_its_end() -> None:
    case = load_case("gridworld")
    collection, _ = make_collection(case, plain_agent(cases.make_learner(case, "collect")))
    decay = case.config.collect.epsilon_decay
    shares = [collection.random_share(round_) for round_ in (0, decay // 2, decay, 2 * decay)]
    assert shares == [1.0, 0.5, 0.0, 0.0]


# ------------------------------------------------------------------- hyper-states and offline RL


@pytest.fixture
def vae(case: Case) -> Vae:
    return cases.make_vae(case).requires_grad_(False)


def test_relabelling_step_by_step_gives_the_same_beliefs(case: Case, vae: Vae) -> None:
    trials = cases.make_log(case, cases.make_tasks(case, 1), trials=5).trials(0)
    found = cases.make_beliefs(vae, trials)
    wanted = hyper_states.encode_trials(PlainEncoder(vae.encoder), trials)
    assert_close(found, wanted)


def test_task_buffers_hold_the_transitions_of_the_table(
    case: Case, vae: Vae, tmp_path: Path
) -> None:
    log = cases.make_log(case, cases.make_tasks(case, 3), trials=2)
    end_some(log)
    cases.write_hyper_states(case, vae, log, tmp_path)
    config = case.config.offline
    residents = Residents(StoredTasks(tmp_path, config), config, np.random.default_rng(0), "cpu")
    residents.turn_to(0)
    table = residents.table
    kept = []
    for task in range(3):
        trials = log.trials(task)
        beliefs = hyper_states.encode_trials(PlainEncoder(vae.encoder), trials)
        kept.append(offline.fill_buffer(trials, beliefs).fields())
    states, actions, rewards_, following, terminals = map(np.concatenate, zip(*kept, strict=True))
    first = torch.arange(6)[:, None] * table.rows_each
    assert_close(table.rows[(first + table.before).flatten()], states)
    assert_close(table.rows[(first + table.after).flatten()], following)
    assert_close(table.actions.view(len(actions), -1), actions)
    assert_close(table.rewards, rewards_)
    assert_close(table.continues, 1 - terminals)


def test_offline_agents_learn_the_same(
    case: Case, vae: Vae, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = cases.make_log(case, cases.make_tasks(case, 4), trials=1)
    end_some(log)
    trials = [log.trials(task) for task in range(4)]
    buffers = [offline.fill_buffer(part, cases.make_beliefs(vae, part)) for part in trials]
    learner = cases.make_learner(case, "offline")
    agent = plain_agent(learner)
    share_noise(monkeypatch, learner, {0: agent})
    rng = np.random.default_rng(3)
    tasks = offline.draw_tasks(rng, buffers)
    assert len(tasks) * offline.TRANSITIONS == case.config.offline.batch_size
    for _ in range(UPDATES):
        sample = offline.sample_tasks(rng, buffers, tasks, count=8)
        assert len(sample.rewards) == 8 * len(tasks)
        found = learner.update(as_batch(sample, learner))
        for name, loss in agent.update(sample).items():
            assert float(found[name]) == pytest.approx(loss, rel=TOLERANCE), name
    assert_same_networks(learner, {0: agent})


def as_batch(sample: Sample, learner: Learner) -> Batch:
    """A plain sample as a batch of one agent."""
    actions = sample.actions if learner.sizes.n_actions is None else sample.actions[:, 0]
    return Batch(
        sample.states[None],
        actions[None],
        sample.rewards[None],
        sample.next_states[None],
        1 - sample.terminals[None],
    )


# ---------------------------------------------------------------------- evaluation and rewards


def test_evaluation_of_one_task_at_a_time_is_the_same(case: Case, vae: Vae) -> None:
    tasks, spec = cases.make_tasks(case, 3), case.family.spec
    learner = cases.make_learner(case, "offline")
    found = roll_out(
        case.family,
        tasks,
        MetaAgent(learner, beliefs=True),
        OnlineFilter(vae),
        spec.episodes,
        "origin",
        np.random.default_rng(0),
    )
    agent, encoder = plain_agent(learner), PlainEncoder(vae.encoder)
    for number, task in enumerate(tasks):
        simulator = make_simulator(case.family, task, "origin")
        rng = np.random.default_rng(0)
        wanted = evaluation.evaluate_task(
            agent, encoder, simulator, spec.episodes, spec.horizon, rng
        )
        assert_close(found.rewards[number], wanted.rewards)
        assert_close(found.beliefs[number], wanted.beliefs)


def test_rewards_are_relabelled_alike(case: Case) -> None:
    """Each trial under its own task, from the trials of another."""
    tasks = cases.make_tasks(case, 4)
    log = cases.make_log(case, tasks, trials=20)  # so many that some find the goal
    each = [log.trials(task) for task in range(4)]
    trials, donors = Trials.concatenate(each), Trials.concatenate(each[1:] + each[:1])
    own = np.repeat(tasks, 20, axis=0)
    simulators = [make_simulator(case.family, task, "origin") for task in own]
    wanted = rewards.relabel_rewards(trials, donors, [one.reward for one in simulators])
    found = relabel_rewards(trials, donors, case.family, own)
    for name, array in wanted.arrays.items():
        np.testing.assert_allclose(getattr(found, name), array, rtol=1e-6, err_msg=name)
    assert (wanted.rewards != trials.rewards).any()
    own_again = rewards.relabel_rewards(trials, trials, [one.reward for one in simulators])
    np.testing.assert_allclose(own_again.rewards, trials.rewards, rtol=1e-6)


def test_settings_without_a_plain_counterpart_are_refused() -> None:
    case = load_case("gridworld")
    learner = cases.make_learner(case, "collect")
    learner.config = learner.config.model_copy(update={"gradient_clip": 1.0})
    with pytest.raises(ValueError, match="published agents"):
        plain_agent(learner)
    vae = cases.make_vae(case)
    vae.encoder.sees_observation = True
    with pytest.raises(ValueError, match="does not see s"):
        PlainVae(vae)
    batch = cases.make_elbo_batch(case, trials=8)
    averaged = batch._replace(task_targets=batch.targets[..., None])
    with pytest.raises(ValueError, match="averaged over tasks"):
        plain_elbo.elbo(
            PlainVae(cases.make_vae(case)), averaged, torch.zeros(8, 61, 5), ElboConfig()
        )
