"""The bridge to D4RL's layout, both ways, and the files it will not read."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.d4rl import read_d4rl, read_unchecked, write_d4rl
from datasets.errors import DataError
from datasets.trials import Trials


def flat_file(path: Path, lengths: list[int], **changes: Any) -> dict[str, np.ndarray]:
    """What D4RL's own collector would write: gzip, no attributes, metadata beside."""
    rng = np.random.default_rng(0)
    rows = sum(lengths)
    ends = np.cumsum(lengths) - 1
    timeouts = np.zeros(rows, bool)
    timeouts[ends] = True
    observations = rng.normal(size=(rows, 3)).astype(np.float32)
    after = np.roll(observations, -1, axis=0)
    after[ends] = rng.normal(size=(len(lengths), 3))
    data: dict[str, Any] = {
        "observations": observations,
        "next_observations": after,
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": timeouts,
        "infos/goal": rng.normal(size=(rows, 2)),
    }
    data |= changes
    with h5py.File(path, "w") as file:
        for name, array in data.items():
            if array is not None:
                packed = "gzip" if np.ndim(array) else None
                file.create_dataset(name, data=array, compression=packed)
        file["metadata/algorithm"] = np.bytes_(b"SAC")
        file["metadata/iteration"] = np.int32(7)
    return data


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 99),
    count=st.integers(1, 4),
    episodes=st.integers(1, 3),
    horizon=st.integers(1, 4),
    n_actions=st.sampled_from([None, 5]),
    infos=st.booleans(),
)
def test_trials_go_there_and_back(
    make_trials: Any, tmp_path_factory: pytest.TempPathFactory, episodes: int, **sizes: Any
) -> None:
    trials: Trials = make_trials(episodes=episodes, **sizes)
    trials.terminations[:, :, :-1] = False
    path = tmp_path_factory.mktemp("d4rl") / "x.h5"
    write_d4rl(path, trials, {"family": "point_robot"})
    found = read_d4rl(path, episodes)
    assert found.arrays.keys() == trials.arrays.keys()
    for name, array in trials.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)


@pytest.mark.parametrize(("field", "step"), [("terminations", 1), ("truncations", 3)])
def test_an_episode_that_ends_early_or_not_at_all_is_not_written(
    tmp_path: Path, make_trials: Any, field: str, step: int
) -> None:
    trials: Trials = make_trials()
    trials.terminations[:] = False
    trials.arrays[field][1, 1, step] ^= True
    message = {
        "terminations": "step 6: the episode goes on after it has terminated",
        "truncations": "step 7: an episode must end",
    }
    with pytest.raises(DataError, match=f"trial 1, {message[field]}"):
        write_d4rl(tmp_path / "x.h5", trials)


def test_an_episode_that_terminates_early_is_cut_off_there_and_filled_up_again(
    tmp_path: Path, make_trials: Any
) -> None:
    trials: Trials = make_trials(count=2, episodes=2, horizon=5, infos=True)
    trials.terminations[:] = False
    trials.terminations[1, 0, 2:] = True
    trials.observations[1, 0, 3:] = trials.observations[1, 0, 3]
    path = tmp_path / "x.h5"
    write_d4rl(path, trials)
    with h5py.File(path) as file:
        assert len(file["rewards"]) == 2 * 2 * 5 - 2
        assert np.flatnonzero(file["terminals"]).tolist() == [12]
        assert not file["timeouts"][12]
    with pytest.raises(DataError, match="episode 2 has 3 steps, but episode 0 has 5"):
        read_d4rl(path, 2)
    found = read_unchecked(path, 2, horizon=5)
    filled = found.infos["filled"]
    assert np.argwhere(filled).tolist() == [[1, 0, 3], [1, 0, 4]]
    for name, array in trials.arrays.items():
        mine = found.arrays[name]
        if name in ("observations", "terminations", "truncations"):
            np.testing.assert_array_equal(mine, array, name)
        else:
            np.testing.assert_array_equal(mine[~filled], array[~filled], name)


@pytest.mark.parametrize(
    ("lengths", "changes", "horizon", "message"),
    [
        (
            [5, 3],
            {},
            5,
            "episode 1 is cut off after 3 of the 5 steps .* only those that a terminal",
        ),
        ([5, 6], {}, 5, "episode 1 has 6 steps, but episodes of the domain have 5"),
        ([5, 5], {"next_observations": None}, 5, "no next_observations, .* episode 0 has 5 rows"),
        ([6, 5], {"next_observations": None}, 5, "the last of 6, but episode 1 has 5 rows"),
        ([5], {"rewards": np.float32(1)}, 5, r"rewards of shape \(\), but \(rows,\) is needed"),
        ([5], {"rewards": np.zeros((5, 2))}, 5, r"rewards of shape \(5, 2\)"),
    ],
)
def test_episodes_that_do_not_have_the_horizon(
    tmp_path: Path, lengths: list[int], changes: dict[str, Any], horizon: int, message: str
) -> None:
    flat_file(tmp_path / "x.h5", lengths, **changes)
    with pytest.raises(DataError, match=message) as caught:
        read_unchecked(tmp_path / "x.h5", horizon=horizon)
    assert str(tmp_path / "x.h5") in str(caught.value)


