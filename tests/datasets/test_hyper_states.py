"""The Zarr store of hyper-states: exact round trips, layout, budgets and refusals."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import hyper_state_layout
from datasets.errors import DataError
from datasets.files import digest_tree, json_bytes, list_files, read_json
from datasets.hyper_state_layout import HyperStateLayout
from datasets.hyper_states import HyperStates, HyperStateWriter

LAYOUTS = st.builds(
    HyperStateLayout,
    tasks=st.integers(1, 3),
    trials=st.integers(1, 5),
    episodes=st.integers(1, 2),
    horizon=st.integers(1, 3),
    observation_dim=st.integers(1, 3),
    action_dim=st.integers(1, 2),
    latent_dim=st.integers(1, 3),
    n_actions=st.sampled_from([None, 4]),
    belief_rewards=st.booleans(),
)


@settings(max_examples=15, deadline=None)
@given(layout=LAYOUTS, seed=st.integers(0, 99), chunk_bytes=st.sampled_from([1, 200, 1 << 25]))
def test_fields_come_back_exactly(
    make_fields: Any,
    make_store: Any,
    tmp_path_factory: pytest.TempPathFactory,
    layout: HyperStateLayout,
    seed: int,
    chunk_bytes: int,
) -> None:
    path = tmp_path_factory.mktemp("store") / "x.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hyper_state_layout, "CHUNK_BYTES", chunk_bytes)
        make_store(path, layout, seed)
        store = HyperStates.open(path)
        loaded = store.load()
        assert store.layout == layout
        assert store.names == list(layout.fields()) == list(loaded)
        for task in range(layout.tasks):
            read = store.read(store.names, task)
            for name, array in make_fields(layout, seed + task).items():
                np.testing.assert_array_equal(read[name], array)
                np.testing.assert_array_equal(loaded[name][task], array)
                assert read[name].dtype == loaded[name].dtype == layout.field(name).dtype
                assert read[name].flags.writeable


def test_the_shapes_are_those_of_the_contract() -> None:
    layout = HyperStateLayout(
        5, 7, 2, 10, 3, 2, 4, n_actions=5, belief_rewards=True, outcomes=True, pieces=2
    )
    shapes = {name: (field.shape, str(field.dtype)) for name, field in layout.fields().items()}
    assert shapes == {
        "observations": ((5, 7, 2, 11, 3), "float32"),
        "actions": ((5, 7, 2, 10, 2), "int64"),
        "rewards": ((5, 7, 2, 10), "float32"),
        "terminations": ((5, 7, 2, 10), "bool"),
        "beliefs": ((5, 7, 21, 8), "float32"),
        "belief_rewards": ((5, 7, 2, 10), "float32"),
        "other_chances": ((5, 7, 2, 10), "float32"),
        "other_rewards": ((5, 7, 2, 10), "float32"),
        "other_beliefs": ((5, 7, 20, 8), "float32"),
    }
    assert layout.nbytes(["rewards", "terminations"]) == 5 * 7 * 20 * 5
    assert HyperStateLayout.from_json(layout.to_json()) == layout
    assert "belief_rewards" not in replace(layout, belief_rewards=False).fields()


def test_a_chunk_is_one_task_and_at_most_32_megabytes() -> None:
    layout = HyperStateLayout(3, 2000, 2, 500, 39, 4, 5)
    for field in layout.fields().values():
        chunk_bytes = int(np.prod(field.chunk)) * field.dtype.itemsize
        assert chunk_bytes <= 32 << 20
        assert field.chunk[0] == 1
        assert field.chunk[2:] == field.shape[2:]
        assert field.blocks * field.chunk[1] >= 2000 > (field.blocks - 1) * field.chunk[1]
    assert layout.field("rewards").blocks == 1
    assert layout.field("observations").blocks > 1


def test_any_zarr_reader_understands_the_store(
    tmp_path: Path, make_store: Any, make_fields: Any, small_layout: HyperStateLayout
) -> None:
    group = zarr.open_group(make_store(tmp_path / "x.zarr", small_layout), mode="r")
    beliefs = group["beliefs"]
    assert isinstance(beliefs, zarr.Array)
    np.testing.assert_array_equal(beliefs[1], make_fields(small_layout, 1)["beliefs"])
    codecs = [codec["name"] for codec in beliefs.metadata.to_dict()["codecs"]]  # type: ignore
    assert codecs == ["bytes", "blosc", "crc32c"]
    assert beliefs.shards is None
    assert np.isnan(beliefs.fill_value)
    assert group["actions"].nchunks_initialized == group["actions"].nchunks == 3  # type: ignore
    assert beliefs.metadata.dimension_names == ("task", "trial", "step", "belief")  # type: ignore


def test_fill_values_as_data_are_written_too(
    tmp_path: Path, make_fields: Any, small_layout: HyperStateLayout
) -> None:
    fields = {name: np.zeros_like(array) for name, array in make_fields(small_layout).items()}
    with HyperStateWriter(tmp_path / "x.zarr", small_layout) as writer:
        for task in range(3):
            writer.write_task(task, fields)
    assert not HyperStates.open(tmp_path / "x.zarr").load()["terminations"].any()


def test_writing_twice_in_any_order_gives_the_same_bytes(
    tmp_path: Path, make_fields: Any, small_layout: HyperStateLayout
) -> None:
    digests = set()
    for name, order in (("a", (0, 1, 2)), ("b", (2, 0, 1))):
        with HyperStateWriter(tmp_path / name, small_layout) as writer:
            for task in order:
                fields = make_fields(small_layout, task)
                writer.write_task(task, dict(sorted(fields.items(), reverse=name == "b")))
        digests.add(digest_tree(tmp_path / name))
    assert len(digests) == 1


def test_an_unfinished_store_cannot_be_closed_or_opened(
    tmp_path: Path, make_fields: Any, small_layout: HyperStateLayout
) -> None:
    writer = HyperStateWriter(tmp_path / "x.zarr", small_layout)
    writer.write_task(1, make_fields(small_layout))
    with pytest.raises(DataError, match=r"tasks \[0, 2\] were not written"):
        writer.close()
    with pytest.raises(DataError, match=r"format_version None .*never finished"):
        HyperStates.open(tmp_path / "x.zarr")


def test_an_exception_leaves_the_store_unsealed(
    tmp_path: Path, make_fields: Any, small_layout: HyperStateLayout
) -> None:
    def interrupted() -> None:
        with HyperStateWriter(tmp_path / "x.zarr", small_layout) as writer:
            writer.write_task(0, make_fields(small_layout))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(DataError, match="never finished"):
        HyperStates.open(tmp_path / "x.zarr")


def test_a_chunk_lost_before_closing_is_noticed(
    tmp_path: Path, make_fields: Any, small_layout: HyperStateLayout
) -> None:
    writer = HyperStateWriter(tmp_path / "x.zarr", small_layout)
    for task in range(3):
        writer.write_task(task, make_fields(small_layout))
    (tmp_path / "x.zarr/beliefs/c.1.0.0.0").unlink()
    with pytest.raises(DataError, match="beliefs has 2 of 3 chunks"):
        writer.close()


def test_a_folder_that_exists_is_never_written_into(
    tmp_path: Path, small_layout: HyperStateLayout
) -> None:
    with pytest.raises(DataError, match="exists already"):
        HyperStateWriter(tmp_path, small_layout)


@pytest.mark.parametrize("task", [-1, 3, 0])
def test_a_task_is_written_once_and_must_exist(
    tmp_path: Path, make_fields: Any, small_layout: HyperStateLayout, task: int
) -> None:
    writer = HyperStateWriter(tmp_path / "x.zarr", small_layout)
    writer.write_task(0, make_fields(small_layout))
    with pytest.raises(DataError, match=f"task {task} is written already or is not one of the 3"):
        writer.write_task(task, make_fields(small_layout))


def put(name: str, index: Any, value: Any) -> Any:
    def change(fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        fields[name][index] = value
        return fields

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("rewards", (3, 1, 2), np.nan), ", trial 3, step 5: reward is NaN"),
        (put("belief_rewards", (3, 1, 2), np.inf), "trial 3, step 5: belief reward is .Inf"),
        (put("beliefs", (2, 6, 3), np.nan), ", trial 2, belief 6: belief is NaN"),
        (put("observations", (0, 0, 3), np.nan), "trial 0, after step 2: observation is NaN"),
        (put("actions", (1, 0, 2), 1.25), "trial 1, step 2: action is 1.25, outside"),
        (lambda f: f | {"rewards": f["rewards"][1:]}, r"of shape \(3, 2, 3\), but \(4, 2, 3\) is"),
        (lambda f: f | {"rewards": f["rewards"].astype("O")}, "dtype object, but float32 is neede"),
        (lambda f: f | {"beliefs": f["beliefs"][:, :-1]}, r"\(4, 6, 4\), but \(4, 7, 4\) is need"),
        (lambda f: {k: v for k, v in f.items() if k != "beliefs"}, r"\['actions', 'belief_rewards"),
        (lambda f: f | {"extra": f["rewards"]}, "fields .*'extra'.* are needed"),
    ],
)
def test_bad_fields_are_refused_with_task_trial_and_step(
    tmp_path: Path, make_fields: Any, small_layout: HyperStateLayout, change: Any, message: str
) -> None:
    writer = HyperStateWriter(tmp_path / "x.zarr", small_layout)
    before = list_files(tmp_path)
    with pytest.raises(DataError, match=rf"^task 1.*{message}"):
        writer.write_task(1, change(make_fields(small_layout)))
    assert list_files(tmp_path) == before


def test_discrete_actions_stay_below_their_number(
    tmp_path: Path, make_fields: Any, small_layout: HyperStateLayout
) -> None:
    layout = replace(small_layout, n_actions=4)
    fields = make_fields(layout)
    fields["actions"][0, 1, 1] = 4
    with pytest.raises(DataError, match=r"trial 0, step 4: action is 4, outside \[0, 3\]"):
        HyperStateWriter(tmp_path / "x.zarr", layout).write_task(0, fields)


def test_data_out_of_bounds_are_refused_again_at_read(
    tmp_path: Path,
    make_fields: Any,
    make_store: Any,
    small_layout: HyperStateLayout,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("datasets.hyper_states._check", lambda *_: None)
        with HyperStateWriter(tmp_path / "x.zarr", small_layout) as writer:
            for task in range(3):
                writer.write_task(
                    task, put("rewards", (2, 1, 0), np.nan)(make_fields(small_layout))
                )
    with pytest.raises(DataError, match=r"x\.zarr: task 1, trial 2, step 3: reward is NaN"):
        HyperStates.open(tmp_path / "x.zarr").read(["rewards"], 1)


def test_only_the_fields_asked_for_are_read(
    tmp_path: Path, make_store: Any, small_layout: HyperStateLayout
) -> None:
    store = HyperStates.open(make_store(tmp_path / "x.zarr", small_layout))
    assert list(store.read(["rewards"], 0)) == ["rewards"]
    assert list(store.load(["beliefs", "actions"])) == ["beliefs", "actions"]
    with pytest.raises(DataError, match=r"no field 'goal', only \['actions', "):
        store.read(["goal"], 0)
    with pytest.raises(DataError, match="task 3 is not one of the 3 tasks"):
        store.read(["rewards"], 3)


def test_more_than_the_budget_is_refused_before_it_is_read(
    tmp_path: Path, make_store: Any, small_layout: HyperStateLayout
) -> None:
    store = HyperStates.open(make_store(tmp_path / "x.zarr", small_layout))
    need = small_layout.nbytes(["rewards"])
    store.load(["rewards"], budget_bytes=need)
    with pytest.raises(DataError, match=f"rewards need {need} bytes .* budget_bytes = {need - 1};"):
        store.load(["rewards"], budget_bytes=need - 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("tasks", 0), ("trials", -1), ("horizon", 1.5), ("latent_dim", True), ("n_actions", 0)],
)
def test_bad_layouts_are_refused(small_layout: HyperStateLayout, name: str, value: Any) -> None:
    with pytest.raises(DataError, match=f"{name} is {value}; a whole number"):
        replace(small_layout, **{name: value})


def test_a_trial_too_long_for_a_chunk_is_refused(small_layout: HyperStateLayout) -> None:
    replace(small_layout, horizon=100_000, observation_dim=500)
    with pytest.raises(DataError, match="observations of one trial take 2400000024 bytes"):
        replace(small_layout, horizon=10**8, observation_dim=3)


def test_a_layout_with_other_entries_is_refused(small_layout: HyperStateLayout) -> None:
    with pytest.raises(DataError, match="not a layout"):
        HyperStateLayout.from_json(small_layout.to_json() | {"goal": 1})


def test_what_is_not_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"zarr\.json is missing"):
        HyperStates.open(tmp_path)
    (tmp_path / "zarr.json").write_bytes(json_bytes([1]))
    with pytest.raises(DataError, match="damaged or not a Zarr v3 group's"):
        HyperStates.open(tmp_path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda a: a["layout"].update(tasks=2), "attributes do not match their sha256"),
        (lambda a: a.update(format_version=7), "format_version 7"),
        (lambda a: a.pop("sha256"), "do not match their sha256"),
    ],
)
def test_edited_attributes_are_noticed(
    tmp_path: Path, make_store: Any, small_layout: HyperStateLayout, edit: Any, message: str
) -> None:
    path = make_store(tmp_path / "x.zarr", small_layout)
    group = read_json(path / "zarr.json")
    edit(group["attributes"])
    (path / "zarr.json").write_bytes(json_bytes(group))
    with pytest.raises(DataError, match=message):
        HyperStates.open(path)


@pytest.mark.slow
def test_a_store_of_ten_thousand_chunks_opens_within_two_seconds(
    tmp_path: Path, make_store: Any
) -> None:
    layout = HyperStateLayout(2000, 1, 1, 1, 1, 1, 1)
    path = make_store(tmp_path / "x.zarr", layout)
    start = time.perf_counter()
    HyperStates.open(path)
    assert time.perf_counter() - start < 2


def test_an_error_that_passes_is_an_error_all_the_same(
    tmp_path: Path, make_store: Any, small_layout: HyperStateLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = HyperStates.open(make_store(tmp_path / "x.zarr", small_layout))
    open_array, calls = zarr.open_array, iter(range(10))

    def once_broken(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == 0:
            raise OSError("Input/output error")
        return open_array(*args, **kwargs)

    monkeypatch.setattr(zarr, "open_array", once_broken)
    with pytest.raises(DataError, match="rewards of task 0 is damaged: Input/output error"):
        store.load(["rewards"])
