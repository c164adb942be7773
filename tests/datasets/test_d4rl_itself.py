"""D4RL's own package, where it is installed: our scores are its, and it reads our files."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from datasets.d4rl import write_d4rl
from datasets.d4rl_scores import has_widths, normalised, reference
from datasets.d4rl_shim import load_d4rl
from datasets.errors import DataError


@pytest.fixture(scope="module")
def d4rl() -> ModuleType:
    pytest.importorskip("gym")
    try:
        return load_d4rl()
    except DataError:
        pytest.skip("d4rl is not installed")


def test_the_reference_scores_are_those_of_d4rl(d4rl: ModuleType) -> None:
    low, high = d4rl.infos.REF_MIN_SCORE, d4rl.infos.REF_MAX_SCORE
    assert low.keys() == high.keys()
    assert {name: reference(name) for name in low} == {n: (low[n], high[n]) for n in low}
    score = normalised("halfcheetah_medium-v2", 4000.0)
    assert score == pytest.approx(d4rl.get_normalized_score("halfcheetah-medium-v2", 4000.0))


def test_other_names_have_no_scores() -> None:
    for name in ("point_robot", "halfcheetah-medium-v9", "xhopper-medium-v2", ""):
        assert reference(name) is None
        assert normalised(name, 1.0) is None


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("halfcheetah_medium-v2", (17, 6)),
        ("ant-expert-v0", (111, 8)),
        ("antmaze-umaze-v2", (29, 8)),
        ("maze2d-open-dense-v0", (4, 2)),
        ("bullet-ant-random-v0", (28, 8)),
    ],
)
def test_a_name_alone_does_not_make_a_data_set_of_d4rls(name: str, widths: tuple[int, int]) -> None:
    assert reference(name) is not None
    assert has_widths(name, *widths)
    assert not has_widths(name, 20, 6)
    assert not has_widths("point_robot", *widths)


def test_the_loaders_of_d4rl_read_our_files(
    d4rl: ModuleType, tmp_path: Path, make_trials: Any
) -> None:
    trials = make_trials(count=3, episodes=2, horizon=5, infos=True)
    trials.terminations[:] = False
    path = tmp_path / "mine.hdf5"
    write_d4rl(path, trials, {"task": np.array([0.5]), "family": "mine"})
    env = d4rl.offline_env.OfflineEnv(dataset_url=None)
    env.observation_space = SimpleNamespace(shape=(3,))
    env.action_space = SimpleNamespace(shape=(2,))
    data = env.get_dataset(h5path=str(path))
    episodes = list(d4rl.sequence_dataset(SimpleNamespace(_max_episode_steps=5), data))
    assert len(episodes) == 6
    for number, episode in enumerate(episodes):
        n, k = divmod(number, 2)
        np.testing.assert_array_equal(episode["observations"], trials.observations[n, k, :-1])
        np.testing.assert_array_equal(episode["rewards"], trials.rewards[n, k])
        np.testing.assert_array_equal(episode["infos/qpos"], trials.infos["qpos"][n, k])
    # D4RL's learner leaves out the last step of every episode that is cut off
    flat = d4rl.qlearning_dataset(SimpleNamespace(_max_episode_steps=5), data)
    np.testing.assert_array_equal(
        flat["next_observations"], trials.observations[:, :, 1:-1].reshape(-1, 3)
    )
    np.testing.assert_array_equal(flat["actions"], trials.actions[:, :, :-1].reshape(-1, 2))


def test_the_loaders_of_d4rl_read_episodes_that_ended_early(
    d4rl: ModuleType, tmp_path: Path, make_trials: Any
) -> None:
    trials = make_trials(count=1, episodes=3, horizon=5)
    trials.terminations[:] = False
    trials.terminations[0, 1, 1:] = True
    trials.observations[0, 1, 2:] = trials.observations[0, 1, 2]
    write_d4rl(tmp_path / "mine.hdf5", trials)
    with h5py.File(tmp_path / "mine.hdf5") as file:
        data = {name: file[name][()] for name in file}
    episodes = list(d4rl.sequence_dataset(None, data))
    assert [len(episode["rewards"]) for episode in episodes] == [5, 2, 5]
    assert [bool(episode["terminals"][-1]) for episode in episodes] == [False, True, False]
    np.testing.assert_array_equal(episodes[1]["observations"], trials.observations[0, 1, :2])
    flat = d4rl.qlearning_dataset(None, data)
    assert flat["terminals"].tolist() == [False] * 5 + [True] + [False] * 4
    np.testing.assert_array_equal(flat["rewards"][4:6], trials.rewards[0, 1, :2])


def test_without_d4rl_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "d4rl", None)
    with pytest.raises(DataError, match=r"pip install --no-deps d4rl==1\.1"):
        load_d4rl()
