"""The flow against a real server of our own, with stages that take no time."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from conftest import toy_request

import pipeline.run
from datasets.errors import DataError
from pipeline import embedded, prefect_server
from pipeline.config import RuntimeConfig
from pipeline.embedded import execute_with_prefect
from pipeline.errors import ConfigError, StoreError
from pipeline.run import RunRequest, execute
from pipeline.store import Store
from stages.context import Interrupted
from stages.errors import StageError

NAMES = ["collect", "train-vae", "relabel", "train-offline", "train-blind", "evaluate", "report"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a quiet server for this module; Prefect is told of it.

    Its database is new, so a hundred migrations are flushed one by one: in memory if possible.
    """
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(dir=memory) as home:
        patch.setattr(prefect_server, "STARTUP_SECONDS", 280.0)  # other tests have the processors
        patch.delenv("PREFECT_API_URL", raising=False)
        patch.setenv("PREFECT_HOME", home)
        prefect_server.settle_environment(Path("unused"))
        pending = prefect_server.ensure_server()
        pending.wait()
        from prefect.settings import (
            PREFECT_API_URL,
            PREFECT_LOGGING_TO_API_ENABLED,
            temporary_settings,
        )

        changes = {PREFECT_API_URL: pending.url, PREFECT_LOGGING_TO_API_ENABLED: False}
        with temporary_settings(changes):  # Prefect may have been imported long before
            yield pending.url
        pending.stop()


@pytest.fixture
def toy(server: str, store: Store, presets: Path, fake: None, call_log: Path) -> Any:
    """Makes requests for the preset `toy`, to be run through the server."""
    return toy_request


def task_states(run_name: str) -> dict[str, str]:
    """The last state's name of every task of the newest flow run with that name, in order."""

    async def ask() -> dict[str, str]:
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
        from prefect.client.schemas.sorting import FlowRunSort

        async with get_client() as client:
            named = FlowRunFilter(name=FlowRunFilterName(any_=[run_name]))
            newest = FlowRunSort.START_TIME_DESC
            (run, *_) = await client.read_flow_runs(flow_run_filter=named, sort=newest)
            ours = FlowRunFilter(id={"any_": [run.id]})
            for _ in range(100):  # task states travel as events, a moment behind
                tasks = await client.read_task_runs(flow_run_filter=ours)
                if tasks and all(t.state is not None and t.state.is_final() for t in tasks):
                    break
                await asyncio.sleep(0.1)
            tasks.sort(key=lambda t: t.start_time)
            found = {t.name.removesuffix("-seed0"): str(t.state_name) for t in tasks}
            return {**found, "flow": str(run.state_name)}

    return asyncio.run(ask())


def artifact(key: str) -> Any:
    from prefect.artifacts import Artifact

    return Artifact.get(key)


def test_a_run_its_rerun_and_its_artifacts(toy: Any, store: Store, call_log: Path) -> None:
    told: list[str] = []
    request = toy()
    result = execute_with_prefect(request, store, on_step=lambda step, _: told.append(step.name))
    assert told == NAMES[:-1]
    assert result.record.status == "complete"
    assert task_states("toy, seed 0") == {**dict.fromkeys(NAMES, "Completed"), "flow": "Completed"}
    assert (store.root / "reports" / request.name / "index.html").is_file()

    table = artifact("scores-toy-seed0")
    assert table.type == "table"
    assert '"policy": "agent"' in table.data
    assert "Protocol: 3 test tasks" in table.description
    page = artifact("report-toy-seed0")
    assert page.type == "markdown"
    assert "| agent |" in page.data
    assert "data:image/png;base64," in page.data

    again = toy(refresh=["train-offline"])
    execute_with_prefect(again, store)
    states = task_states("toy, seed 0")
    assert [name for name, state in states.items() if state == "Cached"] == [
        "collect",
        "train-vae",
        "relabel",
        "evaluate",
    ]
    assert states["train-offline"] == "Completed"


def test_the_same_bytes_as_without_prefect(toy: Any, store: Store, tmp_path: Path) -> None:
    plain = execute(toy(), Store(tmp_path / "plain"))
    seen = execute_with_prefect(toy(), store, report=False)
    assert {n: a.digest for n, a in plain.artefacts.items()} == {
        n: a.digest for n, a in seen.artefacts.items()
    }
    assert plain.record.config == seen.record.config
    assert plain.record.overrides == seen.record.overrides


