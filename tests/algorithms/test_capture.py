"""Captured updates learn what plain calls learn, on a tape here and on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import get_args

import pytest
import torch
from tape import TapeGraphs, do_as_on_a_gpu
from test_elbo import make_batch, make_vae
from torch import Tensor

from algorithms.capture import Captured, Graphs, graphs_on
from algorithms.config import ElboConfig, LearnerConfig, Rule
from algorithms.elbo import draw_posteriors, elbo
from algorithms.elbo_batch import ElboBatch
from algorithms.learners import Batch, Learner, make_learner
from algorithms.learners.base import OtherOutcomes
from algorithms.optimisers import optimise
from models.inputs import Transitions

UPDATES, ROWS, STATE, ACTIONS = 20, 8, 4, 2

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def learner_of(rule: Rule, muon: float | None, device: str = "cpu") -> Learner:
    """A small learner."""
    config = LearnerConfig(
        rule=rule,
        critic_layers=(16, 16),
        actor_layers=(16, 16),
        learn_temperature=rule == "sac",
        muon=muon,
        gradient_clip=1.0,
    )
    sizes = (STATE, 1, 3) if rule == "dqn" else (STATE, ACTIONS, None)
    learner = make_learner(config, *sizes, agents=1, seed=0, device=device)
    learner.set_normalisation(torch.zeros(STATE), 2 * torch.ones(STATE))
    return learner


def batches(rule: Rule, device: torch.device | str, rows: int = ROWS) -> Iterator[Batch]:
    """Other transitions every time, with other outcomes."""
    draw = torch.Generator().manual_seed(1)
    for _ in range(UPDATES):
        states = torch.randn(3, 1, rows, STATE, generator=draw).to(device)
        rewards, others, chances = torch.rand(3, 1, rows, generator=draw).to(device)
        actions = torch.rand(1, rows, ACTIONS, generator=draw).to(device)
        if rule == "dqn":
            actions = torch.randint(3, (1, rows), generator=draw).to(device)
        places = torch.arange(rows, device=device)
        outcomes = OtherOutcomes(places, chances, others, states[2])
        ones = torch.ones_like(rewards)
        yield Batch(states[0], actions, rewards, states[1], ones, actions, outcomes)


def learn(learner: Learner, rule: Rule, graphs: Graphs | None) -> list[Tensor]:
    """Metrics of every update while the rates go down, and the state at the end."""
    update, found = Captured(learner.learn, graphs), []
    for step, batch in enumerate(batches(rule, "cpu" if graphs else learner.device)):
        for optimiser in learner.optimisers.values():
            optimiser.schedule(1 - step / UPDATES)
        learner.updates += 1
        found += [metric.clone() for metric in update(batch, learner.phase).values()]
    return [*found, *learner.to_checkpoint().values()]


@pytest.mark.parametrize("muon", [None, 1.0])
@pytest.mark.parametrize("rule", get_args(Rule))
def test_rules_learn_the_same_bytes(
    rule: Rule, muon: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    do_as_on_a_gpu(monkeypatch)
    plain = learn(learner_of(rule, muon), rule, None)
    graphs = TapeGraphs()
    taped = learn(learner_of(rule, muon), rule, graphs)
    assert graphs.recorded == (2 if rule in ("td3bc", "rebrac") else 1)
    assert all(torch.equal(one, two) for one, two in zip(plain, taped, strict=True))


BELIEFS = [
    ("bernoulli", True, False),
    ("bernoulli-by-product", False, False),
    ("squared-error", False, False),
    ("bernoulli-per-cell", False, True),
]


def believe(
    case: tuple[str, bool, bool], device: str, dtype: torch.dtype, captured: Graphs | bool
) -> list[Tensor]:
    """Losses of updates on other trials every time as the rate goes down, and the weights.

    In float64 a CPU takes the way of other devices. `captured` True makes CUDA's graphs.
    """
    likelihood, state, discrete = case
    vae = make_vae(likelihood, state, discrete).to(device, dtype)
    optimiser = optimise(list(vae.parameters()), 1e-2, 1.0, clip=1.0)
    draws = torch.Generator(device).manual_seed(0)

    def update(batch: ElboBatch) -> Tensor:
        trials, steps = batch.transitions.rewards.shape
        shape = (trials, steps + 1, vae.encoder.latent_dim)
        noise = torch.randn(shape, generator=draws, device=device, dtype=dtype)
        decoding = draw_posteriors(trials, steps, 2, draws)
        loss = elbo(vae, batch, noise, ElboConfig(block_pairs=8), decoding).loss
        optimiser.step(loss[None])
        return loss.detach()

    graphs = graphs_on(device, [draws]) if captured is True else captured or None
    descend, losses = Captured(update, graphs), []
    for step in range(UPDATES):
        optimiser.schedule(1 - step / UPDATES)
        batch = turned(make_batch(discrete, likelihood), step, "cpu" if graphs else device, dtype)
        losses.append(descend(batch).clone())
    return [*losses, *(parameter.detach() for parameter in vae.parameters())]


def turned(batch: ElboBatch, step: int, device: str, dtype: torch.dtype) -> ElboBatch:
    """The trials in another order, on `device` and in `dtype`."""

    def turn(tensor: Tensor) -> Tensor:
        there = tensor.roll(step, 0).to(device)
        return there.to(dtype) if there.is_floating_point() else there

    encoded, decoded = (Transitions(*map(turn, part)) for part in batch[:2])
    return ElboBatch(encoded, decoded, *(None if t is None else turn(t) for t in batch[2:]))


@pytest.mark.parametrize("case", BELIEFS)
def test_the_belief_learns_the_same_bytes(
    case: tuple[str, bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    do_as_on_a_gpu(monkeypatch)
    plain = believe(case, "cpu", torch.float64, False)
    graphs = TapeGraphs()
    taped = believe(case, "cpu", torch.float64, graphs)
    assert graphs.recorded == 1
    assert all(torch.equal(one, two) for one, two in zip(plain, taped, strict=True))


def test_other_shapes_and_phases_have_graphs_of_their_own() -> None:
    graphs = TapeGraphs()
    twice = Captured(lambda inputs: inputs[0] * 2, graphs)
    for size in (1, 2, 1, 2, 1, 2, 1, 2, 1, 2):
        for phase in (0, 1):
            assert twice((torch.full((size,), 3.0),), phase).tolist() == [6.0] * size
    assert graphs.recorded == 4
    for size in range(3, 20):
        for _ in range(5):
            assert len(twice((torch.ones(size),))) == size
    assert graphs.recorded == 8


def test_inputs_may_hold_none_and_tuples_and_results_last_until_the_next_call() -> None:
    def total(inputs: tuple[Tensor, tuple[Tensor, None]]) -> Tensor:
        return inputs[0] + inputs[1][0]

    captured, found = Captured(total, TapeGraphs()), []
    for step in range(6):
        given = torch.tensor([float(step)])
        found.append(captured((given, (torch.ones(1), None))))
        assert found[-1].item() == step + 1
        given.fill_(99)  # read already
    assert [tensor.item() for tensor in found] == [1, 2, 3, 6, 6, 6]


def test_a_number_of_pythons_is_repeated_for_ever() -> None:
    """Why rates are tensors, and that these tests would notice one that is not."""
    numbers = iter(range(1, 7))
    count = Captured(lambda _: torch.zeros(1) + next(numbers), TapeGraphs())
    assert [count(()).item() for _ in range(6)] == [1, 2, 3, 4, 4, 4]


def test_a_cpu_has_no_graphs() -> None:
    assert graphs_on("cpu", []) is None
    given = (torch.ones(1),)
    assert Captured(lambda inputs: inputs, None)(given) is given


def test_what_is_asked_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: the calls and their order."""
    said: list[str] = []

    class Named:
        """Says what is done to it."""

        def __init__(self, name: str = "graph") -> None:
            self._name = name

        def __getattr__(self, method: str) -> Callable[..., None]:
            return lambda *others: said.append(" ".join([self._name, method, *map(str, others)]))

        def __str__(self) -> str:
            return self._name

        def __enter__(self) -> None:
            said.append(f"enter {self._name}")

        def __exit__(self, *error: object) -> None:
            said.append(f"leave {self._name}")

    stands_for: dict[str, Callable[..., Named]] = {
        "Stream": lambda device: Named("own"),
        "current_stream": lambda device: Named("current"),
        "CUDAGraph": Named,
        "stream": lambda stream: stream,
        "graph": lambda graph, stream: graph,
        "device": lambda device: Named(str(device)),
    }
    for name, stand_in in stands_for.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    graphs = graphs_on("cuda:1", ["noise"])  # type: ignore[list-item]
    assert graphs is not None
    assert graphs.run(lambda: said.append("work") or 3) == 3  # type: ignore[func-returns-value]
    around = ["own wait_stream current", "enter own", "work", "leave own"]
    assert said == [*around, "current wait_stream own"]
    said.clear()
    replay = graphs.record(lambda: said.append("work") or 4)  # type: ignore[func-returns-value]
    within = ["graph register_generator_state noise", "enter graph", "work", "leave graph"]
    assert said == ["enter cuda:1", *within, "leave cuda:1"]
    said.clear()
    assert (replay(), replay()) == (4, 4)
    assert said == ["graph replay"] * 2


