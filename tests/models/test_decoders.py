"""Decoders and what their configuration refuses."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from models.config import EncoderConfig, RewardDecoderConfig, StateDecoderConfig, VaeModelConfig
from models.inputs import Transitions, action_features
from models.vae import Vae


def make_transitions(*lead: int) -> Transitions:
    """Random continuous transitions."""
    draw = torch.Generator().manual_seed(0)
    return Transitions(
        torch.randn(*lead, 3, generator=draw),
        torch.rand(*lead, 2, generator=draw),
        torch.randn(*lead, generator=draw),
        torch.randn(*lead, 3, generator=draw),
    )


def test_split_first_layer_is_the_layer_of_both() -> None:
    model = VaeModelConfig(
        reward_decoder=RewardDecoderConfig(inputs=("action", "next_observation"))
    )
    vae = Vae(model, 3, 2)
    decoder, transitions = vae.reward_decoder, make_transitions(7)
    inputs = vae.decoder_inputs(transitions)
    latents = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    joined = torch.cat([latents, decoder.embedding(inputs)], -1)
    weight = torch.cat([decoder.latent.weight, decoder.transition.weight], 1)
    hidden = (joined @ weight.T + decoder.latent.bias).relu()
    expected = decoder.upper[1](decoder.upper[0](hidden).relu())
    torch.testing.assert_close(decoder(latents, inputs), expected)


def test_pairs_broadcast() -> None:
    vae = Vae(VaeModelConfig(state_decoder=StateDecoderConfig(enabled=True)), 3, 2)
    transitions = make_transitions(4, 6)
    inputs = {name: part[:, None] for name, part in vae.decoder_inputs(transitions).items()}
    latents = torch.zeros(4, 7, 1, 5)
    assert vae.reward_decoder(latents, inputs).shape == (4, 7, 6, 1)
    assert vae.state_decoder(latents, inputs).shape == (4, 7, 6, 3)


def test_products_of_all_pairs_are_those_of_each() -> None:
    decoder = RewardDecoderConfig(product_features=4, layers=(6,))
    vae = Vae(VaeModelConfig(reward_decoder=decoder), 3, 2)
    inputs = vae.decoder_inputs(make_transitions(4, 6))
    latents = torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(1))
    spread = {name: part[:, None] for name, part in inputs.items()}
    each = vae.reward_decoder(latents[:, :, None], spread)
    assert each.shape == (4, 7, 6, 1)
    torch.testing.assert_close(vae.reward_decoder.pairs(latents, inputs), each[..., 0])


def test_a_product_tells_places_apart_by_the_latent() -> None:
    """The sign of m_i for a place of kind i: no sum of a function of m and one of x gives that."""
    decoder = RewardDecoderConfig(product_features=8, layers=(16,))
    vae = Vae(VaeModelConfig(reward_decoder=decoder), 3, 2)
    draw = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(vae.reward_decoder.parameters(), 1e-2)
    for _ in range(300):
        latents = torch.randn(32, 1, 5, generator=draw).sign()
        kinds = torch.randint(0, 3, (32, 10), generator=draw)
        places = torch.eye(3)[kinds]
        wanted = latents[:, 0].gather(1, kinds)
        found = vae.reward_decoder.pairs(latents, {"next_observation": places})[:, 0]
        loss = (found - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.05


def test_discrete_actions_become_one_hot() -> None:
    features = action_features(torch.tensor([[2], [0]]), 3, torch.float32)
    assert features.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_a_decoder_that_is_off_is_none() -> None:
    model = VaeModelConfig(
        reward_decoder=RewardDecoderConfig(enabled=False),
        state_decoder=StateDecoderConfig(enabled=True),
    )
    assert Vae(model, 3, 2).reward_decoder is None
    assert Vae(VaeModelConfig(), 3, 2).state_decoder is None


def test_cells_are_needed_for_a_head_a_cell() -> None:
    model = VaeModelConfig(reward_decoder=RewardDecoderConfig(likelihood="bernoulli-per-cell"))
    with pytest.raises(ValueError, match="no cells: use bernoulli"):
        Vae(model, 3, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward_decoder": {"inputs": ()}}, "reward_decoder.inputs is empty"),
        ({"reward_decoder": {"enabled": False}}, "no decoder is enabled"),
        (
            {"encoder": {"action_embedding": 0}, "reward_decoder": {"inputs": ("action",)}},
            "action_embedding is 0",
        ),
        (
            {"encoder": {"action_embedding": 0}, "state_decoder": {"enabled": True}},
            "action_embedding is 0",
        ),
        ({"reward_decoder": {"layers": ()}}, "at least 1 item"),
    ],
)
def test_decoders_without_inputs_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        VaeModelConfig.model_validate(settings)


def test_per_cell_heads_need_no_inputs() -> None:
    decoder = RewardDecoderConfig(likelihood="bernoulli-per-cell", inputs=())
    model = VaeModelConfig(encoder=EncoderConfig(action_embedding=0), reward_decoder=decoder)
    assert Vae(model, 2, 1, 5, 25).reward_decoder is not None
