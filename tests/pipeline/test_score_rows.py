"""Score rows: grouped by preset and overrides, over seeds, from whole artefacts only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import RunToy
from fake_stages import EPISODES, TASKS, fake_scores

from benchmarks.results import markdown
from datasets.files import write_json
from pipeline.records import list_records, run_name, write_record
from pipeline.scores import ScoreRow, score_rows, score_table
from pipeline.statistics import estimate
from pipeline.store import Store


def returns_of(store: Store, names: Sequence[str]) -> np.ndarray:
    """The agent's returns of these runs, (runs, tasks, K), read without the code under test."""
    found = []
    for name in names:
        record = json.loads((store.root / "records" / f"{name}.json").read_text())
        reference = dict(record["artefacts"])["evaluate"]
        scores = json.loads((store.root / "artefacts" / reference / "scores.json").read_text())
        found.append(scores["returns"]["agent"])
    return np.array(found)


def test_one_row_a_preset_over_its_seeds(run_toy: RunToy, store: Store) -> None:
    for seed in (2, 0, 1):
        run_toy(seed=seed)
    run_toy(["vae.kl_weight=0.1"])
    rows = score_rows(store, "gridworld")
    assert [(row["preset"], row["overrides"], row["seeds"]) for row in rows] == [
        ("toy", [], [0, 1, 2]),
        ("toy", ["vae.elbo.kl_weight=0.1"], [0]),
    ]
    returns = returns_of(store, [f"toy-seed{seed}" for seed in range(3)])
    summary = estimate(returns.sum(axis=2))
    row = rows[0]
    assert row["return_sum"] == {
        "mean": summary.mean,
        "iqm": summary.iqm,
        "ci95": [summary.low, summary.high],
    }
    np.testing.assert_allclose(row["return_per_episode"], returns.mean(axis=(0, 1)))
    assert row["success"] == pytest.approx(2 / 3)
    assert row["oracle"] == 22.0
    assert set(row["others"]) == {"agent_best", "blind"}
    assert row["protocol"]["task_count"] == TASKS
    assert row["command"] == "omrl run toy --seeds 0..2"
    assert row["headline"] is False
    assert rows[1]["return_sum"]["ci95"] is None
    assert rows[1]["command"] == "omrl run toy --set vae.elbo.kl_weight=0.1 --seed 0"
    assert json.loads(json.dumps(rows)) == rows