@on_a_gpu
@pytest.mark.parametrize("rule", get_args(Rule))
def test_rules_learn_on_a_gpu_what_they_learn_eagerly(rule: Rule) -> None:
    plain = learn(learner_of(rule, None, "cuda"), rule, None)
    learner = learner_of(rule, None, "cuda")
    captured = learn(learner, rule, graphs_on("cuda", [learner.generator]))
    for one, two in zip(plain, captured, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@on_a_gpu
@pytest.mark.parametrize("case", BELIEFS)
def test_the_belief_learns_on_a_gpu_what_it_learns_eagerly(case: tuple[str, bool, bool]) -> None:
    plain = believe(case, "cuda", torch.float32, False)
    captured = believe(case, "cuda", torch.float32, True)
    for one, two in zip(plain, captured, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


@on_a_gpu
def test_noise_differs_from_replay_to_replay() -> None:
    draws = torch.Generator("cuda").manual_seed(0)
    noise = Captured(
        lambda _: torch.randn(4, generator=draws, device="cuda"), graphs_on("cuda", [draws])
    )
    found = torch.stack([noise(()).clone() for _ in range(10)]).cpu()
    again = torch.Generator("cuda").manual_seed(0)
    eager = torch.stack([torch.randn(4, generator=again, device="cuda") for _ in range(10)])
    assert torch.equal(found, eager.cpu())


@on_a_gpu
def test_no_replay_makes_the_host_wait() -> None:
    learner = learner_of("sac", 1.0, "cuda")
    update = Captured(learner.learn, graphs_on("cuda", [learner.generator]))
    try:
        for step, batch in enumerate(batches("sac", "cpu")):
            if step == UPDATES // 2:  # recorded by now
                torch.cuda.set_sync_debug_mode("error")
            learner.optimisers["critic"].schedule(0.5)
            update(batch, learner.phase)
    finally:
        torch.cuda.set_sync_debug_mode("default")