def test_a_stages_error_comes_out_as_it_was(
    toy: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(function: str) -> Any:
        def stage(*_: Any) -> None:
            raise DataError("task 3, trial 17, step 42: reward is NaN")

        return stage

    monkeypatch.setattr(pipeline.run, "load_stage", broken)
    with pytest.raises(DataError, match="step 42"):
        execute_with_prefect(toy(), store)
    assert task_states("toy, seed 0") == {"collect": "Failed", "flow": "Failed"}
    for stored in Path(os.environ["PREFECT_HOME"]).glob("storage/*"):
        assert "pickle" not in stored.read_text()  # Prefect keeps a failed run's exception


def test_a_stop_is_passed_on(toy: Any, store: Store) -> None:
    stop = threading.Event()
    with pytest.raises(Interrupted):
        execute_with_prefect(toy(), store, stop, on_step=lambda *_: stop.set())


def test_sigterm_reaches_our_handler_during_a_run_and_is_handed_back(
    toy: Any, store: Store
) -> None:
    mine: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: mine.append(number))
    ours = signal.getsignal(signal.SIGTERM)
    try:
        execute_with_prefect(
            toy(), store, on_step=lambda *_: os.kill(os.getpid(), signal.SIGTERM), report=False
        )
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)
    assert mine == [signal.SIGTERM] * len(NAMES[:-1])


def test_a_wrong_run_name_is_the_users_error(toy: Any, store: Store) -> None:
    execute(toy(), store)
    clash = toy(overrides=["vae.updates=3"])
    clash = RunRequest(clash.loaded, 0, "toy-seed0")
    with pytest.raises(StoreError, match="toy-seed0"):
        execute_with_prefect(clash, store)


def test_what_is_all_cached_needs_no_prefect(
    toy: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(toy(), store)
    monkeypatch.setattr(embedded, "_open_session", lambda *_: pytest.fail("Prefect was used"))
    result = execute_with_prefect(toy(), store)
    assert all(artefact.cached for artefact in result.artefacts.values())


@pytest.mark.parametrize("culprit", ["_open_session", "_call_flow"])
def test_where_prefect_fails_the_run_goes_on(
    toy: Any,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    culprit: str,
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("server down\nand more")

    monkeypatch.setattr(embedded, culprit, fail)
    with caplog.at_level(logging.WARNING, "omrl.prefect"):
        result = execute_with_prefect(toy(), store)
    assert result.record.status == "complete"
    assert "server down); going on without it" in caplog.text


def test_a_report_that_prefect_cannot_take_does_not_undo_the_run(
    toy: Any, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from pipeline import flows

    def fail(*_: Any) -> None:
        raise RuntimeError("no room for artifacts")

    monkeypatch.setattr(flows, "publish_artifacts", fail)
    result = execute_with_prefect(toy(), store)
    assert result.record.status == "complete"
    assert "Prefect failed after the run (no room for artifacts)" in caplog.text


def test_the_flow_on_its_own_takes_sections_and_seeds(
    toy: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.flows import collect_vae_offline
    from pipeline.overrides import VaeOverrides

    vae = VaeOverrides.model_validate({"elbo": {"kl_weight": 0.5}})
    names = collect_vae_offline(
        "toy",
        seeds=[1, 2],
        vae=vae,
        name="mine",
        overrides=["vae.updates=3"],
        runtime=RuntimeConfig(threads=1, quiet=True),
    )
    assert names == ["mine-seed1", "mine-seed2"]
    from pipeline.records import read_record

    record = read_record(store, "mine-seed2")
    assert record.config["vae"]["elbo"]["kl_weight"] == 0.5
    assert record.config["vae"]["updates"] == 3
    assert "--set vae.elbo.kl_weight=0.5" in record.command
    assert record.command.endswith("--seed 2 --name mine --threads 1")
    assert (store.root / "reports" / "mine" / "index.html").is_file()


@pytest.mark.parametrize("seeds", [[], [0, 0], [-1]])
def test_the_flow_refuses_seeds_that_make_no_sense(
    seeds: list[int], toy: Any, store: Store
) -> None:
    from prefect.exceptions import ParameterTypeError

    from pipeline.flows import collect_vae_offline

    with pytest.raises(ParameterTypeError, match="seeds"):
        collect_vae_offline("toy", seeds=seeds)
    assert not list(store.root.glob("records/*"))


def test_the_terminal_is_ours(toy: Any, store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    """Loggers without handlers end at the root, which Prefect would take over."""
    execute_with_prefect(toy(), store)
    logging.getLogger("EventsWorker").warning("still processing")
    logging.getLogger("omrl.store").warning("damaged")
    assert " | WARNING | " not in capfd.readouterr().err


def test_the_flow_refuses_what_does_not_fit_before_it_runs(toy: Any, store: Store) -> None:
    from pipeline.flows import collect_vae_offline

    with pytest.raises(ConfigError, match=r"lower relabel\.trials or relabel\.skip_trials"):
        collect_vae_offline("toy", overrides=["relabel.skip_trials=1000000"])
    with pytest.raises(StageError, match="--precision tf32: only a GPU rounds so"):
        collect_vae_offline("toy", runtime=RuntimeConfig(precision="tf32"))
    assert not list(store.root.glob("records/*"))
