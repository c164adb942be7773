"""Logs without simulator states, from the import to the scores, with the real stages."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from log_files import logged, write_idaq

from datasets.files import read_json
from datasets.trial_store import read_meta, read_trials
from pipeline.cli import main
from pipeline.records import read_record
from pipeline.store import Store

SMALL = {"critic_layers": [8], "actor_layers": [8], "rule": "rebrac"}
CONFIG = {
    "collect": {"domain": "ant_dir", "learner": {"rule": "sac"}},
    "vae": {
        "updates": 2,
        "tasks_per_batch": 2,
        "trials_per_task": 1,
        "log_every": 1,
        "validate_every": 2,
        "model": {"encoder": {"gru_size": 8}},
        "elbo": {"decoded_posteriors": 2},
    },
    "offline": {
        "learner": SMALL,
        "updates": 2,
        "batch_size": 8,
        "log_every": 1,
        "evaluate_every": 2,
    },
}
UNRELABELLED = ("--set", "vae.relabelling.enabled=false", "--set", "relabel.relabelled_copies=0")


def test_trials_without_states_go_all_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMRL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    lines = ["name,direction"]
    for index, direction in enumerate((0.5, 2.0)):
        trials = logged("ant_dir", [direction], seed=index, scripted=False)
        write_idaq(tmp_path / "logs" / f"goal_idx{index}", trials)
        lines.append(f"goal_idx{index},{direction}")
    (tmp_path / "tasks.csv").write_text("\n".join(lines))
    (tmp_path / "ants.yaml").write_text(json.dumps(CONFIG))
    words = ["import", str(tmp_path / "logs"), "--domain", "ant_dir", "--name", "bare", "--quiet"]
    words += ["--tasks", str(tmp_path / "tasks.csv"), "--test-tasks", "2", "--without-states"]
    assert main(words) == 0
    run = ["run", str(tmp_path / "ants.yaml"), "--trials", "bare", "--quiet", "--no-prefect"]
    assert main([*run, "--no-report"]) == 2
    assert "so their rewards cannot be relabelled" in capsys.readouterr().err
    assert main([*run, "--no-report", "--workers", "1", "--threads", "1", *UNRELABELLED]) == 0
    store = Store(tmp_path / "home")
    (name,) = [path.stem for path in (store.root / "records").glob("*.json")]
    artefacts = read_record(store, name).artefacts
    assert "plan-donors" not in artefacts
    folder = store.artefact_folder(*store.parse(artefacts["collect"]))
    meta = read_meta(folder)
    assert read_trials(folder, 0, meta).infos == {}
    scores = read_json(store.artefact_folder(*store.parse(artefacts["evaluate"])) / "scores.json")
    assert np.isfinite(scores["returns"]["agent"]).all()
