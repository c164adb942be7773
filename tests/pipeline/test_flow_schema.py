"""What Prefect's form and its check at submission are made from; no server needed."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import yaml
from jsonschema import Draft202012Validator
from prefect.exceptions import ParameterTypeError

from environments.registry import DOMAINS
from pipeline import flows
from pipeline.flows import StageName, collect_vae_offline
from pipeline.plan import STAGES
from pipeline.presets import runnable_names

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = collect_vae_offline.parameters.model_dump()
    return Draft202012Validator({**schema, "additionalProperties": False})


def test_stages_and_presets_are_choices() -> None:
    assert get_args(StageName) == STAGES
    properties = collect_vae_offline.parameters.properties
    assert properties["preset"]["enum"] == runnable_names()
    assert properties["refresh"]["items"]["enum"] == list(STAGES)
    assert collect_vae_offline.parameters.required == ["preset"]


def test_every_parameter_says_what_it_is() -> None:
    assert all(field["description"] for field in collect_vae_offline.parameters.properties.values())


@pytest.mark.parametrize(
    "parameters",
    [
        {"preset": "gridworld"},
        {"preset": "gridworld", "refresh": ["train-offline"], "seeds": [0, 1]},
        {"preset": "escape_room", "vae": {"model": {"encoder": {"latent_dim": 3}}}},
        {"preset": "gridworld", "collect": {"tasks": {}, "learner": {}}},
        {"preset": "gridworld", "overrides": ["vae.kl_weight=0.1"], "runtime": {"threads": 1}},
    ],
)
def test_good_parameters_pass_at_submission_and_at_the_call(validator, parameters) -> None:
    validator.validate(parameters)
    collect_vae_offline.validate_parameters(parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"preset": "gridwrld"},
        {"preset": "gridworld", "vae": {"updates": -1}},
        {"preset": "gridworld", "vae": {"updats": 1}},
        {"preset": "gridworld", "vae": {"model": {"encoder": {"latentdim": 1}}}},
        {"preset": "gridworld", "refresh": ["train-ofline"]},
        {"preset": "gridworld", "seeds": [-1]},
        {"preset": "gridworld", "offline": {"learner": {"rule": "ppo"}}},
        {"preset": "gridworld", "runtime": {"device": "toaster"}},
        {"preset": "gridworld", "runtime": {"device": "mps"}},
        {"preset": "gridworld", "runtime": {"precision": "bf16"}},
        {"preset": "gridworld", "collectt": {}},
    ],
)
def test_bad_parameters_are_refused_at_submission(validator, parameters) -> None:
    assert not validator.is_valid(parameters)


def test_bad_parameters_are_refused_at_the_call() -> None:
    with pytest.raises(ParameterTypeError, match="updates"):
        collect_vae_offline.validate_parameters({"preset": "toy", "vae": {"updates": 0}})


def test_every_domain_has_a_deployment_of_this_flow() -> None:
    document = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    entries = [entry for entry in document["deployments"] if "flows.py" in entry["entrypoint"]]
    deployments = {entry["name"]: entry for entry in entries}
    assert set(deployments) == set(DOMAINS)
    for name, entry in deployments.items():
        path, _, function = entry["entrypoint"].partition(":")
        assert (REPOSITORY / path).samefile(flows.__file__)
        assert hasattr(flows, function)
        assert entry["parameters"] == {"preset": name}
        assert name in runnable_names()
        assert entry["work_pool"]["name"] == "local"
    assert "set_working_directory" in next(iter(document["pull"][0]))