def test_a_file_of_d4rls_own_is_read(tmp_path: Path) -> None:
    data = flat_file(tmp_path / "x.h5", [5, 5, 5, 5])
    trials = read_d4rl(tmp_path / "x.h5", episodes=2)
    assert (trials.count, trials.episodes, trials.horizon) == (2, 2, 5)
    np.testing.assert_array_equal(trials.rewards.reshape(-1), data["rewards"])
    np.testing.assert_array_equal(trials.observations[1, 0, 5], data["next_observations"][14])
    assert trials.infos["goal"].shape == (2, 2, 5, 2)
    assert trials.truncations[:, :, -1].all()
    assert trials.truncations.sum() == 4


def test_an_unfinished_last_episode_is_left_out(tmp_path: Path) -> None:
    timeouts = np.zeros(13, bool)
    timeouts[[4, 9]] = True
    flat_file(tmp_path / "x.h5", [5, 5, 3], timeouts=timeouts)
    assert read_d4rl(tmp_path / "x.h5").count == 2


def test_without_next_observations_the_last_transition_goes(tmp_path: Path) -> None:
    data = flat_file(tmp_path / "x.h5", [5, 5], next_observations=None)
    trials = read_d4rl(tmp_path / "x.h5")
    assert trials.horizon == 4
    np.testing.assert_array_equal(trials.observations[1, 0], data["observations"][5:10])
    np.testing.assert_array_equal(trials.actions[1, 0], data["actions"][5:9])
    assert trials.truncations[:, :, -1].all()


def test_terminals_alone_end_episodes_and_types_are_cast(tmp_path: Path) -> None:
    terminals = np.array([0, 0, 1, 0, 0, 1], np.uint8)
    data = flat_file(
        tmp_path / "x.h5",
        [3, 3],
        timeouts=None,
        terminals=terminals,
        actions=np.arange(6, dtype=np.int32),
        rewards=np.arange(6.0)[:, None],
    )
    trials = read_d4rl(tmp_path / "x.h5")
    assert trials.actions.shape == (2, 1, 3, 1)
    assert trials.actions.dtype == np.int64
    assert trials.terminations[:, :, -1].all()
    assert not trials.truncations.any()
    np.testing.assert_array_equal(trials.rewards.reshape(-1), data["rewards"][:, 0])


@pytest.mark.parametrize(
    ("lengths", "changes", "episodes", "message"),
    [
        ([5, 5, 4], {}, 1, "episode 2 has 4 steps, but episode 0 has 5"),
        ([5, 5, 5], {}, 2, "3 episodes do not make trials of 2"),
        ([5], {"timeouts": None}, 1, "no episode ends"),
        ([5], {"timeouts": np.ones(4, bool)}, 1, r"timeouts of shape \(4,\), but \(5,\)"),
        ([5], {"actions": np.zeros((4, 2))}, 1, r"actions of shape \(4, 2\), but rewards of \(5,"),
        ([5], {"rewards": None}, 1, "no data set 'rewards'"),
        ([5], {"rewards": np.full(5, np.nan)}, 1, "trial 0, step 0: reward is NaN"),
        ([5], {"actions": np.full((5, 1), 3.0)}, 1, "trial 0, step 0: action is 3.0, outside"),
        ([5], {"next_observations": np.zeros((5, 3))}, 1, "the next observation is not the obser"),
    ],
)
def test_other_files_are_refused_by_name(
    tmp_path: Path, lengths: list[int], changes: dict[str, Any], episodes: int, message: str
) -> None:
    flat_file(tmp_path / "x.h5", lengths, **changes)
    with pytest.raises(DataError, match=message) as caught:
        read_d4rl(tmp_path / "x.h5", episodes)
    assert str(tmp_path / "x.h5") in str(caught.value)


def test_d4rls_own_loader_reads_our_file(tmp_path: Path, make_trials: Any) -> None:
    d4rl = pytest.importorskip("d4rl")
    trials: Trials = make_trials(horizon=10)
    trials.terminations[:] = False
    write_d4rl(tmp_path / "x.h5", trials)
    with h5py.File(tmp_path / "x.h5") as file:
        dataset = {name: file[name][()] for name in file}
    loaded = d4rl.qlearning_dataset(None, dataset=dataset)
    assert len(loaded["rewards"]) == 3 * 2 * 9  # it drops every episode's last step
