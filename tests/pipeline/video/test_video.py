"""Composition, files, and refusals of `omrl video`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from algorithms.vae_files import describe, save_vae
from datasets.checkpoints import save_tensors
from datasets.files import write_json
from environments.base import TaskFamily
from environments.registry import load_family
from environments.rendering.base import Frame
from models.config import VaeModelConfig
from pipeline.cli import main
from pipeline.errors import ConfigError, StoreError
from pipeline.garbage import find_garbage, remove
from pipeline.store import Store
from pipeline.video import encode, make
from pipeline.video.compose import Composer
from pipeline.video.encode import GifEncoder, Mp4Encoder, find_ffmpeg
from pipeline.video.make import HOLD, Request, make_video
from pipeline.video.panel import Panel
from pipeline.video.replay import Trial, read_trial, replay_states
from pipeline.video.scene import PlottedScene
from stages.predicted_rewards import predicted_rewards


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


@pytest.mark.parametrize("size", [64, 121, 360])
def test_pictures_have_even_sides_and_change(size: int) -> None:
    trial = _trial()
    scene = PlottedScene(load_family("gridworld"), trial, size)
    composer = Composer("a title", trial, trial.rewards, scene, size)
    first, last = composer.frame(0, 0), composer.frame(1, 15)
    assert first.dtype == np.uint8
    assert first.shape == last.shape == (round(size * 1.15 / 2) * 2, 2 * size, 3)
    assert (first != last).any()


@pytest.mark.parametrize("with_predictions", [True, False])
def test_curves_grow_from_left_to_right(with_predictions: bool) -> None:
    trial = _trial()
    panel = Panel(trial, trial.rewards if with_predictions else None, 200)
    last = panel.picture(30)
    reached = [np.flatnonzero((panel.picture(now) != last).any((0, 2))).min() for now in (0, 9, 20)]
    assert reached[0] < reached[1] < reached[2]
    with_legend, without = Panel(trial, trial.rewards, 200), Panel(trial, None, 200)
    assert (with_legend.picture(0) != without.picture(0)).any()


def test_gif_holds_every_frame(tmp_path: Path) -> None:
    from PIL import Image, ImageSequence

    encoder = GifEncoder(tmp_path / "a.gif", 10)
    for frame in _frames():
        encoder.add(frame, 2)
    encoder.finish()
    with Image.open(tmp_path / "a.gif") as picture:
        shown = [page.info["duration"] for page in ImageSequence.Iterator(picture)]
    assert shown == [200] * 5


def test_mp4_holds_every_frame(tmp_path: Path) -> None:
    from imageio_ffmpeg import count_frames_and_secs

    encoder = Mp4Encoder(tmp_path / "a.mp4", 10)
    for frame in _frames():
        encoder.add(frame)
    encoder.add(frame, 3)
    encoder.finish()
    assert (tmp_path / "a.mp4").read_bytes()[4:8] == b"ftyp"
    assert count_frames_and_secs(str(tmp_path / "a.mp4"))[0] == 8


def test_ffmpeg_says_why_it_cannot_write(tmp_path: Path) -> None:
    encoder = Mp4Encoder(tmp_path / "nowhere" / "a.mp4", 10)
    encoder.add(_frames()[0])
    with pytest.raises(ConfigError, match=r"could not write a\.mp4: .*No such file"):
        encoder.finish()
    with pytest.raises(ConfigError, match="no frame to write"):
        Mp4Encoder(tmp_path / "b.mp4", 10).finish()


def test_without_ffmpeg_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setattr(encode.shutil, "which", lambda name: "/somewhere/ffmpeg")
    assert find_ffmpeg() == "/somewhere/ffmpeg"
    monkeypatch.setattr(encode.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="pip install imageio-ffmpeg"):
        find_ffmpeg()


def _frames() -> list[Frame]:
    return [np.full((40, 60, 3), 40 * i, np.uint8) for i in range(5)]


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
    save_scores(tmp_path, trial)
    assert (read_trial(tmp_path, 0).rewards == trial.rewards).all()
    with pytest.raises(StoreError, match="test tasks 0 to 0"):
        read_trial(tmp_path, 1)


def test_a_run_is_filmed_into_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps 0, 5, 10 and 15, the last of them held, of the second episode."""
    from imageio_ffmpeg import count_frames_and_secs

    save_scores(tmp_path / "evaluate", _trial())
    save_model(tmp_path / "train-vae", load_family("gridworld"), "bernoulli-per-cell")
    record = SimpleNamespace(name="toy-seed0", domain="gridworld")
    monkeypatch.setattr(make, "read_record", lambda store, run: record)
    monkeypatch.setattr(make, "_artefact", lambda store, record, step: tmp_path / step)
    store = Store(tmp_path / "runs")
    request = Request("toy-seed0", episodes=(2, 2), size=80, formats=("mp4", "gif"), quiet=True)
    paths = make_video(store, request)
    folder = store.root / "videos" / "toy-seed0"
    assert paths == [folder / "task0.mp4", folder / "task0.gif"]
    assert sorted(folder.iterdir()) == sorted(paths)
    assert count_frames_and_secs(str(paths[0]))[0] == 3 + HOLD
    assert not list(store.folder(".tmp").iterdir())
    with pytest.raises(ConfigError, match="drawn without cameras"):
        make_video(store, replace(request, camera="top"))
    with pytest.raises(ConfigError, match=r"trials have 1\.\.2"):
        make_video(store, replace(request, episodes=(2, 3)))


