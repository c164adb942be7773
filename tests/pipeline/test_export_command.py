"""`omrl export`: what D4RL, Minari and `omrl import` read again."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from log_files import logged

from datasets.d4rl import read_d4rl, write_d4rl
from datasets.early_ends import lived_steps
from datasets.trial_store import read_trials
from pipeline.cli import main
from pipeline.imports import read_import
from pipeline.store import Store

Capture = pytest.CaptureFixture[str]
DOMAINS = {"gridworld": ((4.0, 4.0), (2.0, 0.0)), "point_robot_sparse": ((0.5,), (2.0,))}


@pytest.fixture(params=DOMAINS)
def domain(request: pytest.FixtureRequest, tmp_path: Path, store: Store) -> str:
    """A domain of whose two tasks trials called `mine` are in the store."""
    name: str = request.param
    (tmp_path / "logs").mkdir()
    for index, task in enumerate(DOMAINS[name]):
        trials = logged(name, task, seed=index)
        write_d4rl(tmp_path / "logs" / f"{index}.h5", trials, {"task": np.array(task)})
    words = ["import", str(tmp_path / "logs"), "--domain", name, "--name", "mine", "--quiet"]
    assert main(words) == 0
    return name


def folder_of(store: Store, name: str) -> Path:
    return store.artefact_folder(*store.parse(read_import(store, name).artefact))


def test_d4rl_files_come_back_as_the_same_trials(
    domain: str, store: Store, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out" / "d4rl"
    assert main(["export", "mine", "--to", str(out), "--quiet"]) == 0
    names = sorted(path.name for path in out.iterdir())
    plain = domain.replace("_", "-")
    assert names == [f"{plain}-task-0000.hdf5", f"{plain}-task-0001.hdf5", "tasks.csv"]
    wanted = read_trials(folder_of(store, "mine"), 1)
    found = read_d4rl(out / names[1], wanted.episodes)
    for name, array in wanted.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array, name)
    with h5py.File(out / names[1]) as file:
        assert tuple(file.attrs["task"]) == DOMAINS[domain][1]
        assert "metadata" not in file
    again = ["import", str(out), "--domain", domain, "--tasks", str(out / "tasks.csv"), "--quiet"]
    assert main([*again, "--name", "again"]) == 0
    for index in range(2):
        first, second = (read_trials(folder_of(store, n), index) for n in ("mine", "again"))
        np.testing.assert_array_equal(first.observations, second.observations)
    tests = [read_import(store, name).config["tasks_test"] for name in ("mine", "again")]
    assert tests[0] == tests[1]


def test_minari_loads_what_was_written(
    domain: str, store: Store, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari")
    out = tmp_path / "minari"
    assert main(["export", "mine", "--to", str(out), "--format", "minari", "--quiet"]) == 0
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(out))
    name = f"omrl/{domain.replace('_', '-')}/all-v0"
    assert name in capsys.readouterr().out
    data = minari.load_dataset(name)
    wanted = [read_trials(folder_of(store, "mine"), index) for index in range(2)]
    episodes = list(data.iterate_episodes())
    assert len(episodes) == sum(trials.count * trials.episodes for trials in wanted)
    last = episodes[-1]
    np.testing.assert_array_equal(last.observations, wanted[1].observations[-1, -1])
    np.testing.assert_array_equal(last.rewards, wanted[1].rewards[-1, -1])
    np.testing.assert_array_equal(last.actions, np.squeeze(wanted[1].actions[-1, -1]))
    facts = list(data.storage.get_episode_metadata([0, len(episodes) - 1]))
    assert [tuple(fact["task"]) for fact in facts] == list(DOMAINS[domain])
    assert (facts[1]["trial"], facts[1]["episode"]) == (1, wanted[1].episodes - 1)
    again = ["import", name, "--domain", domain, "--quiet", "--name", "again"]
    assert main(again) == 0
    for index, trials in enumerate(wanted):
        found = read_trials(folder_of(store, "again"), index)
        for key, array in trials.arrays.items():
            np.testing.assert_array_equal(found.arrays[key], array, key)


@pytest.mark.parametrize("format", ["d4rl", "minari"])
def test_fallen_ants_are_exported_up_to_their_fall_and_come_back(
    format: str,
    store: Store,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trials = logged("ant_dir", [1.0], seed=1, scripted=False)
    lengths = lived_steps(trials, "ants").sum(axis=2).reshape(-1)
    assert lengths.min() < 200
    (tmp_path / "logs").mkdir()
    write_d4rl(tmp_path / "logs" / "0.h5", trials, {"task": np.array([1.0])})
    words = ["--domain", "ant_dir", "--quiet", "--test-tasks", "2"]
    assert main(["import", str(tmp_path / "logs"), *words, "--name", "mine"]) == 0
    out = tmp_path / "out"
    assert main(["export", "mine", "--to", str(out), "--format", format, "--quiet"]) == 0
    if format == "minari":
        minari = pytest.importorskip("minari")
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(out))
        episodes = list(minari.load_dataset("omrl/ant-dir/all-v0").iterate_episodes())
        assert [len(episode.rewards) for episode in episodes] == lengths.tolist()
        assert [episode.terminations[-1] for episode in episodes] == (lengths < 200).tolist()
    else:
        with h5py.File(out / "ant-dir-task-0000.hdf5") as file:
            assert len(file["rewards"]) == lengths.sum()
    assert main(["import", str(out), *words, "--name", "again"]) == 0
    first, second = (read_trials(folder_of(store, name), 0) for name in ("mine", "again"))
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(second.arrays[name], array, name)
    assert second.arrays.keys() == first.arrays.keys()


@pytest.mark.parametrize("domain", ["gridworld"], indirect=True)
def test_what_an_export_refuses(
    domain: str, store: Store, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*words: str) -> str:
        capsys.readouterr()
        assert main(["export", *words, "--quiet"]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    full = tmp_path / "full"
    full.mkdir()
    (full / "x").write_text("mine")
    assert "is there already; --to takes a new folder" in refused("mine", "--to", str(full))
    assert "no artefact 'nonesuch'" in refused("nonesuch", "--to", str(tmp_path / "a"))
    monkeypatch.setitem(__import__("sys").modules, "minari", None)
    assert "pip install '.[minari]'" in refused(
        "mine", "--to", str(tmp_path / "a"), "--format", "minari"
    )
    (folder_of(store, "mine") / "tasks.json").unlink()
    assert "is gone or damaged; `omrl verify" in refused("mine", "--to", str(tmp_path / "a"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "home", "logs"]
    assert (full / "x").read_text() == "mine"


@pytest.mark.parametrize("domain", ["gridworld"], indirect=True)
def test_an_artefacts_id_is_enough(domain: str, store: Store, tmp_path: Path) -> None:
    short = read_import(store, "mine").artefact[:13]
    (tmp_path / "empty").mkdir()
    assert main(["export", short, "--to", str(tmp_path / "empty"), "--quiet"]) == 0
    assert len(list((tmp_path / "empty").iterdir())) == 3
