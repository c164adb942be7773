"""`tasks.json`: exact round trips, and task lists that may not stand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from datasets.collection_meta import META_NAME, CollectionMeta, read_meta, write_meta
from datasets.errors import DataError
from datasets.files import read_json, write_json

TASKS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.just(2)),
    elements=st.floats(allow_nan=False, allow_infinity=False),
)


def meta(**changes: Any) -> CollectionMeta:
    values: dict[str, Any] = {
        "family": "gridworld",
        "tasks_train": [[0.1, 0.2], [0.3, 0.4]],
        "tasks_test": [[0.5, 0.6]],
        "start": "wide",
        "behaviour": "dqn",
        "episodes": 4,
        "horizon": 15,
        "observation_dim": 2,
        "action_dim": 1,
        "n_actions": 5,
    }
    return CollectionMeta(**(values | changes))


@settings(max_examples=40, deadline=None)
@given(train=TASKS, test=TASKS)
def test_tasks_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, train: np.ndarray, test: np.ndarray
) -> None:
    folder = tmp_path_factory.mktemp("meta")
    written = meta(tasks_train=train, tasks_test=test, test_tasks_seen=True, details={"a": [1]})
    write_meta(folder, written)
    read = read_meta(folder)
    assert read.to_json() == written.to_json()
    np.testing.assert_array_equal(read.tasks_train, train)
    np.testing.assert_array_equal(read.tasks_test, test)
    assert not read.tasks_train.flags.writeable


def test_no_test_tasks_are_fine(tmp_path: Path) -> None:
    write_meta(tmp_path, meta(tasks_test=[]))
    assert len(read_meta(tmp_path).tasks_test) == 0
    assert meta(tasks_test=np.zeros((0, 2))).tasks_test.shape == (0, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks_test": [[9, 9], [0.3, 0.4]]}, "test task 1 is training task 1 .*test_tasks_seen"),
        ({"tasks_train": [[0.0, -0.0]], "tasks_test": [[-0.0, 0.0]]}, "test task 0 is training ta"),
        ({"tasks_train": []}, "tasks_train is empty"),
        ({"tasks_train": [0.1, 0.2]}, r"tasks_train of shape \(2,\), but \(tasks, task_dim\)"),
        ({"tasks_train": [[1, 2], [3, np.nan]]}, "tasks_train: task 1 is not finite"),
        ({"tasks_test": [[np.inf, 2]]}, "tasks_test: task 0 is not finite"),
        ({"tasks_test": [[1, 2, 3]]}, r"shape \(1, 3\) do not belong to tasks_train of .*\(2, 2\)"),
        ({"start": "middle"}, "start is 'middle'; one of"),
        ({"episodes": 0}, "episodes is 0; a whole number"),
        ({"horizon": 1.5}, "horizon is 1.5; a whole number"),
        ({"observation_dim": -1}, "observation_dim is -1"),
        ({"action_dim": True}, "action_dim is True"),
        ({"n_actions": 0}, "n_actions is 0"),
    ],
)
def test_bad_metas_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        meta(**changes)


def test_training_tasks_may_be_tested_on_purpose() -> None:
    tasks = [[0.1, 0.2]]
    assert meta(tasks_train=tasks, tasks_test=tasks, test_tasks_seen=True).test_tasks_seen


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 99}, "format_version 99; 1 is needed"),
        ({"goal": 1}, r"lacks \[\] and has unknown \['goal'\]"),
        ({"tasks_train": "abc"}, "tasks.json: could not convert"),
        ({"tasks_train": [[1, 2], [3]]}, "tasks.json: setting an array element"),
        ({"tasks_test": [[0.1, 0.2]]}, "tasks.json: test task 0 is training task 0"),
        ({"details": 3}, "tasks.json: details is 3"),
    ],
)
def test_an_edited_file_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_meta(tmp_path, meta())
    write_json(tmp_path / META_NAME, read_json(tmp_path / META_NAME) | changes)
    with pytest.raises(DataError, match=message):
        read_meta(tmp_path)


def test_a_file_that_is_no_meta_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tasks\.json is missing"):
        read_meta(tmp_path)
    write_json(tmp_path / META_NAME, [1])
    with pytest.raises(DataError, match=r"format_version \[1\]"):
        read_meta(tmp_path)
    write_json(tmp_path / META_NAME, {"format_version": 1})
    with pytest.raises(DataError, match=r"lacks .*'tasks_train'"):
        read_meta(tmp_path)
