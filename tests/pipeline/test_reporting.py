"""From records to the page: drawn once, drawn anew when something changed, never half."""

from __future__ import annotations

import html
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import RunToy

import pipeline.report.build
from pipeline.cli import main
from pipeline.commands.report import write
from pipeline.errors import ConfigError, StoreError
from pipeline.presets import load_config
from pipeline.records import read_record, write_record
from pipeline.report.build import ReportRequest
from pipeline.reporting import report_request, write_run_report
from pipeline.store import Store

Drawn = list[ReportRequest]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """The requests for which a page was drawn; the page itself is a stub."""
    requests: Drawn = []

    def draw(request: ReportRequest, output: Path) -> None:
        requests.append(request)
        (output / "index.html").write_text(f"page {len(requests)}")

    monkeypatch.setattr(pipeline.report.build, "write_report", draw)
    return requests


def test_a_page_is_drawn_once(run_toy: RunToy, store: Store, drawn: Drawn) -> None:
    run_toy()
    path = write(store, ["toy-seed0"])
    assert path == store.root / "reports" / "toy-seed0" / "index.html"
    assert write(store, ["toy-seed0"]).read_text() == "page 1"
    assert write(store, ["toy-seed0"], refresh=True).read_text() == "page 2"
    assert list((store.root / ".tmp").iterdir()) == []
    assert list((store.root / ".trash").iterdir()) == []


def test_a_damaged_page_is_drawn_anew(run_toy: RunToy, store: Store, drawn: Drawn) -> None:
    run_toy()
    write(store, ["toy-seed0"]).write_text("damage")
    assert write(store, ["toy-seed0"]).read_text() == "page 2"


def test_a_new_run_to_compare_with_changes_the_page(
    run_toy: RunToy, store: Store, drawn: Drawn
) -> None:
    run_toy()
    write(store, ["toy-seed0"])
    run_toy(["vae.kl_weight=0.1"])
    assert write(store, ["toy-seed0"]).read_text() == "page 2"
    (other,) = drawn[1].others
    assert (other.label, other.difference) == ("toy", "vae.elbo.kl_weight=0.1")
    assert [path.is_dir() for path in other.scores] == [True]


def test_of_another_preset_only_the_newest_configuration_counts(
    run_toy: RunToy, store: Store, presets: Path
) -> None:
    mine = run_toy(["vae.updates=7"]).record
    for seed in (0, 1):
        run_toy(seed=seed)
    (presets / "vae_config" / "toy.yaml").write_text(
        "vae:\n  updates: 12\n  elbo:\n    kl_weight: 0.05\n"
    )
    newest = run_toy(seed=0)
    (other,) = report_request(store, [mine], "name").others
    assert other.difference == "vae.updates=12"
    assert other.scores == (newest.artefacts["evaluate"].folder,)


def test_the_request_holds_folders_and_lineage(run_toy: RunToy, store: Store) -> None:
    results = [run_toy(["vae.kl_weight=0.1"], seed=seed) for seed in (0, 1)]
    request = report_request(store, [result.record for result in results], "name")
    assert (request.preset, request.family) == ("toy", "gridworld")
    assert request.difference == "vae.elbo.kl_weight=0.1"
    assert [one.seed for one in request.seeds] == [0, 1]
    first = request.seeds[0]
    assert first.folders["agent"] == results[0].artefacts["train-offline"].folder
    assert set(first.folders) == {"trials", "vae", "hyper-states", "agent", "scores"}
    assert [facts.stage for facts in first.lineage] == list(results[0].artefacts)
    assert first.lineage[-1].inputs["blind-agent"] == results[0].artefacts["train-blind"].reference


def test_the_pages_command_makes_its_runs_again(run_toy: RunToy, store: Store) -> None:
    overrides = ["vae.reward_decoder.layers=[8, 16]", "offline.learner={rule: cql, discount: 0.9}"]
    records = [run_toy(overrides, seed=seed).record for seed in (0, 1, 2)]
    request = report_request(store, records, "name")
    assert request.command == (
        "omrl run toy --set offline.learner.discount=0.9 --set offline.learner.rule=cql "
        "--set 'vae.model.reward_decoder.layers=[8, 16]' --seeds 0..2"
    )
    words = shlex.split(request.command)
    given = [text for option, text in pairwise(words) if option == "--set"]
    assert load_config("toy", given).config == load_config("toy", overrides).config
    path = write_run_report(store, records, "name")
    assert html.escape(request.command).replace("&#x27;", "&#39;") in path.read_text()


def test_several_seeds_share_a_page(run_toy: RunToy, store: Store, drawn: Drawn) -> None:
    for seed in (0, 1):
        run_toy(seed=seed)
    assert write(store, ["toy-seed0", "toy-seed1"]).parent.name == "toy"
    assert len(drawn[0].seeds) == 2


def test_what_cannot_be_reported(run_toy: RunToy, store: Store, drawn: Drawn) -> None:
    result = run_toy()
    other = run_toy(["vae.kl_weight=0.1"])
    with pytest.raises(StoreError, match="runs that differ in their seeds only"):
        write(store, [result.record.name, other.record.name])
    with pytest.raises(ConfigError, match="report name"):
        write(store, ["toy-seed0"], name="../x")
    write_record(store, replace(read_record(store, "toy-seed0"), status="unfinished"))
    with pytest.raises(StoreError, match=r"is not complete; go on with: omrl run toy --seed 0"):
        write(store, ["toy-seed0"])
    (other.artefacts["train-vae"].folder / "parts" / "0.txt").unlink()
    with pytest.raises(StoreError, match=r"vae/\w+ of run .* is gone or damaged; run again: "):
        write(store, [other.record.name])
    assert drawn == []


def test_a_page_that_fails_leaves_the_old_one(
    run_toy: RunToy, store: Store, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_toy()
    path = write(store, ["toy-seed0"])

    def fail(request: ReportRequest, output: Path) -> None:
        (output / "index.html").write_text("half")
        raise RuntimeError("bug")

    monkeypatch.setattr(pipeline.report.build, "write_report", fail)
    with pytest.raises(RuntimeError, match="bug"):
        write_run_report(store, [result.record], "toy-seed0", refresh=True)
    assert path.read_text() == "page 1"
    assert list((store.root / ".tmp").iterdir()) == []


def test_the_real_page_of_a_toy_run(
    run_toy: RunToy, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    run_toy()
    assert main(["report", "toy-seed0"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert "<html" in path.read_text()
    assert list(path.parent.glob("*.csv"))


def test_a_run_ends_with_the_path_of_its_page(
    store: Store, presets: Path, fake: None, drawn: Drawn, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "toy", "--no-prefect", "--quiet"]
    assert main(words) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"report: {store.root}/reports/toy-seed0/index.html"
    assert main([*words, "--refresh", "report"]) == 0
    assert len(drawn) == 2
