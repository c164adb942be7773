"""The belief filter: prior, causality, and one pass against step by step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from models.belief import BeliefEncoder
from models.config import EncoderConfig
from models.kernels.belief import gru_backward, gru_forward
from models.layers import gru
from models.recurrence import run_gru

B, T, OBS = 4, 9, 3


def make_encoder(n_actions: int | None = None, **settings: object) -> BeliefEncoder:
    """A small encoder."""
    config = EncoderConfig(latent_dim=2, gru_size=8, **settings)
    act = 2 if n_actions is None else 1
    return BeliefEncoder(config, OBS, act, n_actions, torch.Generator().manual_seed(0))


def make_steps(n_actions: int | None = None) -> tuple[torch.Tensor, ...]:
    """actions, rewards, next observations, observations."""
    draw = torch.Generator().manual_seed(1)
    actions = (
        torch.rand(B, T, 2, generator=draw) * 2 - 1
        if n_actions is None
        else torch.randint(0, n_actions, (B, T, 1), generator=draw)
    )
    observations = torch.randn(B, T + 1, OBS, generator=draw)
    return actions, torch.randn(B, T, generator=draw), observations[:, 1:], observations[:, :-1]


@pytest.mark.parametrize("n_actions", [None, 5])
@pytest.mark.parametrize("settings", [{}, {"sees_observation": True}, {"action_embedding": 0}])
def test_one_pass_equals_step_by_step(n_actions: int | None, settings: dict[str, object]) -> None:
    encoder, steps = make_encoder(n_actions, **settings), make_steps(n_actions)
    beliefs = encoder(*steps)
    belief, hidden = encoder.initial(B)
    assert beliefs.shape == (B, T + 1, encoder.belief_dim)
    torch.testing.assert_close(beliefs[:, 0], belief)
    for t in range(T):
        belief, hidden = encoder.step(hidden, *(part[:, t] for part in steps))
        torch.testing.assert_close(beliefs[:, t + 1], belief, atol=1e-5, rtol=1e-5)


def test_prior_is_the_heads_at_zero_hidden_state() -> None:
    encoder = make_encoder()
    belief, hidden = encoder.initial(3)
    assert (hidden == 0).all()
    torch.testing.assert_close(belief, encoder.heads.bias.expand(3, -1))


def test_future_rewards_never_change_a_past_belief() -> None:
    encoder, (actions, rewards, after, before) = make_encoder(), make_steps()
    changed = rewards.clone()
    changed[:, 5:] += 10
    one = encoder(actions, rewards, after, before)
    other = encoder(actions, changed, after, before)
    assert torch.equal(one[:, :6], other[:, :6])
    assert (one[:, 6] != other[:, 6]).any()


def test_an_encoder_of_observations_asks_for_them() -> None:
    encoder, (actions, rewards, after, _) = make_encoder(sees_observation=True), make_steps()
    with pytest.raises(ValueError, match="give `observations`"):
        encoder(actions, rewards, after)


def test_observations_that_an_encoder_does_not_see_are_ignored() -> None:
    encoder, steps = make_encoder(), make_steps()
    assert torch.equal(encoder(*steps), encoder(*steps[:3]))


def test_weights_come_from_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    one, other = make_encoder(), make_encoder()
    assert torch.equal(torch.random.get_rng_state(), state)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_recurrent_weights_are_orthogonal() -> None:
    layer = gru(5, 6, torch.Generator().manual_seed(0))
    for gate in layer.weight_hh_l0.chunk(3):
        torch.testing.assert_close(gate @ gate.T, torch.eye(6), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("trials", "width"), [(3, 6), (4, 8), (9, 64)])
def test_compiled_recurrence_is_torchs_gru(trials: int, width: int) -> None:
    layer = gru(5, width, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith("bias"):
                parameter.normal_(generator=torch.Generator().manual_seed(3))
    draw = torch.Generator().manual_seed(1)
    inputs = torch.randn(trials, T, 5, generator=draw, requires_grad=True)
    weights = torch.randn(trials, T + 1, width, generator=draw)
    wanted, found = layer(inputs)[0], run_gru(layer, inputs)
    torch.testing.assert_close(found[:, 1:], wanted, atol=2e-6, rtol=1e-5)
    assert not found[:, 0].any()
    leaves = [inputs, *layer.parameters()]
    for a, b in zip(
        torch.autograd.grad((found * weights).sum(), leaves),
        torch.autograd.grad((wanted * weights[:, 1:]).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)
    with torch.no_grad():
        assert torch.equal(run_gru(layer, inputs), found)


def test_saturated_gates_are_exact() -> None:
    layer = gru(1, 4, torch.Generator().manual_seed(0))
    inputs = 1000 * torch.randn(2, 5, 1, generator=torch.Generator().manual_seed(1))
    found = run_gru(layer, inputs)
    torch.testing.assert_close(found[:, 1:], layer(inputs)[0], atol=1e-6, rtol=0)
    assert found.abs().max() <= 1


def test_recurrence_has_the_same_bytes_on_any_number_of_threads(
    with_threads: Callable[[int], None],
) -> None:
    draw = np.random.default_rng(0)
    shapes = ((20, T, 5), (24, 5), (24, 8), (24,), (24,), (20, T + 1, 8))
    arrays = [draw.standard_normal(shape).astype(np.float32) for shape in shapes]
    inputs, weight_in, weight, *_, by_states = arrays
    results = []
    for threads in (1, 2, 3, 16):
        with_threads(threads)
        kept = gru_forward(*arrays[:-1], keep=True)
        backward = gru_backward(by_states, inputs, *kept, weight_in, weight)
        results.append(b"".join(array.tobytes() for array in (*kept, *backward)))
    assert len(set(results)) == 1


def test_observations_get_as_many_layers_as_asked_for() -> None:
    config = EncoderConfig(embedding_layers=2, observation_embedding=6, sees_observation=True)
    encoder = BeliefEncoder(config, 3, 2, None, torch.Generator().manual_seed(0))
    shapes = {n: tuple(p.shape) for n, p in encoder.embedding.named_parameters() if "weight" in n}
    assert shapes == {
        "layers.action.weight": (16, 2),
        "layers.next_observation.0.weight": (6, 3),
        "layers.next_observation.2.weight": (6, 6),
        "layers.reward.weight": (16, 1),
        "layers.observation.0.weight": (6, 3),
        "layers.observation.2.weight": (6, 6),
    }
