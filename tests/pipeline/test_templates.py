"""Presets for every task set of a benchmark: `ml1/push-wall` and its spellings."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from environments.registry import BENCHMARKS
from pipeline.errors import ConfigError
from pipeline.plan import chain
from pipeline.presets import load_config, preset_names, runnable_names, template_names

CLONE = Path(__file__).resolve().parents[2]
TEMPLATES = [name for name in template_names(CLONE) if not name.endswith("_visible")]


def test_templates_are_no_presets_by_themselves() -> None:
    assert not set(template_names(CLONE)) & set(preset_names(CLONE))
    assert "ml1/push-wall" in runnable_names(CLONE)
    assert len(BENCHMARKS["ml1"]) == 50
    with pytest.raises(ConfigError, match=r"preset 'ml1' is for every task set .* such as ml1/"):
        load_config("ml1", root=CLONE)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_is_run_on_a_task_set(template: str) -> None:
    loaded = load_config(f"{template}/push-wall", root=CLONE)
    assert loaded.config.collect.domain == "ml1/push-wall"
    assert loaded.config.vae.relabelling.enabled
    assert loaded.preset == f"{template}/push-wall"
    assert loaded.stem == f"{template}-push-wall"


@pytest.mark.parametrize("spelling", ["ml1/push-wall-v2", "ml1/push-wall-v3"])
def test_versions_are_the_same_preset(spelling: str) -> None:
    assert load_config(spelling, root=CLONE).preset == "ml1/push-wall"
    assert load_config(spelling, root=CLONE) == load_config("ml1/push-wall", root=CLONE)


@pytest.mark.parametrize("spelling", ["ml1/push-wall-v2", "ml1/push-wall-v3"])
def test_versions_are_the_same_domain(spelling: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"collect:\n  domain: {spelling}\n")
    assert load_config(str(path)).config.collect.domain == "ml1/push-wall"
    loaded = load_config("ml1/reach", [f"collect.domain={spelling}"], root=CLONE)
    assert loaded.config.collect.domain == "ml1/push-wall"


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize(("task_set", "why"), [("sweep", "tells it"), ("hammer", "it is fixed")])
def test_where_nothing_is_hidden_nothing_is_relabelled_and_it_is_said(
    template: str, task_set: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "omrl"):
        config = load_config(f"{template}/{task_set}", root=CLONE).config
    assert not config.vae.relabelling.enabled
    assert config.relabel.relabelled_copies == 0
    assert f"ml1/{task_set}: the goal" in caplog.text
    assert why in caplog.text
    assert "plan-donors" not in [step.name for step in chain(config)]


def test_hidden_goals_are_relabelled_by_a_plan_that_both_users_read() -> None:
    steps = {step.name: step for step in chain(load_config("ml1/reach", root=CLONE).config)}
    assert list(steps)[:4] == ["collect", "plan-donors", "train-vae", "relabel"]
    assert steps["train-vae"].inputs["donors"] == "plan-donors"
    assert steps["relabel"].inputs["donors"] == "plan-donors"
    plain = {step.name: step for step in chain(load_config("gridworld", root=CLONE).config)}
    assert "plan-donors" not in plain


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ml1/push-wal", "ml1 has no task set 'push-wal'; did you mean 'push-wall'"),
        ("ml9/push", "unknown preset 'ml9/push'"),
        ("ml1_othr/push", "unknown preset 'ml1_othr/push'; "),
    ],
)
def test_what_there_is_not_is_told(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(name, root=CLONE)
    assert str(caught.value).startswith(message)


def test_loading_one_imports_no_simulator() -> None:
    import subprocess

    code = (
        "import sys; from pipeline.presets import load_config; load_config('ml1/push');"
        "sys.exit(any(m in sys.modules for m in ('mujoco', 'metaworld', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=CLONE, check=False).returncode == 0
