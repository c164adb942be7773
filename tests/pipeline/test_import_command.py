"""`omrl import` and the runs that begin with what it made."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import called, omrl_process
from log_files import logged, write_borel, write_idaq, write_minari_file

from datasets import d4rl_scores
from datasets.d4rl import write_d4rl
from datasets.trial_store import read_meta
from environments.registry import load_family
from pipeline import importing
from pipeline.cli import main
from pipeline.imports import find_import, list_imports, read_import, write_import
from pipeline.store import Store

Capture = pytest.CaptureFixture[str]
GOALS = ((4.0, 4.0), (2.0, 0.0), (0.0, 4.0))
GRID = ("--domain", "gridworld", "--quiet")
RUN = ("run", "toy", "--no-prefect", "--no-report", "--quiet")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of D4RL files, one a task of the gridworld."""
    folder = tmp_path / "logs"
    folder.mkdir()
    for index, goal in enumerate(GOALS):
        write_d4rl(folder / f"{index}.hdf5", logged("gridworld", goal), {"task": np.array(goal)})
    return folder


@pytest.fixture
def imported(files: Path, store: Store, capsys: Capture) -> str:
    """Their name in the store."""
    assert main(["import", str(files), *GRID, "--name", "mine"]) == 0
    capsys.readouterr()
    return "mine"


def refused(capsys: Capture, *words: str) -> str:
    """The one sentence of a command that ends with 2."""
    capsys.readouterr()
    assert main(list(words)) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_an_import_says_what_it_found_and_what_is_next(
    files: Path, store: Store, capsys: Capture
) -> None:
    words = ["import", str(files), *GRID, "--name", "mine"]
    assert main([*words, "--dry-run"]) == 0
    assert "nothing was written" in capsys.readouterr().out
    assert not store.root.exists()
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert err.splitlines()[0] == "D4RL files: 3 tasks"
    assert "18 test tasks are drawn" in err
    assert out.splitlines()[0].split() == ["task", "trials", "transitions", "episode", "return"]
    assert out.splitlines()[4].split()[:4] == ["all", "3", "6", "360"]
    assert out.splitlines()[-1] == "next: omrl run gridworld --trials mine"
    record = read_import(store, "mine")
    meta = read_meta(store.artefact_folder(*store.parse(record.artefact)))
    np.testing.assert_array_equal(meta.tasks_train, GOALS)
    assert record.summary["transitions"] == 360
    assert main(words) == 0
    assert "was in the store already" in capsys.readouterr().out
    assert str(files) not in (store.root / "artefacts").as_posix()


def test_bytes_do_not_depend_on_where_the_logs_lie(
    files: Path, imported: str, store: Store, tmp_path: Path
) -> None:
    moved = files.rename(tmp_path / "elsewhere")
    assert main(["import", str(moved), *GRID, "--name", "again"]) == 0
    assert read_import(store, "again").artefact == read_import(store, "mine").artefact


