"""Composition, files, and refusals of `omrl video`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.checkpoints import save_tensors
from datasets.files import write_json
from environments.registry import load_family
from pipeline.cli import main
from pipeline.errors import ConfigError, StoreError
from pipeline.video.compose import Composer
from pipeline.video.encode import find_ffmpeg, write_gif, write_mp4
from pipeline.video.replay import Trial, read_trial, replay_states


def _trial() -> Trial:
    """Two episodes of random actions in the gridworld."""
    family, rng = load_family("gridworld"), np.random.default_rng(0)
    task = family.sample_tasks(1, rng)
    simulator, horizon = family.simulator(task), family.spec.horizon
    actions = family.random_actions((2, horizon), rng)
    observations = np.empty((2, horizon + 1, 2), np.float32)
    rewards = np.empty((2, horizon), np.float32)
    for episode in range(2):
        observations[episode, 0] = simulator.reset(rng)[0]
        for step in range(horizon):
            result = simulator.step(actions[episode, step][None])
            observations[episode, step + 1] = result.observations[0]
            rewards[episode, step] = result.rewards[0]
    beliefs = rng.standard_normal((2 * horizon + 1, 20)).astype(np.float32)
    return Trial(task[0], "origin", observations, actions, rewards, beliefs, rewards > 0)


def test_pictures_have_even_sides_and_change() -> None:
    trial = _trial()
    composer = Composer(load_family("gridworld"), trial, 120)
    first, last = composer.frame(0, 0), composer.frame(1, 15)
    assert first.dtype == np.uint8
    assert first.shape[2] == 3
    assert first.shape[0] % 2 == first.shape[1] % 2 == 0
    assert (first != last).any()


def test_gif_and_mp4_hold_every_frame(tmp_path: Path) -> None:
    from PIL import Image, ImageSequence

    frames = [np.full((40, 60, 3), 40 * i, np.uint8) for i in range(5)]
    write_gif(tmp_path / "a.gif", frames, 10)
    with Image.open(tmp_path / "a.gif") as picture:
        assert sum(1 for _ in ImageSequence.Iterator(picture)) == 5
    try:
        find_ffmpeg()
    except ConfigError:
        pytest.skip("no ffmpeg here")
    write_mp4(tmp_path / "a.mp4", frames, 10)
    assert (tmp_path / "a.mp4").read_bytes()[4:8] == b"ftyp"


def test_a_trial_that_does_not_come_again_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    family, trial = load_family("gridworld"), _trial()
    simulator = type(family.simulator(trial.task[None]))
    state = np.zeros((1, 3))
    monkeypatch.setattr(simulator, "render_state", lambda self: state)
    assert replay_states(family, trial).shape == (2, 16, 3)
    changed = trial.observations.copy()
    changed[1, 4] += 1
    with pytest.raises(StoreError, match="episode 2, step 4"):
        replay_states(family, replace(trial, observations=changed))
    with pytest.raises(StoreError, match="cannot be stepped again"):
        replay_states(family, replace(trial, start="wide"))


def test_a_task_out_of_range_is_refused(tmp_path: Path) -> None:
    trial = _trial()
    write_json(
        tmp_path / "scores.json",
        {"tasks": [trial.task.tolist()], "protocol": {"start": "origin", "trials_per_task": 1}},
    )
    names = ("observations", "actions", "rewards", "beliefs", "successes")
    arrays = {name: getattr(trial, name)[None] for name in names}
    save_tensors(tmp_path / "rollouts.safetensors", arrays, {})
    assert (read_trial(tmp_path, 0).rewards == trial.rewards).all()
    with pytest.raises(StoreError, match="test tasks 0 to 0"):
        read_trial(tmp_path, 1)


@pytest.mark.parametrize("extra", [[], ["--every", "0"], ["--episodes", "x"], ["--size", "3"]])
def test_refusals_end_with_two(
    extra: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMRL_HOME", str(tmp_path))
    assert main(["video", "nothing-seed0", *extra]) == 2