def test_a_domain_without_success_has_a_dash(
    run_toy: RunToy, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_toy()
    monkeypatch.setattr(
        "pipeline.scores.read_json", lambda path: json.loads(path.read_text()) | {"success": {}}
    )
    (row,) = score_rows(store)
    assert row["success"] is None
    assert "  -  " in score_table([row])
    assert "| - |" in markdown([row])


def test_the_domains_own_preset_is_the_headline(run_toy: RunToy, store: Store) -> None:
    run_toy()
    record = list_records(store)[0]
    write_record(store, replace(record, name="gridworld-seed0", preset="gridworld"))
    assert [(row["preset"], row["headline"]) for row in score_rows(store)] == [
        ("gridworld", True),
        ("toy", False),
    ]


def test_only_the_newest_configuration_counts(run_toy: RunToy, store: Store, presets: Path) -> None:
    run_toy(seed=0)
    run_toy(seed=1)
    for record in list_records(store):  # as if made an hour ago
        write_record(store, replace(record, created="2001-01-01T00:00:00+00:00"))
    (presets / "vae_config" / "toy.yaml").write_text("vae:\n  updates: 11\n")
    run_toy(seed=1)
    assert [row["seeds"] for row in score_rows(store)] == [[1]]


def named(store: Store, name: str, seed: int) -> None:
    """A copy of the record of `toy` with that seed, as `--name` gives it."""
    record = next(r for r in list_records(store) if r.name == f"toy-seed{seed}")
    write_record(store, replace(record, name=f"{name}-seed{seed}"))


def test_a_run_of_another_name_has_a_row_of_its_own(run_toy: RunToy, store: Store) -> None:
    for seed in (0, 1):
        run_toy(seed=seed)
        named(store, "mine", seed)
    run_toy(["vae.kl_weight=0.1"])
    rows = score_rows(store)
    stem = run_name("toy", ["vae.elbo.kl_weight=0.1"], 0).removesuffix("-seed0")
    assert [(row["name"], row["seeds"]) for row in rows] == [
        ("mine", [0, 1]), ("toy", [0, 1]), (stem, [0]),
    ]  # fmt: skip
    assert rows[0]["command"] == "omrl run toy --seeds 0..1 --name mine"
    assert rows[0]["return_sum"] == rows[1]["return_sum"]
    lines = score_table(rows).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["mine", "toy", stem]
    assert "mine: toy" in lines
    assert not any(line.startswith("toy: ") for line in lines)


def test_a_named_run_hides_no_other(run_toy: RunToy, store: Store, presets: Path) -> None:
    """The newest configuration counts under one name, not under another."""
    run_toy(seed=0)
    named(store, "before", 0)
    (presets / "vae_config" / "toy.yaml").write_text("vae:\n  updates: 11\n")
    run_toy(seed=0)
    assert [row["name"] for row in score_rows(store)] == ["before", "toy"]


def test_a_named_run_is_not_the_headline(run_toy: RunToy, store: Store) -> None:
    run_toy()
    record = list_records(store)[0]
    write_record(store, replace(record, name="mine-seed0", preset="gridworld"))
    assert [row["headline"] for row in score_rows(store)] == [False, False]


def test_unfinished_and_damaged_runs_are_left_out(run_toy: RunToy, store: Store) -> None:
    run_toy(seed=0)
    result = run_toy(seed=1)
    assert score_rows(store, "point_robot") == []
    (result.artefacts["evaluate"].folder / "scores.json").write_text("{}")
    assert [row["seeds"] for row in score_rows(store)] == [[0]]
    record = next(r for r in list_records(store) if r.seed == 0)
    write_record(store, replace(record, status="unfinished"))
    assert score_rows(store) == []


def test_seeds_with_other_tasks_are_not_mixed(
    run_toy: RunToy, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_toy(seed=0)

    def other(seed: int) -> dict[str, object]:
        return {**fake_scores(seed), "tasks": [[9.0]] * TASKS}

    monkeypatch.setattr("fake_stages.fake_scores", other)
    run_toy(seed=1)
    assert [row["seeds"] for row in score_rows(store)] == [[0]]


def test_the_table_states_the_protocol(run_toy: RunToy, store: Store) -> None:
    run_toy(seed=0)
    run_toy(seed=1)
    text = score_table(score_rows(store))
    assert text.splitlines()[0].split() == [
        "run", "seeds", "return", "IQM", "95", "%", "of", "IQM",
        "per", "episode", "success", "oracle",
    ]  # fmt: skip
    assert "3 tasks seen in training, start origin, 2 episodes of 15 steps" in text
    assert " to " in text
    assert EPISODES == 2


def test_a_domain_without_an_oracle_has_rows_too(
    run_toy: RunToy, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(seed: int) -> dict[str, Any]:
        scores = fake_scores(seed)
        return {**scores, "returns": {k: v for k, v in scores["returns"].items() if k != "oracle"}}

    monkeypatch.setattr("fake_stages.fake_scores", without)
    run_toy(seed=0)
    (row,) = score_rows(store)
    assert row["oracle"] is None
    assert "oracle" not in row["others"]
    assert score_table([row]).splitlines()[1].split()[-1] == "-"
    assert "| - |" in markdown([row])


def test_rows_of_one_protocol_share_a_table(run_toy: RunToy, store: Store) -> None:
    run_toy()
    (row,) = score_rows(store)
    names = ("a", "b", "c")
    rows = [
        ScoreRow(**{**row, "name": name, "protocol": {**row["protocol"], "episodes": episodes}})
        for name, episodes in zip(names, (2, 4, 2), strict=True)
    ]
    tables = [text.splitlines() for text in score_table(rows).split("\n\n")]
    assert [[line.split()[0] for line in lines] for lines in tables] == [
        ["run", "a", "c", "a:", "c:", "gridworld:"],
        ["run", "b", "b:", "gridworld:"],
    ]
    assert ["4 episodes" in lines[-1] for lines in tables] == [False, True]


def test_a_record_that_names_no_scores(run_toy: RunToy, store: Store) -> None:
    run_toy()
    record = list_records(store)[0]
    write_record(store, replace(record, artefacts={"collect": record.artefacts["collect"]}))
    assert score_rows(store) == []


def test_a_scores_file_of_another_shape(run_toy: RunToy, store: Store) -> None:
    result = run_toy()
    write_json(result.artefacts["evaluate"].folder / "scores.json", [])
    assert score_rows(store) == []
