"""Partial configurations: everything optional, nothing else changed."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.config import RunConfig
from pipeline.overrides import (
    CollectOverrides,
    DonorsOverrides,
    EvaluateOverrides,
    OfflineOverrides,
    RelabelOverrides,
    VaeOverrides,
    partial,
    settings,
)
from pipeline.presets import load_config

SECTIONS = {
    "collect": CollectOverrides,
    "donors": DonorsOverrides,
    "vae": VaeOverrides,
    "relabel": RelabelOverrides,
    "offline": OfflineOverrides,
    "evaluate": EvaluateOverrides,
}


def test_every_section_has_its_partial_model() -> None:
    assert set(SECTIONS) == set(RunConfig.model_fields)
    for name, model in SECTIONS.items():
        assert set(model.model_fields) == set(RunConfig.model_fields[name].annotation.model_fields)


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_nothing_is_required_and_nothing_has_a_default(name: str) -> None:
    schema = SECTIONS[name].model_json_schema()
    for model in (schema, *schema.get("$defs", {}).values()):
        assert "required" not in model
        assert all("default" not in field for field in model["properties"].values())
    assert settings(name, SECTIONS[name]()) == []


@pytest.mark.parametrize(
    "values",
    [
        {"updates": 0},
        {"updates": "many"},
        {"updats": 5},
        {"model": {"encoder": {"latent_dim": -1}}},
        {"model": {"encoder": {"latentdim": 5}}},
        {"learning_rate": float("nan")},
        {"updates": None},
    ],
)
def test_constraints_and_unknown_keys_are_those_of_the_full_model(values: dict) -> None:
    with pytest.raises(ValidationError):
        VaeOverrides.model_validate(values)


def test_settings_are_what_the_command_line_takes() -> None:
    vae = VaeOverrides.model_validate(
        {
            "updates": 20,
            "learning_rate": 1e-4,
            "model": {"reward_decoder": {"layers": [16, 8], "enabled": True}},
            "elbo": {},
        }
    )
    assert settings("vae", vae) == [
        "vae.model.reward_decoder.enabled=true",
        "vae.model.reward_decoder.layers=[16, 8]",
        "vae.learning_rate=0.0001",
        "vae.updates=20",
    ]


def test_text_and_null_are_read_back_as_they_were() -> None:
    offline = OfflineOverrides.model_validate(
        {"learner": {"rule": "cql", "target_entropy": None}, "updates": 7}
    )
    texts = settings("offline", offline)
    assert texts == [
        "offline.learner.rule=cql",
        "offline.learner.target_entropy=null",
        "offline.updates=7",
    ]
    config = load_config("gridworld", [*texts, 'collect.domain="gridworld"']).config
    assert config.offline.learner.rule == "cql"
    assert config.offline.learner.target_entropy is None
    assert config.offline.updates == 7


def test_awkward_text_is_quoted() -> None:
    for text in ("true", "1e3", "a: b", "", "null"):
        (written,) = settings("collect", CollectOverrides.model_validate({"domain": text}))
        assert written.startswith('collect.domain="')


def test_partial_models_survive_a_round_trip_through_json() -> None:
    model = partial(RunConfig)
    once = model.model_validate({"vae": {"elbo": {"kl_weight": 0.5}}})
    assert once.model_dump_json() == '{"vae":{"elbo":{"kl_weight":0.5}}}'
    assert model.model_validate_json(once.model_dump_json()) == once
