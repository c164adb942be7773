"""The page: whole, self-contained, safe, the same twice, and right in its numbers."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_data import MakeSeed, seed_maker

from datasets.errors import DataError
from pipeline.report.build import OtherRun, ReportRequest, write_report
from pipeline.report.comparison import differences
from pipeline.report.lineage import cards, duration, file_size
from pipeline.report.policies import PolicyScores, gather
from pipeline.report.sources import Scores, SeedOutputs


@pytest.fixture
def make_seed(tmp_path: Path) -> MakeSeed:
    """Writes made-up artefacts of one seed."""
    return seed_maker(tmp_path / "made")


COMMAND = "omrl run gridworld --set a=<b>"
VOID = {"meta", "link", "br", "path", "use", "circle", "rect", "image"}


class Balanced(HTMLParser):
    """Checks that tags nest, and collects what the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value:
                self.loads.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def request_for(make_seed, family: str, seeds: int = 1, others: int = 0) -> ReportRequest:
    beside = tuple(
        OtherRun(f"{family}_{n}", "vae.relabelling.enabled = false", (scores,))
        for n in range(others)
        for scores in [make_seed(family, seed=9 + n, level=0.5).folders["scores"]]
    )
    own = tuple(make_seed(family, seed=seed) for seed in range(seeds))
    return ReportRequest("a run <1>", family, family, "", COMMAND, own, beside)


def build(request: ReportRequest, output: Path) -> str:
    output.mkdir()
    write_report(request, output)
    return (output / "index.html").read_text(encoding="utf-8")


def test_a_full_report_of_several_seeds(make_seed, tmp_path: Path) -> None:
    request = request_for(make_seed, "gridworld", seeds=2, others=1)
    document = build(request, tmp_path / "out")
    parser = Balanced()
    parser.feed(document)
    assert parser.open == []
    assert all(url.startswith(("#", "data:")) or url.endswith(".csv") for url in parser.loads)
    assert "@import" not in document
    assert "<script" not in document
    for anchor in (
        "scores",
        "rollouts",
        "beliefs",
        "posterior",
        "offline",
        "encoder",
        "collection",
        "comparison",
        "tasks",
        "lineage",
    ):
        assert f'id="{anchor}"' in document
        assert f'href="#{anchor}"' in document
    assert document.count("Protocol: 6 test tasks (seen in training)") == 3
    assert "omrl run gridworld --set a=&lt;b&gt;" in document
    assert "&lt;b&gt;ü&lt;/b&gt;" in document  # a config's text is text
    assert "a run &lt;1&gt;" in document
    names = sorted(
        path.relative_to(tmp_path / "out").as_posix()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    )
    assert names == [
        "comparison.csv",
        "figures/belief_tightening.png",
        "figures/comparison.png",
        "figures/evaluation_return.png",
        "figures/returns_per_episode.png",
        "index.html",
        "scores.csv",
        "tasks.csv",
    ]


def test_ids_are_unique_and_every_reference_has_its_target(make_seed, tmp_path: Path) -> None:
    document = build(request_for(make_seed, "gridworld"), tmp_path / "out")
    ids = re.findall(r'\bid="([^"]+)"', document)
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r'(?:url\(|href=")#([^")]+)', document))
    assert wanted <= set(ids)


def test_equal_requests_give_equal_bytes(make_seed, tmp_path: Path) -> None:
    request = request_for(make_seed, "point_robot", others=1)
    assert build(request, tmp_path / "one") == build(request, tmp_path / "two")


def test_numbers_in_the_table_are_those_of_the_scores(make_seed, tmp_path: Path) -> None:
    request = request_for(make_seed, "point_robot_sparse", seeds=2)
    build(request, tmp_path / "out")
    read = [Scores.read(seed.folders["scores"] / "scores.json") for seed in request.seeds]
    returns = np.stack([scores.returns["agent"] for scores in read])
    with (tmp_path / "out" / "scores.csv").open() as stream:
        rows = {row["policy"]: row for row in csv.DictReader(stream)}
    assert float(rows["agent"]["return"]) == pytest.approx(returns.sum(2).mean(), rel=1e-5)
    assert float(rows["agent"]["ep. 1"]) == pytest.approx(returns[..., 0].mean(), rel=1e-5)
    assert rows["agent"]["95 % of IQM"].startswith("[")
    assert rows["oracle"]["95 % of IQM"] == ""
    assert float(rows["agent"]["success"]) == pytest.approx(5 / 6, rel=1e-5)


def test_a_run_with_scores_only_still_has_a_page(make_seed, tmp_path: Path) -> None:
    whole = request_for(make_seed, "escape_room")
    seed = whole.seeds[0]
    (seed.folders["scores"] / "rollouts.safetensors").unlink()
    bare = type(seed)(seed.seed, {"scores": seed.folders["scores"]})
    document = build(
        ReportRequest("bare", "escape_room", "escape_room", "", COMMAND, (bare,)), tmp_path / "o"
    )
    assert 'id="scores"' in document
    assert 'id="rollouts"' not in document
    assert 'id="offline"' not in document


def test_other_protocols_do_not_enter_the_comparison(make_seed, tmp_path: Path) -> None:
    own = make_seed("gridworld")
    fewer = make_seed("gridworld", seed=5, tasks=4).folders["scores"]
    request = ReportRequest(
        "r", "gridworld", "gridworld", "", COMMAND, (own,), (OtherRun("other", "x", (fewer,)),)
    )
    assert 'id="comparison"' not in build(request, tmp_path / "out")


def test_seeds_on_different_tasks_are_refused(make_seed) -> None:
    read = [SeedOutputs.read(make_seed("gridworld", seed=s, tasks=5 + s)).scores for s in (0, 1)]
    with pytest.raises(DataError, match="different tasks"):
        gather(read)


def test_scripted_references_have_no_interval() -> None:
    returns = np.random.default_rng(0).random((3, 4, 2))
    assert PolicyScores("agent", returns, None).varies
    assert not PolicyScores("oracle", returns, None).varies
    assert not PolicyScores("agent", returns[:1], None).varies
    assert PolicyScores("agent", np.repeat(returns[:1], 3, axis=0), None).varies


def test_differences_name_full_keys_and_count_the_rest() -> None:
    own = {"a": {"b": 1, "c": True}, "d": 1, "e": 2}
    assert differences(own, own) == ""
    assert differences(own, {**own, "a": {"b": 1, "c": False}}) == "a.c=false"
    other = {"a": {"b": 2, "c": False}, "d": 3, "e": 4}
    assert differences(own, other) == "a.b=2, a.c=false, d=3, 1 more"


def test_lineage_names_each_artefact_once(make_seed) -> None:
    request = request_for(make_seed, "gridworld", seeds=2)
    found = cards(request.seeds)
    stages = [card.facts.stage for card in found]
    assert stages == [
        "collect",
        *["train-vae"] * 2,
        *["relabel"] * 2,
        *["train-offline"] * 2,
        *["evaluate"] * 2,
    ]
    assert found[0].seeds == "0, 1"
    assert "layers:" in found[0].config


def test_times_and_sizes_read_well() -> None:
    assert [duration(s) for s in (None, 3.21, 59.99, 75.4, 7320)] == [
        "unknown",
        "3.2 s",
        "60.0 s",
        "1 min 15 s",
        "2 h 02 min",
    ]
    assert [file_size(n) for n in (None, 12, 1500, 2_500_000, 3e13)] == [
        "unknown",
        "12 B",
        "1.5 kB",
        "2.5 MB",
        "30.0 TB",
    ]
