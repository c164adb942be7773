"""The folder of trials: exact round trips, D4RL's names, and files that do not belong."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.errors import DataError
from datasets.files import digest_tree
from datasets.flat_hdf5 import write_flat
from datasets.trial_store import (
    missing_tasks,
    read_meta,
    read_trials,
    task_path,
    to_rows,
    write_meta,
    write_trials,
)
from datasets.trials import Trials


def assert_equal(found: Trials, wanted: Trials) -> None:
    assert found.arrays.keys() == wanted.arrays.keys()
    for name, array in wanted.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 99),
    count=st.integers(1, 4),
    episodes=st.integers(1, 3),
    horizon=st.integers(1, 4),
    n_actions=st.sampled_from([None, 5]),
    infos=st.booleans(),
)
def test_trials_come_back_exactly(
    make_trials: Any, make_meta: Any, tmp_path_factory: pytest.TempPathFactory, **sizes: Any
) -> None:
    folder = tmp_path_factory.mktemp("trials")
    trials = make_trials(**sizes)
    meta = make_meta(trials)
    write_meta(folder, meta)
    write_trials(folder, meta, 1, trials)
    assert_equal(read_trials(folder, 1), trials)
    assert_equal(read_trials(folder, 1, read_meta(folder)), trials)
    assert missing_tasks(folder, meta) == [0, 2]


def test_many_chunks_come_back_exactly(tmp_path: Path, make_trials: Any, make_meta: Any) -> None:
    trials = make_trials(count=400, horizon=50, observation_dim=20)
    meta = make_meta(trials)
    write_trials(tmp_path, meta, 0, trials)
    assert_equal(read_trials(tmp_path, 0, meta), trials)
    with h5py.File(task_path(tmp_path, 0)) as file:
        assert file["observations"].id.get_num_chunks() > 2


def test_d4rl_finds_its_names_and_we_the_task(
    tmp_path: Path, make_trials: Any, make_meta: Any
) -> None:
    trials = make_trials(infos=True)
    meta = make_meta(trials)
    write_trials(tmp_path, meta, 2, trials)
    with h5py.File(task_path(tmp_path, 2)) as file:
        rows = {name: file[name][()] for name in file if name != "infos"}
        assert rows.keys() == {
            "observations", "next_observations", "actions", "rewards", "terminals", "timeouts"
        }  # fmt: skip
        assert all(len(array) == 3 * 2 * 4 for array in rows.values())
        assert file["infos/qpos"].shape == (24, 7)
        np.testing.assert_array_equal(rows["observations"][5], trials.observations[0, 1, 1])
        np.testing.assert_array_equal(rows["next_observations"][7], trials.observations[0, 1, 4])
        np.testing.assert_array_equal(rows["rewards"][23], trials.rewards[2, 1, 3])
        np.testing.assert_array_equal(file.attrs["task"], meta.tasks_train[2])
        assert file.attrs["task"].dtype == np.float64
        facts = {key: file.attrs[key] for key in file.attrs if key != "task"}
    assert facts == {
        "format_version": 1, "family": b"point_robot", "task_index": 2, "trials": 3, "episodes": 2,
        "horizon": 4, "start": b"wide", "behaviour": b"sac",
    }  # fmt: skip


def test_writing_twice_gives_the_same_bytes(
    tmp_path: Path, make_trials: Any, make_meta: Any
) -> None:
    digests = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        trials = make_trials(infos=True)
        write_meta(tmp_path / name, make_meta(trials))
        for task in (0, 1) if name == "a" else (1, 0):
            write_trials(tmp_path / name, make_meta(trials), task, trials)
        digests.add(digest_tree(tmp_path / name))
    assert len(digests) == 1


def spoil(make_trials: Any, field: str, index: Any, value: Any) -> Trials:
    trials: Trials = make_trials()
    trials.arrays[field][index] = value
    return trials


@pytest.mark.parametrize(
    ("field", "index", "value", "message"),
    [
        ("rewards", (2, 0, 1), np.nan, "task 1, trial 2, step 1: reward is NaN"),
        ("observations", (0, 1, 4), np.inf, "task 1, trial 0, after step 7: observation is"),
        ("actions", (0, 1, 2), 2.0, "task 1, trial 0, step 6: action is 2.0, outside"),
    ],
)
def test_bad_numbers_are_refused_at_write_and_again_at_read(
    tmp_path: Path,
    make_trials: Any,
    make_meta: Any,
    field: str,
    index: Any,
    value: float,
    message: str,
) -> None:
    bad = spoil(make_trials, field, index, value)
    meta = make_meta(bad)
    with pytest.raises(DataError, match=f"^{message}"):
        write_trials(tmp_path, meta, 1, bad)
    assert missing_tasks(tmp_path, meta) == [0, 1, 2]
    write_trials(tmp_path, meta, 1, make_trials())
    with h5py.File(task_path(tmp_path, 1), "r+") as file:
        for name, rows in to_rows(bad).items():
            file[name][...] = rows
    with pytest.raises(DataError, match=rf"task-0001\.h5: {message}"):
        read_trials(tmp_path, 1, meta)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episodes": 3}, r"task 0: \(K, H\) of shape \(2, 4\), but \(3, 4\) is needed"),
        ({"horizon": 9}, r"task 0: \(K, H\) of shape \(2, 4\), but \(2, 9\) is needed"),
        ({"observation_dim": 9}, r"task 0: observation of shape \(3,\), but \(9,\) is needed"),
        ({"action_dim": 9}, r"task 0: action of shape \(2,\), but \(9,\) is needed"),
        ({"n_actions": 5}, "task 0: actions are float32; n_actions 5 needs int64"),
    ],
)
def test_trials_of_other_shapes_are_refused(
    tmp_path: Path, make_trials: Any, make_meta: Any, changes: dict[str, Any], message: str
) -> None:
    trials = make_trials()
    with pytest.raises(DataError, match=message):
        write_trials(tmp_path, make_meta(trials, **changes), 0, trials)


def test_discrete_actions_for_a_continuous_family_are_refused(
    tmp_path: Path, make_trials: Any, make_meta: Any
) -> None:
    trials = make_trials(n_actions=5)
    with pytest.raises(DataError, match="task 0: actions are int64, but float32 is needed"):
        write_trials(tmp_path, make_meta(trials, n_actions=None), 0, trials)


@pytest.mark.parametrize("task", [-1, 3])
def test_a_task_that_is_not_there_is_refused(
    tmp_path: Path, make_trials: Any, make_meta: Any, task: int
) -> None:
    trials = make_trials()
    for act in (
        lambda: write_trials(tmp_path, make_meta(trials), task, trials),
        lambda: read_trials(tmp_path, task, make_meta(trials)),
    ):
        with pytest.raises(DataError, match=f"task {task} is not one of the 3 tasks"):
            act()


def test_two_files_swapped_are_noticed(tmp_path: Path, make_trials: Any, make_meta: Any) -> None:
    meta = make_meta(make_trials())
    for task in (0, 1):
        write_trials(tmp_path, meta, task, make_trials(seed=task))
    task_path(tmp_path, 0).rename(tmp_path / "x")
    task_path(tmp_path, 1).rename(task_path(tmp_path, 0))
    (tmp_path / "x").rename(task_path(tmp_path, 1))
    for task in (0, 1):
        with pytest.raises(DataError, match=rf"task-000{task}\.h5: task is .*, but .* is needed"):
            read_trials(tmp_path, task, meta)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "wind"}, "family is 'point_robot', but 'wind' is needed"),
        ({"start": "origin"}, "start is 'wide', but 'origin' is needed"),
        ({"behaviour": "random"}, "behaviour is 'sac', but 'random' is needed"),
        ({"tasks_train": np.eye(3)[:, :2]}, "task is "),
    ],
)
def test_a_file_of_another_collection_is_noticed(
    tmp_path: Path, make_trials: Any, make_meta: Any, changes: dict[str, Any], message: str
) -> None:
    trials = make_trials()
    write_trials(tmp_path, make_meta(trials), 0, trials)
    with pytest.raises(DataError, match=message):
        read_trials(tmp_path, 0, make_meta(trials, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rewards": np.zeros(23, np.float32)},
            r"actions of shape \(24, 2\), but rewards have 23 rows",
        ),
        ({"rewards": np.zeros((0,), np.float32)}, "but rewards have 0 rows"),
        ({"actions": np.zeros((8, 2), np.float32)}, r"actions of shape \(8, 2\), but rewards"),
        ({"actions": np.zeros((24, 2))}, "actions of dtype float64, but float32 or int64"),
        ({"observations": np.zeros((24, 2), np.float32)}, r"of shape \(3, 2, 4, 2\), next_obs"),
        ({"next_observations": None}, "has data sets .* but needs .*'next_observations'"),
        ({"extra": np.zeros(24)}, "has data sets .*'extra'"),
        ({"infos/x": np.zeros(3)}, r"infos/x of shape \(3,\), but rewards have 24 rows"),
        ({"infos/x": np.zeros(24, "i2")}, "infos/x of dtype int16"),
    ],
)
def test_edited_files_are_refused_naming_both_shapes(
    tmp_path: Path, make_trials: Any, make_meta: Any, changes: dict[str, Any], message: str
) -> None:
    trials = make_trials()
    meta = make_meta(trials)
    write_trials(tmp_path, meta, 0, trials)
    with h5py.File(task_path(tmp_path, 0)) as file:
        attributes = dict(file.attrs)
    rows = {k: v for k, v in (to_rows(trials) | changes).items() if v is not None}
    if len(rows["rewards"]) == 0:
        task_path(tmp_path, 0).unlink()
        with h5py.File(task_path(tmp_path, 0), "w") as file:
            file.attrs.update(attributes)
            for name, array in rows.items():
                file[name] = array
    else:
        write_flat(task_path(tmp_path, 0), rows, attributes)
    with pytest.raises(DataError, match=message) as caught:
        read_trials(tmp_path, 0, meta)
    assert "task-0000.h5" in str(caught.value)


def test_a_count_that_is_not_the_rows_is_refused(
    tmp_path: Path, make_trials: Any, make_meta: Any
) -> None:
    trials = make_trials()
    meta = make_meta(trials)
    write_trials(tmp_path, meta, 0, trials)
    for count, message in ((4, "holds 3 trials, but says 4"), (None, "holds 3 trials, but says N")):
        with h5py.File(task_path(tmp_path, 0), "r+") as file:
            del file.attrs["trials"]
            if count is not None:
                file.attrs["trials"] = count
        with pytest.raises(DataError, match=message):
            read_trials(tmp_path, 0, meta)


def test_observations_must_continue_inside_an_episode(
    tmp_path: Path, make_trials: Any, make_meta: Any
) -> None:
    trials = make_trials()
    meta = make_meta(trials)
    write_trials(tmp_path, meta, 0, trials)
    with h5py.File(task_path(tmp_path, 0), "r+") as file:
        file["next_observations"][9, 1] += 1
    with pytest.raises(DataError, match="trial 1, step 1: the next observation is not the observ"):
        read_trials(tmp_path, 0, meta)


def test_nan_observations_in_a_file_are_called_nan(
    tmp_path: Path, make_trials: Any, make_meta: Any
) -> None:
    trials = make_trials()
    write_trials(tmp_path, make_meta(trials), 0, trials)
    with h5py.File(task_path(tmp_path, 0), "r+") as file:
        file["observations"][9] = np.nan
        file["next_observations"][8] = np.nan
    with pytest.raises(DataError, match="trial 1, step 1: observation is NaN"):
        read_trials(tmp_path, 0, make_meta(trials))


def test_a_failed_write_leaves_the_earlier_files(
    tmp_path: Path, make_trials: Any, make_meta: Any
) -> None:
    trials = make_trials()
    meta = make_meta(trials)
    write_trials(tmp_path, meta, 0, trials)
    before = digest_tree(tmp_path)
    bad = replace(trials, rewards=trials.rewards.astype("O"))
    for task in (0, 1):
        with pytest.raises(DataError, match="dtype object"):
            write_trials(tmp_path, meta, task, bad)
    assert digest_tree(tmp_path) == before
