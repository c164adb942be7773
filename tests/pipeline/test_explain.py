"""--dry-run: what would run and why, without building anything."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from conftest import RunToy, called, toy_request

from pipeline.explain import Outlook, explain, outlooks
from pipeline.plan import VERSIONS
from pipeline.store import Store
from stages.context import Interrupted


def told(store: Store, *arguments: object) -> dict[str, tuple[str, str]]:
    """Status and reason by step."""
    found: list[Outlook] = outlooks(toy_request(*arguments), store)  # type: ignore[arg-type]
    return {outlook.step.name: (outlook.status, outlook.reason) for outlook in found}


def test_an_empty_store(store: Store, presets: Path) -> None:
    found = told(store)
    assert found["collect"] == ("would run", "never made")
    assert found["relabel"] == ("would run", "input trials changes; input vae changes")
    assert not store.root.exists()


def test_everything_cached(run_toy: RunToy, store: Store, call_log: Path) -> None:
    run_toy()
    called(call_log)
    found = told(store)
    assert {status for status, _ in found.values()} == {"cached"}
    assert found["collect"][1].startswith("trials/")
    assert called(call_log) == []


def test_a_changed_field_is_named_with_both_values(run_toy: RunToy, store: Store) -> None:
    run_toy()
    found = told(store, ["vae.kl_weight=0.1", "vae.reward_decoder.layers=[8]"])
    assert found["collect"][0] == "cached"
    assert found["train-vae"] == (
        "would run",
        "vae.model.reward_decoder.layers [32, 32] -> [8]; vae.elbo.kl_weight 0.05 -> 0.1",
    )
    assert found["relabel"] == ("would run", "input vae changes")
    assert found["train-offline"][1] == "input hyper-states changes; input vae changes"


def test_the_nearest_artefact_is_compared_with(run_toy: RunToy, store: Store) -> None:
    run_toy()
    run_toy(["vae.updates=77", "vae.log_every=3"])
    assert told(store, ["vae.updates=77", "vae.log_every=4"])["train-vae"][1] == (
        "vae.log_every 3 -> 4"
    )
    assert told(store, ["offline.rule=cql"])["train-offline"] == (
        "would run", "offline.learner.rule dqn -> cql",
    )  # fmt: skip
    assert told(store, ["evaluate.episodes=4"])["evaluate"][1] == "evaluate.episodes null -> 4"


def test_the_blind_agent_is_compared_with_blind_agents(run_toy: RunToy, store: Store) -> None:
    run_toy()
    assert told(store, ["evaluate.blind_share=0.5"])["train-blind"] == (
        "would run", "offline.updates 12500 -> 25000",
    )  # fmt: skip


def test_another_seed(run_toy: RunToy, store: Store) -> None:
    run_toy()
    assert told(store, (), 4)["collect"] == ("would run", "seed 0 -> 4")


def test_another_version_of_a_stage(
    run_toy: RunToy, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_toy()
    now = VERSIONS["train-vae"]
    monkeypatch.setitem(VERSIONS, "train-vae", now + 1)
    assert told(store)["train-vae"] == ("would run", f"stage version {now} -> {now + 1}")


def test_a_refresh_leaves_the_rest_to_the_bytes(run_toy: RunToy, store: Store) -> None:
    run_toy()
    found = told(store, (), 0, ["relabel"])
    assert found["relabel"] == ("would run", "refreshed")
    assert found["train-offline"] == (
        "depends", "cached if the bytes of hyper-states stay the same",
    )  # fmt: skip
    assert found["evaluate"][0] == "depends"


def test_damage_and_absence(run_toy: RunToy, store: Store) -> None:
    result = run_toy()
    (result.artefacts["relabel"].folder / "parts" / "1.txt").write_text("x")
    shutil.rmtree(result.artefacts["evaluate"].folder)
    found = told(store)
    assert found["relabel"][0] == "would run"
    assert found["relabel"][1].startswith("damaged: file parts/1.txt has 1 bytes instead of")
    assert found["train-offline"][0] == "would run"


def test_inputs_that_changed(run_toy: RunToy, store: Store) -> None:
    """The trials are new and there, the rest is not: what follows differs in its input."""
    run_toy()
    stop = threading.Event()
    with pytest.raises(Interrupted):
        run_toy(["collect.iterations=7"], stop=stop, on_step=lambda step, artefact: stop.set())
    found = told(store, ["collect.iterations=7"])
    assert found["collect"][0] == "cached"
    assert found["train-vae"] == ("would run", "input trials changed")


def test_the_table_names_the_run(run_toy: RunToy, store: Store) -> None:
    lines = explain(toy_request(), store).splitlines()
    assert lines[0] == "run toy-seed0"
    assert lines[1].split() == ["stage", "outlook", "why"]
    assert len(lines) == 8