def test_a_run_begins_with_imported_trials(
    imported: str, store: Store, presets: Path, fake: None, call_log: Path, capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("pipeline.run.load_stage", fake_after_import)
    assert main([*RUN, "--trials", imported, "--dry-run"]) == 0
    assert f"imported {imported}, trials/" in capsys.readouterr().out
    assert main([*RUN, "--trials", imported]) == 0
    assert "collect" not in called(call_log)
    assert "  collect                  imported  trials/" in capsys.readouterr().err
    (run,) = (p.stem for p in (store.root / "records").iterdir())
    record = json.loads((store.root / "records" / f"{run}.json").read_text())
    assert dict(record["artefacts"])["collect"] == read_import(store, "mine").artefact
    assert record["command"] == "omrl run toy --set collect.imported=mine --seed 0"
    assert main([*RUN, "--trials", imported]) == 0
    assert called(call_log) == []


def fake_after_import(function: str) -> object:
    """The fake stages, for which every input is one of theirs."""
    from fake_stages import fake_stage

    stage = fake_stage(function)

    def on_any(config, seed, inputs, output, context):  # type: ignore[no-untyped-def]
        ours = {name: path for name, path in inputs.items() if (path / "parts").is_dir()}
        stage(config, seed, ours, output, context)

    return on_any


def test_runs_and_imports_keep_trials_from_being_collected(
    imported: str, store: Store, capsys: Capture
) -> None:
    artefact = read_import(store, imported).artefact
    assert main(["gc"]) == 0
    assert store.find(*store.parse(artefact)) is not None
    assert main(["gc", "--dry-run", "--forget", imported]) == 0
    assert "no run uses it" in capsys.readouterr().out
    assert find_import(store, imported) is not None
    assert main(["gc", "--forget", imported]) == 0
    assert list_imports(store) == []
    assert store.find(*store.parse(artefact)) is None
    assert "no run 'none'" in refused(capsys, "gc", "--forget", "none")


def test_imports_are_listed_shown_and_verified(
    imported: str, store: Store, capsys: Capture
) -> None:
    assert main(["ls"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["mine", "gridworld", "3", "6"]
    assert main(["ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["imports"][0]["trials"] == 6
    assert main(["show", "mine"]) == 0
    shown = capsys.readouterr().out
    assert "format          d4rl" in shown
    assert "again           omrl import /" in shown
    assert main(["show", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["tasks_train"] == [list(g) for g in GOALS]
    assert main(["verify"]) == 0
    (store.root / "imports" / "mine.json").write_text("{}")
    capsys.readouterr()
    assert main(["verify"]) == 1
    assert "import its logs again" in capsys.readouterr().err
    assert "cannot be read, so what its run uses" in refused(capsys, "gc")


def test_damaged_trials_are_not_used(
    imported: str, store: Store, presets: Path, fake: None, capsys: Capture
) -> None:
    folder = store.artefact_folder(*store.parse(read_import(store, imported).artefact))
    (folder / "task-0001.h5").write_bytes(b"torn")
    assert main([*RUN, "--trials", imported, "--dry-run"]) == 0
    assert "import it again" in capsys.readouterr().out
    message = refused(capsys, *RUN, "--trials", imported)
    assert "are damaged (file task-0001.h5 has 4 bytes" in message
    assert "import them again: omrl import" in message
    assert folder.exists()


def test_runs_that_imported_trials_do_not_fit(
    imported: str, presets: Path, capsys: Capture
) -> None:
    for words, message in (
        (("--trials", "other"), "no imported trials 'other' in"),
        (("--trials", imported, "--refresh", "collect"), "cannot be made anew here"),
        (("--trials", imported, "--set", "collect.episodes=3"), "trials mine have 4"),
        (("--trials", imported, "--set", "collect.domain=point_robot"), "gridworld, not of point"),
        (("--trials", imported, "--set", "relabel.trials=3"), "trials mine have 2 of some task"),
        (("--trials", "../mine"), "import name '../mine' cannot be used"),
    ):
        extra = ("--set", "offline.learner.rule=sac", "--set", "collect.learner.rule=sac")
        rules = extra if "point_robot" in words[-1] else ()
        assert message in refused(capsys, *RUN, *words, *rules)


def test_tasks_come_from_the_table_then_metadata_then_names(
    files: Path, store: Store, tmp_path: Path, capsys: Capture
) -> None:
    table = tmp_path / "tasks.csv"
    table.write_text("name,goal_x,goal_y,role\n0,4,4,train\n1,2,0,train\n2,0,4,test\n,3,3,test\n")
    assert main(["import", str(files), *GRID, "--tasks", str(table)]) == 0
    (record,) = list_imports(store)
    assert record.name == "logs"
    assert record.config["tasks_train"] == [[4, 4], [2, 0]]
    assert record.config["tasks_test"] == [[0, 4], [3, 3]]
    table.write_text("name,goal_x,goal_y\n0,4,4\n1,2,0\n")
    assert "has no row for '2'" in refused(
        capsys, "import", str(files), *GRID, "--tasks", str(table)
    )
    table.write_text("name,goal_x,goal_y\n0,4,4\n1,2,0\n2,0,4\n9,1,2\n")
    assert "there is no log '9'" in refused(
        capsys, "import", str(files), *GRID, "--tasks", str(table)
    )


def test_goals_on_the_circle_become_angles(tmp_path: Path, store: Store, capsys: Capture) -> None:
    trials = logged("point_robot_sparse", [2.0], trials=10)
    write_borel(tmp_path / "b" / f"seed_1_goal_{np.cos(2):.3f}_{np.sin(2):.3f}", trials)
    words = ("import", str(tmp_path / "b"), "--domain", "point_robot_sparse", "--quiet")
    assert main([*words]) == 0
    err = capsys.readouterr().err
    assert "tasks are read from names" in err
    assert "as BOReL writes them" in err
    (record,) = list_imports(store)
    assert record.config["tasks_train"][0] == pytest.approx([2.0], abs=1e-3)
    write_borel(tmp_path / "c" / "seed_1_goal_0.5_0.5", trials)
    assert "has 2 numbers, but point_robot_sparse needs 1: goal_angle" in refused(
        capsys, "import", str(tmp_path / "c"), *words[2:]
    )


def test_idaq_and_minari_from_the_command_line(
    tmp_path: Path, store: Store, capsys: Capture
) -> None:
    write_idaq(tmp_path / "idaq" / "goal_idx0", logged("gridworld", GOALS[0]))
    words = ("import", str(tmp_path / "idaq"), *GRID)
    assert "neither its metadata nor its name tells its task" in refused(capsys, *words)
    (tmp_path / "tasks.csv").write_text("name,goal_x,goal_y\ngoal_idx0,4,4\n")
    assert main([*words, "--tasks", str(tmp_path / "tasks.csv"), "--test-tasks", "2"]) == 0
    write_minari_file(
        tmp_path / "mine-v0", [(goal, logged("gridworld", goal)) for goal in GOALS[:2]]
    )
    assert main(["import", str(tmp_path / "mine-v0"), *GRID, "--test-tasks-seen"]) == 0
    formats = [record.config["format"] for record in list_imports(store)]
    assert formats == ["idaq", "minari"]
    assert list_imports(store)[1].config["test_tasks_seen"]


def test_what_an_import_refuses_changes_nothing(files: Path, store: Store, capsys: Capture) -> None:
    own = str(files)
    for words, message in (
        ((own, "--domain", "gridwrld"), "unknown domain 'gridwrld'; did you mean 'gridworld'?"),
        ((own, "--domain", "escape_room"), "has 2 numbers, but escape_room needs 1"),
        ((own, *GRID, "--episodes", "3"), "8 episodes do not make trials of 3"),
        ((own, *GRID, "--episodes", "x"), "--episodes 'x': must be a whole number"),
        ((own, *GRID, "--name", "a/b"), "import name 'a/b' cannot be used"),
        ((own, *GRID, "--name", "x-seed0"), "ends as runs' names do"),
        ((own, *GRID, "--d4rl-name", "mine"), "no data set of D4RL"),
        ((own, own, *GRID), "are both called '0'"),
        ((own, *GRID, "--format", "borel"), "nothing to import was found"),
        ((str(files / "0.hdf5"), *GRID, "--format", "idaq"), "is not a folder"),
        ((own, *GRID, "--tasks", "none.csv"), "none.csv is missing"),
    ):
        assert message in refused(capsys, "import", *words)
    write_d4rl(files / "3.hdf5", logged("gridworld", (3.0, 3.0)), {"task": np.array([1.0, 4.0])})
    assert "gives other rewards than the log's" in refused(capsys, "import", own, *GRID)
    assert list(store.all_keys()) == []
    assert list_imports(store) == []
    assert not list((store.root / ".tmp").iterdir())
    assert main(["import", own, *GRID, "--allow-other-rewards"]) == 0
    assert "rewards of 1 logs are not quite those" in capsys.readouterr().err


def test_a_taken_name_is_refused(files: Path, imported: str, capsys: Capture) -> None:
    (files / "2.hdf5").unlink()
    message = refused(capsys, "import", str(files), *GRID, "--name", imported)
    assert "import name 'mine' is taken by trials/" in message
    assert "omrl gc --forget mine" in message


def test_normalised_returns_of_a_d4rl_name(files: Path, store: Store, capsys: Capture) -> None:
    """A file's name alone says little: the gridworld's numbers are not those of a maze."""
    path = (files / "0.hdf5").rename(files / "maze2d-open-v0.hdf5")
    assert main(["import", str(path), *GRID]) == 0
    assert "normalised return" not in capsys.readouterr().out
    assert main(["import", str(files), *GRID, "--d4rl-name", "maze2d-open-v0"]) == 0
    assert "on the scale of D4RL's maze2d-open-v0)" in capsys.readouterr().out


def test_a_file_with_the_widths_of_d4rls_is_normalised_by_its_name(
    store: Store, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(d4rl_scores._WIDTHS, "maze2d", (2, 1))
    path = tmp_path / "maze2d_open-v0.hdf5"
    write_d4rl(path, logged("gridworld", GOALS[0]), {"task": np.array(GOALS[0])})
    assert main(["import", str(path), *GRID]) == 0
    assert "on the scale of D4RL's maze2d_open-v0)" in capsys.readouterr().out


def test_spellings_of_a_domain_are_one(
    files: Path, store: Store, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "canonical_domain", lambda name: name.removesuffix("-v2"))
    words = ["import", str(files), "--domain", "gridworld-v2", "--quiet", "--name", "mine"]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "next: omrl run gridworld --trials mine"
    record = read_import(store, "mine")
    assert (record.domain, record.config["domain"]) == ("gridworld", "gridworld")
    folder = store.artefact_folder(*store.parse(record.artefact))
    assert read_meta(folder).family == "gridworld"


def test_a_task_that_the_domain_does_not_have_is_told_with_its_place(
    files: Path, store: Store, tmp_path: Path, capsys: Capture
) -> None:
    table = tmp_path / "tasks.csv"
    words = ("import", str(files), *GRID, "--tasks", str(table))
    table.write_text("name,goal_x,goal_y,role\n0,4,4,train\n,3,3,test\n1,9,0,train\n2,0,4,train\n")
    assert f"{table}, line 4: gridworld: its task is the cell (9.0, 0.0)" in refused(capsys, *words)
    table.write_text("name,goal_x,goal_y,role\n0,4,4,train\n1,2,0,\n2,0,4,\n,9,9,test\n")
    assert f"{table}, line 5: gridworld: its task is the cell (9.0, 9.0)" in refused(capsys, *words)
    write_d4rl(files / "3.hdf5", logged("gridworld", GOALS[0]), {"task": np.array([9.0, 9.0])})
    message = refused(capsys, "import", str(files), *GRID)
    assert f"3 ({files / '3.hdf5'}): gridworld: its task is the cell (9.0, 9.0)" in message


def test_trials_without_states_are_for_runs_that_relabel_nothing(
    store: Store, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "push" / "goal_idx0"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(501, 39)).astype(np.float32)
    actions = rng.uniform(-1, 1, (500, 4)).astype(np.float32)
    arrays = {"obs": observations[:-1], "next_obs": observations[1:], "actions": actions}
    for number in range(2):
        name = f"trj_evalsample{number}_step49500.npz"
        np.savez(folder / name, rewards=rng.random(500), **arrays)
    table = tmp_path / "tasks.csv"
    task = "0.05,0.65,0.02,0.05,0.85,0.015"
    names = ",".join(load_family("ml1/push").spec.task_names)
    table.write_text(f"name,{names}\ngoal_idx0,{task}\n")
    words = ("import", str(tmp_path / "push"), "--domain", "ml1/push-v2", "--tasks", str(table))
    words = (*words, "--test-tasks", "2", "--quiet")
    assert "--without-states takes logs that lack them" in refused(capsys, *words)
    assert main([*words, "--without-states"]) == 0
    out, err = capsys.readouterr()
    assert "logs without simulator states: 1 of 1; their rewards are not checked" in err
    following = out.splitlines()[-1].removeprefix("next: ").split()
    assert following[:5] == ["omrl", "run", "ml1/push", "--trials", "push"]
    record = read_import(store, "push")
    assert record.config["without_states"] is True
    assert "--without-states" in record.command
    message = refused(capsys, *following[1:5], "--dry-run")
    assert "are without simulator states" in message
    assert "set vae.relabelling.enabled=false and relabel.relabelled_copies=0" in message
    message = refused(capsys, *following[1:7], "--dry-run")
    assert "are without simulator states" in message
    assert main([*following[1:], "--dry-run"]) == 0
    assert "plan-donors" not in capsys.readouterr().out
    write_import(store, replace(record, domain="ml1/push-v2"))  # as imports of before have it
    assert main([*following[1:], "--dry-run"]) == 0


def test_the_option_changes_nothing_where_no_states_are_needed(
    files: Path, imported: str, store: Store, capsys: Capture
) -> None:
    assert main(["import", str(files), *GRID, "--name", imported, "--without-states"]) == 0
    assert "was in the store already" in capsys.readouterr().out


@pytest.mark.parametrize("point", ["data-done", "before-manifest", "trials/before-rename"])
def test_a_killed_import_leaves_nothing_half_done(
    files: Path, store: Store, tmp_path: Path, point: str
) -> None:
    words = ("import", str(files), *GRID, "--name", "mine")
    process = omrl_process(store.root, *words, env={"OMRL_FAIL": point})
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert list(store.all_keys()) == []
    assert list_imports(store) == []
    assert main(list(words)) == 0
    assert list((store.root / ".tmp").iterdir()) == []
    assert main(["verify"]) == 0


def test_a_full_disk_leaves_the_store_as_it_was(files: Path, store: Store) -> None:
    words = ("import", str(files), *GRID, "--name", "mine")
    process = omrl_process(store.root, *words, env={"OMRL_FAKE_LIMIT": "6000"})
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "no room to write" in errors
    assert list(store.all_keys()) == []
    assert list((store.root / ".tmp").iterdir()) == []


def test_help_of_an_import_needs_no_torch() -> None:
    code = (
        "import sys; from pipeline.cli import main\n"
        "try: main(['import', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'h5py', 'prefect', 'minari'} & set(sys.modules)"
    )
    import sys

    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ), text=True)
