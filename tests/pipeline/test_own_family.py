"""A user's own family: an edited source is another recipe, and --dry-run says so."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from conftest import RunToy, called, toy_request

from environments.registry import DOMAINS, family_source
from pipeline.explain import outlooks
from pipeline.manifest import MANIFEST
from pipeline.plan import chain
from pipeline.store import Store

SOURCE = """\
from environments.gridworld import Gridworld


class Mine(Gridworld):
    pass
"""
DOMAIN = ["collect.domain=own_grid:Mine"]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the family `own_grid:Mine`, in a folder that is imported from."""
    path = tmp_path / "own" / "own_grid.py"
    path.parent.mkdir()
    path.write_text(SOURCE)
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two edits may share a second
    monkeypatch.delitem(sys.modules, "own_grid", raising=False)
    return path


def edit(path: Path, text: str) -> None:
    """Change the source, as if seen by a new process."""
    path.write_text(text)
    sys.modules.pop(path.stem, None)
    importlib.invalidate_caches()


def test_an_edited_source_is_run_again(
    module: Path, run_toy: RunToy, call_log: Path, store: Store
) -> None:
    first = run_toy(DOMAIN)
    called(call_log)
    assert all(artefact.cached for artefact in run_toy(DOMAIN).artefacts.values())
    edit(module, SOURCE + "\n# other dynamics\n")
    found = {o.step.name: (o.status, o.reason) for o in outlooks(toy_request(DOMAIN), store)}
    assert found["collect"] == ("would run", "source of module own_grid changed")
    assert found["train-vae"] == (
        "would run", "input trials changes; source of module own_grid changed",
    )  # fmt: skip
    second = run_toy(DOMAIN)
    assert len(called(call_log)) == len(first.artefacts)
    keys = [{a.reference for a in run.artefacts.values()} for run in (first, second)]
    assert not keys[0] & keys[1]
    edit(module, SOURCE)
    assert run_toy(DOMAIN).record.artefacts == first.record.artefacts
    assert called(call_log) == []


def test_the_source_is_that_which_was_loaded(module: Path) -> None:
    """A running process keeps to the code that it has, whatever is written meanwhile."""
    before = family_source("own_grid:Mine")
    module.write_text(SOURCE + "# later")
    assert family_source("own_grid:Mine") == before
    edit(module, SOURCE + "# later")
    assert family_source("own_grid:Mine") != before


def test_a_family_that_a_package_passes_on_counts_with_its_own_file(
    module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = module.with_name("passing.py")
    package.write_text("from own_grid import Mine\n")
    monkeypatch.delitem(sys.modules, "passing", raising=False)
    before = family_source("passing:Mine")
    assert before != family_source("own_grid:Mine")
    sys.modules.pop("passing")
    edit(module, SOURCE + "# changed")
    assert family_source("passing:Mine") not in (before, None)
    sys.modules.pop("passing")


def test_our_own_domains_have_no_source(run_toy: RunToy) -> None:
    assert [family_source(name) for name in DOMAINS] == [None] * len(DOMAINS)
    assert {step.source for step in chain(toy_request().loaded.config)} == {None}
    for artefact in run_toy().artefacts.values():
        assert '"source"' not in (artefact.folder / MANIFEST).read_text()
