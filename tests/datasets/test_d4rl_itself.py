"""D4RL's own package, where it is installed: our scores are its, and it reads our files."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from datasets.d4rl import write_d4rl
from datasets.d4rl_scores import normalised, reference
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
    ours = {name: reference(name) for name in low if reference(name) is not None}
    assert len(ours) == 17 * 4 + 12 + 4 + 6 * 4 + 3
    assert ours == {name: (low[name], high[name]) for name in ours}
    score = normalised("halfcheetah_medium-v2", 4000.0)
    assert score == pytest.approx(d4rl.get_normalized_score("halfcheetah-medium-v2", 4000.0))


def test_other_names_have_no_scores() -> None:
    for name in ("point_robot", "halfcheetah-medium-v9", "xhopper-medium-v2", ""):
        assert reference(name) is None
        assert normalised(name, 1.0) is None


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


def test_without_d4rl_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "d4rl", None)
    with pytest.raises(DataError, match=r"pip install --no-deps d4rl==1\.1"):
        load_d4rl()
