"""BOReL's and IDAQ's folders: what is read from them, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from log_files import episode_rows, logged, write_borel, write_idaq

from datasets.errors import DataError
from datasets.logs.arrays import load_array, load_arrays
from datasets.logs.borel import borel_tasks, has_carried_starts
from datasets.logs.idaq import idaq_tasks
from datasets.logs.source import Shape
from datasets.trials import Trials

SPARSE = Shape(episodes=2, horizon=60, observation_dim=2, action_dim=2)
GRID = Shape(episodes=4, horizon=15, observation_dim=2, action_dim=1, n_actions=5)


@pytest.fixture(scope="module")
def sparse() -> Trials:
    return logged("point_robot_sparse", [0.5])


@pytest.fixture(scope="module")
def grid() -> Trials:
    return logged("gridworld", [4.0, 2.0])


def same(found: Trials, wanted: Trials, first: int = 0) -> None:
    """Equal but for the observation at which each episode begins, up to `first`."""
    for name, array in wanted.arrays.items():
        mine = found.arrays[name]
        if name == "observations":
            mine, array = mine[:, :, first:], array[:, :, first:]
        np.testing.assert_array_equal(mine, array, name)
        assert mine.dtype == array.dtype


# ---------------------------------------------------------------------- BOReL


def test_flags_and_goal_marks_of_borel_are_left_out(tmp_path: Path, sparse: Trials) -> None:
    write_borel(tmp_path / "seed_7_goal_0.878_-0.479", sparse)
    (log,) = borel_tasks(tmp_path)
    assert log.numbers == (0.878, -0.479)
    assert log.told_by == "name"
    found = log.read(SPARSE).validate()
    same(found, sparse, first=1)
    assert not found.terminations.any()
    assert has_carried_starts(found)
    assert not has_carried_starts(sparse)


def test_one_hot_actions_of_borel_are_decoded(tmp_path: Path, grid: Trials) -> None:
    write_borel(tmp_path / "seed_0_goal_4.0_2.0", grid, n_actions=5)
    (log,) = borel_tasks(tmp_path / "seed_0_goal_4.0_2.0")
    np.testing.assert_array_equal(log.read(GRID).actions, grid.actions)


def test_folders_come_in_the_order_of_their_numbers(tmp_path: Path, grid: Trials) -> None:
    for seed in (10, 2, 1):
        write_borel(tmp_path / f"seed_{seed}_goal_{seed % 5}.0_4.0", grid)
    (tmp_path / "notes.txt").write_text("not a log")
    assert [log.name.split("_")[1] for log in borel_tasks(tmp_path)] == ["1", "2", "10"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": np.zeros((239, 1), "f4")}, r"obs\.npy has shape \(240, 3\), but \(239, dim\)"),
        ({"actions": np.zeros((0, 2), "f4")}, r"actions\.npy has shape \(0, 2\)"),
        ({"rewards": np.zeros((240, 2), "f4")}, "one reward a row is needed"),
        ({"obs": np.zeros((240, 3), "U3")}, "has dtype <U3, but numbers or bool are needed"),
        ({"next_obs": np.zeros((240, 3), "f4")}, "the next observation is not the observation"),
    ],
)
def test_malformed_arrays_of_borel(
    tmp_path: Path, sparse: Trials, changes: dict[str, Any], message: str
) -> None:
    write_borel(tmp_path / "seed_0_goal_1.0", sparse, **changes)
    with pytest.raises(DataError, match=message):
        next(borel_tasks(tmp_path)).read(SPARSE)


def test_borel_folders_that_do_not_fold(tmp_path: Path, sparse: Trials) -> None:
    write_borel(tmp_path / "seed_0_goal_1.0", sparse)
    (log,) = borel_tasks(tmp_path)
    with pytest.raises(DataError, match="240 rows do not make episodes of 70 steps"):
        log.read(Shape(2, 70, 2, 2))
    with pytest.raises(DataError, match="4 episodes do not make trials of 3; --episodes 1, 2, 4"):
        log.read(Shape(3, 60, 2, 2))
    (tmp_path / "seed_0_goal_1.0" / "next_obs.npy").unlink()
    with pytest.raises(DataError, match=r"has no next_obs\.npy, only actions\.npy, obs\.npy"):
        list(borel_tasks(tmp_path))


# ---------------------------------------------------------------------- IDAQ


@pytest.mark.parametrize("kind", ["npz", "columns", "fields"])
def test_plain_episodes_of_idaq(tmp_path: Path, sparse: Trials, kind: str) -> None:
    write_idaq(tmp_path / "goal_idx3", sparse, kind)
    (log,) = idaq_tasks(tmp_path)
    assert (log.name, log.numbers) == ("goal_idx3", None)
    same(log.read(SPARSE).validate(), sparse)


def test_discrete_actions_of_idaq(tmp_path: Path, grid: Trials) -> None:
    write_idaq(tmp_path / "goal_idx3", grid)
    same(next(idaq_tasks(tmp_path)).read(GRID), grid)
    path = tmp_path / "goal_idx3" / "trj_evalsample0_step49500.npz"
    np.savez(path, **{**load_arrays(path), "actions": np.full((15, 1), 0.5)})
    with pytest.raises(DataError, match="not whole numbers, but the domain has 5"):
        next(idaq_tasks(tmp_path)).read(GRID)


def test_the_published_files_of_idaq_are_not_unpickled(tmp_path: Path, sparse: Trials) -> None:
    write_idaq(tmp_path / "goal_idx3", sparse, "objects")
    (log,) = idaq_tasks(tmp_path)
    with pytest.raises(DataError, match=r'a pickle.*never opened here.*"Pickled logs"'):
        log.read(SPARSE)
    for path in (tmp_path / "goal_idx3").glob("*.npy"):  # as docs/data.md says
        rows = np.load(path, allow_pickle=True)
        names = ("obs", "actions", "rewards", "next_obs")
        np.savez(
            path.with_suffix(".npz"),
            **{name: np.stack(rows[:, column]) for column, name in enumerate(names)},
        )
    same(next(idaq_tasks(tmp_path)).read(SPARSE), sparse)


def test_episodes_of_idaq_of_two_lengths(tmp_path: Path, sparse: Trials) -> None:
    write_idaq(tmp_path / "goal_idx3", sparse)
    path = tmp_path / "goal_idx3" / "trj_evalsample2_step49500.npz"
    np.savez(path, **{name: array[:59] for name, array in load_arrays(path).items()})
    with pytest.raises(DataError, match=r"sample2_\S+ has 59 steps, but \S+sample0_\S+ has 60"):
        next(idaq_tasks(tmp_path)).read(SPARSE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs": None}, r"has no 'obs', only \['actions', 'next_obs', 'rewards'\]"),
        ({"rewards": np.zeros((60, 2))}, "one a step is needed"),
        ({"actions": np.zeros((61, 2))}, r"actions has shape \(61, 2\), but \(60, dim\)"),
        ({"next_obs": np.array([{}] * 60)}, "a pickle"),
    ],
)
def test_malformed_episodes_of_idaq(
    tmp_path: Path, sparse: Trials, change: dict[str, Any], message: str
) -> None:
    write_idaq(tmp_path / "goal_idx3", sparse)
    path = tmp_path / "goal_idx3" / "trj_evalsample0_step49500.npz"
    arrays = {**episode_rows(sparse)[0], **change}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(DataError, match=message):
        next(idaq_tasks(tmp_path)).read(SPARSE)


def test_rows_of_another_width_are_not_guessed_at(tmp_path: Path, sparse: Trials) -> None:
    write_idaq(tmp_path / "goal_idx3", sparse, "columns")
    with pytest.raises(DataError, match=r"\(60, 7\), but \(steps, 9\) is needed: 3 \+ 2 \+ 1 \+ 3"):
        next(idaq_tasks(tmp_path)).read(Shape(2, 60, 3, 2))


# ---------------------------------------------------------------------- the files themselves


class Bomb:
    """Code that an unpickler would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("unpickled",)


def test_no_pickle_is_opened(tmp_path: Path) -> None:
    bombs = np.empty(2, object)
    bombs[:] = Bomb()
    np.save(tmp_path / "a.npy", bombs, allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(__import__("pickle").dumps(Bomb()))
    np.savez(tmp_path / "c.npz", x=bombs)
    for name in ("a.npy", "b.npy"):
        with pytest.raises(DataError, match="a pickle"):
            load_array(tmp_path / name)
    with pytest.raises(DataError, match="a pickle"):
        load_arrays(tmp_path / "c.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04torn", b"\x93NUMPY\x01\x00", b"text"])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    for load in (load_array, load_arrays):
        with pytest.raises(DataError, match=f"{path} "):
            load(path)
    with pytest.raises(DataError, match="is missing"):
        load_array(tmp_path / "none.npy")


def test_an_archive_is_no_array_and_the_other_way_round(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(2))
    np.save(tmp_path / "x.npy", np.zeros(2))
    with pytest.raises(DataError, match=r"is a \.npz file"):
        load_array(tmp_path / "x.npz")
    with pytest.raises(DataError, match=r"is not a \.npz file"):
        load_arrays(tmp_path / "x.npy")