def save_scores(folder: Path, trial: Trial) -> None:
    """What `evaluate` leaves of one task."""
    folder.mkdir(exist_ok=True)
    write_json(
        folder / "scores.json",
        {"tasks": [trial.task.tolist()], "protocol": {"start": "origin", "trials_per_task": 1}},
    )
    names = ("observations", "actions", "rewards", "beliefs", "successes")
    arrays = {name: getattr(trial, name)[None] for name in names}
    save_tensors(folder / "rollouts.safetensors", arrays, {})


@pytest.mark.parametrize("extra", [[], ["--every", "0"], ["--episodes", "x"], ["--size", "3"]])
def test_refusals_end_with_two(
    extra: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMRL_HOME", str(tmp_path))
    assert main(["video", "nothing-seed0", *extra]) == 2


def test_videos_go_with_their_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.folder("videos") / "gone-seed0"
    folder.mkdir()
    (folder / "task0.mp4").write_bytes(b"x")
    found = find_garbage(store)
    assert [item.path for item in found] == [folder]
    assert remove(store, found[0])
    assert not folder.exists()


@pytest.mark.parametrize("likelihood", ["bernoulli-per-cell", "bernoulli", "squared-error", "off"])
def test_predicted_rewards_are_those_before_the_step(likelihood: str, tmp_path: Path) -> None:
    family, trial = load_family("gridworld"), _trial()
    save_model(tmp_path, family, likelihood)
    arrays = (trial.observations, trial.actions, trial.rewards)
    predicted = predicted_rewards(tmp_path, family, *arrays, trial.beliefs)
    if predicted is None:
        assert likelihood == "off"
        return
    assert predicted.shape == trial.rewards.shape
    if likelihood != "squared-error":
        assert ((predicted > -0.1) & (predicted < 1)).all()
    later = trial.beliefs.copy()
    later[7:] += 1  # known only after step 7
    again = predicted_rewards(tmp_path, family, *arrays, later)
    assert again is not None
    assert (again.ravel()[:7] == predicted.ravel()[:7]).all()
    assert (again.ravel()[7:] != predicted.ravel()[7:]).all()


def save_model(folder: Path, family: TaskFamily, likelihood: str) -> None:
    """An untrained model of 10 latents."""
    folder.mkdir(exist_ok=True)
    decoder: dict[str, object] = (
        {"enabled": False} if likelihood == "off" else {"likelihood": likelihood}
    )
    state = {"enabled": likelihood == "off"}
    config = VaeModelConfig.model_validate(
        {"encoder": {"latent_dim": 10}, "reward_decoder": decoder, "state_decoder": state}
    )
    description = describe(config, "gridworld", family.spec, 2, family.spec.horizon)
    save_vae(folder, description.build(torch.Generator().manual_seed(0)), description)
