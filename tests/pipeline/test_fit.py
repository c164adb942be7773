"""Settings that do not fit a family are refused before anything runs."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfigError
from pipeline.fit import check_fit
from pipeline.presets import load_config, preset_names


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_fits_its_family(preset: str) -> None:
    check_fit(load_config(preset).config)


@pytest.mark.parametrize(
    ("preset", "overrides", "message"),
    [
        ("gridworld", ["offline.learner.rule=iql"], "discrete: use one of dqn, cql"),
        ("point_robot_sparse", ["collect.learner.rule=dqn"], "continuous: use one of sac"),
        ("escape_room", ["vae.relabelling.enabled=true"], "differ in dynamics"),
        ("point_robot_wind", ["relabel.relabelled_copies=1"], "set it to 0"),
        ("gridworld", ["relabel.relabelling.enabled=false"], "relabelled_copies asks"),
        ("point_robot", ["vae.model.reward_decoder.likelihood=bernoulli"], "use squared-error"),
        (
            "point_robot_sparse",
            ["vae.model.reward_decoder.likelihood=bernoulli-per-cell"],
            "has no cells",
        ),
    ],
)
def test_what_does_not_fit_is_named(preset: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_fit(load_config(preset, overrides).config)
