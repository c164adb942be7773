"""D4RL files and Minari data sets as logs of tasks, and which format a path holds."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from log_files import logged, write_borel, write_idaq, write_minari_file

from datasets.d4rl import write_d4rl
from datasets.errors import DataError
from datasets.logs.d4rl import d4rl_tasks
from datasets.logs.minari import minari_tasks
from datasets.logs.recognise import find_logs
from datasets.logs.source import Shape
from datasets.logs.table import TaskTable, read_table, write_table
from datasets.trial_store import to_rows
from datasets.trials import Trials

SPARSE = Shape(episodes=2, horizon=60, observation_dim=2, action_dim=2)
GRID = Shape(episodes=4, horizon=15, observation_dim=2, action_dim=1, n_actions=5)


@pytest.fixture(scope="module")
def logs() -> list[Trials]:
    return [logged("point_robot_sparse", [angle], seed=seed) for seed, angle in enumerate((1, 2))]


def equal(found: Trials, wanted: Trials) -> None:
    assert found.arrays.keys() == wanted.arrays.keys()
    for name, array in wanted.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array, name)
        assert found.arrays[name].dtype == array.dtype


# ---------------------------------------------------------------------- D4RL


def test_a_task_in_the_attributes_wins_over_the_name(tmp_path: Path, logs: list[Trials]) -> None:
    write_d4rl(tmp_path / "x_goal_0.5.hdf5", logs[0], {"task": np.array([1 / 3])})
    write_d4rl(tmp_path / "y_goal_0.5.hdf5", logs[0])
    (first,) = d4rl_tasks(tmp_path / "x_goal_0.5.hdf5")
    assert (first.numbers, first.told_by) == ((1 / 3,), "metadata")
    (second,) = d4rl_tasks(tmp_path / "y_goal_0.5.hdf5")
    assert (second.numbers, second.told_by) == ((0.5,), "name")
    equal(first.read(SPARSE), logs[0])


@pytest.mark.parametrize("column", ["infos/goal", "infos/task"])
def test_a_column_tells_tasks_apart(tmp_path: Path, logs: list[Trials], column: str) -> None:
    """Episodes of two tasks in turns, as one agent for all would have lived them."""
    rows = [to_rows(each) for each in logs]
    parts = [slice(60 * episode, 60 * episode + 60) for episode in range(4)]
    with h5py.File(tmp_path / "all.hdf5", "w") as file:
        for name in rows[0]:
            file[name] = np.concatenate([each[name][part] for part in parts for each in rows])
        file[column] = np.concatenate([[[a]] * 60 for _ in parts for a in (2.0, 1.0)])
        file["metadata/algorithm"] = np.bytes_(b"SAC")
    found = list(d4rl_tasks(tmp_path / "all.hdf5"))
    assert [log.numbers for log in found] == [(2.0,), (1.0,)]
    assert [log.name for log in found] == ["all[0]", "all[1]"]
    for log, wanted in zip(found, logs, strict=True):
        read = log.read(SPARSE)
        equal(Trials.from_arrays({n: a for n, a in read.arrays.items() if "goal" not in n}), wanted)


def test_malformed_d4rl_files(tmp_path: Path, logs: list[Trials]) -> None:
    path = tmp_path / "x.hdf5"

    def written(**changes: object) -> Path:
        write_d4rl(path, logs[0])
        with h5py.File(path, "a") as file:
            for name, value in changes.items():
                if name in file:
                    del file[name]
                if value is not None:
                    file[name] = value
        return path

    with pytest.raises(DataError, match="has no data set 'rewards', only"):
        list(d4rl_tasks(written(rewards=None)))
    with pytest.raises(DataError, match="outside is a SoftLink, which is not followed"):
        list(d4rl_tasks(written(outside=h5py.SoftLink("/rewards"))))
    with pytest.raises(DataError, match="outside is a ExternalLink"):
        list(d4rl_tasks(written(outside=h5py.ExternalLink("/etc/passwd", "/"))))
    with pytest.raises(DataError, match=r"rewards of shape \(\), but \(rows,\)"):
        list(d4rl_tasks(written(rewards=np.float32(1), **{"infos/task": np.zeros((240, 1))})))
    with pytest.raises(DataError, match=r"infos/task of shape \(3, 1\), but \(240, task\)"):
        list(d4rl_tasks(written(**{"infos/task": np.zeros((3, 1))})))
    with pytest.raises(DataError, match="numbers or bool are needed"):
        list(d4rl_tasks(written(**{"metadata/task": np.bytes_(b"left")})))
    (log,) = d4rl_tasks(written(observations=np.zeros((239, 2), "f4")))
    with pytest.raises(DataError, match=r"observations of shape \(239, 2\)"):
        log.read(SPARSE)


# ---------------------------------------------------------------------- Minari


def test_minari_tasks_are_told_by_episodes(tmp_path: Path, logs: list[Trials]) -> None:
    write_minari_file(tmp_path / "mine-v0", [([2.0], logs[1]), ([1.0], logs[0])])
    found = list(minari_tasks(tmp_path / "mine-v0"))
    assert [(log.name, log.numbers) for log in found] == [
        ("mine-v0[0]", (2.0,)), ("mine-v0[1]", (1.0,))
    ]  # fmt: skip
    equal(found[0].read(SPARSE), logs[1])
    equal(found[1].read(SPARSE), logs[0])


def test_minari_with_discrete_actions_and_the_task_in_the_name(tmp_path: Path) -> None:
    grid = logged("gridworld", [4, 2])
    write_minari_file(tmp_path / "grid_goal_4_2-v3", [(None, grid)])
    (log,) = minari_tasks(tmp_path / "grid_goal_4_2-v3")
    assert (log.numbers, log.told_by) == ((4.0, 2.0), "name")
    equal(log.read(GRID), grid)


def test_a_task_in_infos(tmp_path: Path, logs: list[Trials]) -> None:
    path = write_minari_file(tmp_path / "mine-v0", [(None, logs[0])])
    with h5py.File(path, "a") as file:
        for group in file.values():
            group["infos/task"] = np.full((61, 1), 0.25)
            group["infos/qpos"] = np.zeros((61, 3))
            group["infos/text"] = np.array([b"a"] * 61)
    with pytest.raises(DataError, match="infos/text has dtype"):
        next(minari_tasks(tmp_path / "mine-v0")).read(SPARSE)
    with h5py.File(path, "a") as file:
        for group in file.values():
            del group["infos/text"]
    (log,) = minari_tasks(tmp_path / "mine-v0")
    assert log.numbers == (0.25,)
    assert log.read(SPARSE).infos["qpos"].shape == (2, 2, 60, 3)


def test_minari_episodes_that_terminate_early_are_filled_up(
    tmp_path: Path, logs: list[Trials]
) -> None:
    path = write_minari_file(tmp_path / "mine-v0", [([1.0], logs[0])])
    with h5py.File(path, "a") as file:
        group = file["episode_1"]
        for name in list(group):
            rows = group[name][: 10 + (name == "observations")]
            del group[name]
            group[name] = rows
        group["terminations"][9] = True
    found = next(minari_tasks(tmp_path / "mine-v0")).read(SPARSE)
    assert found.rewards.shape == (2, 2, 60)
    assert np.argwhere(found.infos["filled"])[[0, -1]].tolist() == [[0, 1, 10], [0, 1, 59]]
    ended = logs[0].observations[0, 1, 10]
    np.testing.assert_array_equal(found.observations[0, 1, 10:], np.tile(ended, (51, 1)))
    assert found.terminations[0, 1].tolist() == [False] * 9 + [True] * 51
    assert found.truncations[0, 1].tolist() == [False] * 59 + [True]
    np.testing.assert_array_equal(found.rewards[1], logs[0].rewards[1])


def test_malformed_minari_data_sets(tmp_path: Path, logs: list[Trials]) -> None:
    folder = tmp_path / "mine-v0"
    path = write_minari_file(folder, [([1.0], logs[0])])

    def change(**values: object) -> None:
        with h5py.File(path, "a") as file:
            for name, value in values.items():
                key = f"episode_1/{name}"
                if key in file:
                    del file[key]
                if value is not None:
                    file[key] = value

    def read() -> Trials:
        return next(minari_tasks(folder)).read(SPARSE)

    change(rewards=np.zeros(59, "f4"))
    with pytest.raises(DataError, match=r"episode_1/observations of shape \(61, 2\), but 60 rows"):
        read()
    change(**{n: np.zeros(59, "f4") for n in ("rewards", "terminations", "truncations")})
    change(observations=np.zeros((60, 2), "f4"), actions=np.zeros((59, 2), "f4"))
    with pytest.raises(DataError, match="episode_1 is cut off after 59 of the 60 steps"):
        read()
    change(actions=None)
    with pytest.raises(DataError, match="episode_1/actions is missing"):
        read()
    change(**{"actions/arm": np.zeros((59, 2), "f4")})
    with pytest.raises(DataError, match="episode_1/actions is a group, but flat arrays"):
        read()
    with h5py.File(path, "a") as file:
        del file["episode_1"].attrs["task"]
    with pytest.raises(DataError, match="episode_1 has no task, but episode_0 has"):
        read()
    with pytest.raises(DataError, match=r"has no data/main_data\.hdf5"):
        next(minari_tasks(tmp_path))


# ---------------------------------------------------------------------- recognised


def test_formats_are_told_apart(
    tmp_path: Path, logs: list[Trials], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d4rl").mkdir()
    write_d4rl(tmp_path / "d4rl" / "a.hdf5", logs[0])
    write_minari_file(tmp_path / "minari" / "ns" / "mine-v0", [([1.0], logs[0])])
    write_borel(tmp_path / "borel" / "seed_0_goal_1.0", logs[0])
    write_idaq(tmp_path / "idaq" / "goal_idx0", logs[0])
    for name in ("d4rl", "minari", "borel", "idaq"):
        assert find_logs([str(tmp_path / name)]).format == name
    assert find_logs([str(tmp_path / "d4rl" / "a.hdf5")]).sentence == "D4RL files: 1 task"
    assert find_logs([str(tmp_path / "borel" / "seed_0_goal_1.0")]).tasks[0].numbers == (1.0,)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    assert find_logs(["ns/mine-v0"]).tasks[0].name == "mine-v0"
    with pytest.raises(DataError, match="give one kind"):
        find_logs([str(tmp_path / "d4rl"), "ns/mine-v0"])
    with pytest.raises(DataError, match="are both called 'a'"):
        find_logs([str(tmp_path / "d4rl"), str(tmp_path / "d4rl" / "a.hdf5")])


def test_names_that_cannot_be_printed(tmp_path: Path, logs: list[Trials]) -> None:
    for number, name in enumerate(("a\x1b[2Jb", "a\nb", "a\udcff")):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_d4rl(folder / "x.hdf5", logs[0])
        (folder / "x.hdf5").rename(folder / f"{name}.hdf5")
        with pytest.raises(DataError, match="is no name to print; rename"):
            find_logs([str(folder)])


def test_what_is_not_recognised(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("")
    (tmp_path / "empty").mkdir()
    for path, message in (
        ("none", "is neither a file, nor a folder, nor a local Minari data set"),
        ("../../etc-v0", "is neither a file"),
        ("x.csv", r"is not a \.h5 or \.hdf5 file"),
        ("empty", "holds none of what can be imported"),
    ):
        with pytest.raises(DataError, match=message):
            find_logs([str(tmp_path / path) if path != "../../etc-v0" else path])
    with pytest.raises(DataError, match="nothing to import was found"):
        find_logs([str(tmp_path / "empty")], "d4rl")
    (tmp_path / "main_data.hdf5").write_text("")
    with pytest.raises(DataError, match="part of a Minari data set; give its folder"):
        find_logs([str(tmp_path / "main_data.hdf5")])


# ---------------------------------------------------------------------- tables


def test_a_table_of_tasks_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "tasks.csv"
    table = TaskTable(path, {"a": (1 / 3, -2.0)}, ((0.1, 1e-300),), frozenset())
    write_table(path, ("x", "y"), table)
    assert read_table(path, ("x", "y")) == table


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,x\na,1\n", r"has the columns name, x; name, x, y and maybe role are needed"),
        ("name,x,y\na,1\n", "line 2: 3 values are needed"),
        ("name,x,y\na,1,2,3\n", "line 2: 3 values are needed"),
        ("name,x,y\na,1,two\n", "line 2: y is 'two'; a finite number"),
        ("name,x,y\na,1,nan\n", "y is 'nan'; a finite number"),
        ("name,x,y\na,1,2\na,3,4\n", "line 3: 'a' stands twice"),
        ("name,x,y\n,1,2\n", "needs the name of its log"),
        ("name,x,y,role\na,1,2,tset\n", "role is 'tset'; train or test"),
        ("", "has the columns ; name, x, y"),
        ('name,x,y\n"a,1,2\n', "is not a table in CSV"),
        ("name,x,y\n\xff".encode("latin-1").decode("latin-1"), "values are needed"),
    ],
)
def test_malformed_tables(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "tasks.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_table(path, ("x", "y"))


def test_a_table_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "tasks.csv"
    path.write_bytes(b"name,x,y\n\xff,1,2\n")
    with pytest.raises(DataError, match="is not a table in CSV"):
        read_table(path, ("x", "y"))
    with pytest.raises(DataError, match="is missing"):
        read_table(tmp_path / "none.csv", ("x",))
