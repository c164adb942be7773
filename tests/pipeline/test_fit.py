"""Settings that do not fit a family are refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.fit import check_fit
from pipeline.presets import load_config, preset_names


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_fits_its_family(preset: str) -> None:
    check_fit(load_config(preset))


@pytest.mark.parametrize(
    ("train", "size", "message"),
    [
        (60, 1, "collect.group_size 1 leaves each of 60 tasks alone .* such as 2$"),
        (3, 2, "collect.group_size 2 leaves one of 3 tasks alone .* such as 3$"),
        (61, 20, "collect.group_size 20 leaves one of 61 tasks alone .* such as 21$"),
        (1, 20, "collect.tasks.train must be at least 2: collect.policy_replaying"),
        (4, 2, None),
        (60, 59, "such as 60$"),
        (2, 20, None),
    ],
)
def test_policy_replaying_needs_two_tasks_in_every_group(
    train: int, size: int, message: str | None
) -> None:
    overrides = [f"collect.tasks.train={train}", f"collect.group_size={size}"]
    load_config("escape_room", [*overrides, "collect.policy_replaying=0"])
    if message is None:
        load_config("escape_room", overrides)
        return
    with pytest.raises(ConfigError, match=message):
        load_config("escape_room", overrides)


@pytest.mark.parametrize(
    ("preset", "overrides", "message"),
    [
        ("gridworld", ["offline.learner.rule=iql"], "discrete: use one of dqn, cql"),
        ("point_robot_sparse", ["collect.learner.rule=dqn"], "continuous: use one of sac"),
        ("escape_room", ["vae.relabelling.enabled=true"], "differ in dynamics"),
        ("point_robot_wind", ["relabel.relabelled_copies=1"], "set it to 0"),
        ("gridworld", ["relabel.relabelling.enabled=false"], "relabelled_copies asks"),
        (
            "point_robot",
            ["vae.relabelling.whole_trials=1", "vae.relabelling.until_success=true"],
            "needs a reward of two values",
        ),
        ("escape_room", ["collect.replaying_steps=7"], "have 60 steps: use a divisor"),
        ("gridworld", ["collect.replaying_steps=5"], "is about replayed trials"),
        ("gridworld", ["vae.relabelling.piece_steps=4"], "have 15 steps: use a divisor"),
        (
            "point_robot",
            ["relabel.relabelling.task_averaging=true"],
            "differ in a reward of two values",
        ),
        ("escape_room", ["relabel.relabelling.task_averaging=true"], "set it to false"),
        (
            "gridworld",
            [
                "relabel.relabelling.task_averaging=true",
                "relabel.belief_rewards=true",
                "offline.use_belief_rewards=true",
            ],
            "both replace rewards",
        ),
        ("cheetah_vel", ["evaluate.context_episodes=2"], "no scripted policy to give a context"),
        ("cheetah_vel", ["collect.behaviour=scripted"], "choose learner, random or policy"),
        ("ant_dir", ["collect.shared_experience=1"], "need simulator states: set it to 0"),
        ("escape_room", ["collect.shared_experience=1"], "differ in dynamics: set it to 0"),
        ("gridworld", ["evaluate.exploration_noise=0.3"], "actions of gridworld are discrete"),
        ("ml1/sweep", ["vae.relabelling.enabled=true"], "the first observation tells the goal"),
        ("ml1/sweep", ["relabel.relabelled_copies=1"], "nothing to relabel .* set it to 0"),
        ("ml1/push", ["vae.relabelling.task_averaging=true"], "known for planned donors only"),
        ("ml1/push", ["collect.tasks.split=foo"], "split cannot be used: .* expected 'ml1' or"),
        ("ml1/push", ["collect.tasks.train=60"], "is 60, but split 'idaq' .* has 40 such tasks"),
        ("point_robot", ["collect.tasks.split=ml1"], "split cannot be used: point_robot has no"),
        ("gridworld", ["relabel.trials=501"], "but collect makes 500: lower relabel.trials"),
        ("gridworld", ["relabel.skip_trials=500"], "keeps all trials a task after the first 500"),
        ("point_robot", ["vae.model.reward_decoder.likelihood=bernoulli"], "use squared-error"),
        (
            "point_robot_sparse",
            ["vae.model.reward_decoder.likelihood=bernoulli-per-cell"],
            "has no cells",
        ),
        ("gridworld", ["collect.tasks.train=30"], "asks for 30 tasks, but gridworld has 21"),
        ("gridworld", ["collect.tasks.test_tasks_seen=false"], "collect.tasks asks for"),
        ("gridworld", ["collect.tasks.test=25"], "of which there are"),
        ("point_robot", ["collect.tasks.test_tasks_seen=true"], "has infinitely many tasks"),
    ],
)
def test_what_does_not_fit_is_named(preset: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_fit(load_config(preset, overrides))
    assert str(caught.value).startswith("--set ")


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (":4: ", "  domain: gridwrld\n"),
        (":7: ", "  domain: gridworld\noffline:\n  learner:\n    rule: iql\n"),
        (":5: ", "  domain: gridworld\n  replaying_steps: 4\n"),
    ],
)
def test_what_does_not_fit_is_found_in_its_file(setting: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"# mine\nextends: gridworld\ncollect:\n{text}")
    with pytest.raises(ConfigError) as caught:
        check_fit(load_config(str(file)))
    assert str(caught.value).startswith(f"{file}{setting}")


def test_an_unknown_domain_names_the_option_and_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        check_fit(load_config("gridworld", ["collect.domain=gridwrld"]))
    assert str(caught.value) == (
        "--set collect.domain=gridwrld: unknown domain 'gridwrld'; did you mean 'gridworld'?"
    )
