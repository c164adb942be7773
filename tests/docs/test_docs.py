"""The pages are true: Python runs, YAML loads, commands parse, links lead on.

`title="NAME"` behind a fenced block's language makes it a file of that name in the page's own
working folder. Python blocks of a page run one after the other in one namespace, over a small
store in `runs/`. Commands are parsed, not carried out, but for those whose answer in the page is a
refusal: these must be refused in these very words.
"""

from __future__ import annotations

import argparse
import importlib
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import docs_tables
import pytest
import torch

from environments.contract import CHECKS
from pipeline import cli
from pipeline.commands.run import parse_seeds
from pipeline.config import SECTIONS
from pipeline.errors import ConfigError
from pipeline.keys import complete
from pipeline.plan import stages_to_refresh
from pipeline.presets import FOLDERS, config_root, is_file, load_config, runnable_names

ROOT = docs_tables.ROOT
PAGES = docs_tables.pages()
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}


_FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_SETTING = re.compile(rf"({'|'.join(SECTIONS)})(\.(?!json|safetensors)[a-z_]+)+")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    title: str
    text: str


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page in these languages, all if none is named."""
    found = [Block(*match.groups(default="")) for match in _FENCE.finditer(TEXTS[page])]
    return [block for block in found if not languages or block.language in languages]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", TEXTS[page])


def with_blocks(*languages: str) -> list[Path]:
    """The pages that have such blocks."""
    return [page for page in PAGES if blocks(page, *languages)]


def name(page: Path) -> str:
    """A page's path in the clone, for test ids."""
    return page.relative_to(ROOT).as_posix()


def write_files(page: Path, folder: Path) -> None:
    """The page's titled blocks as files."""
    for block in blocks(page):
        if block.title:
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.title).write_text(block.text, encoding="utf-8")


# ---------------------------------------------------------------------- tables and links


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_tables_are_those_of_the_code(page: Path) -> None:
    """Else: python tests/docs/docs_tables.py"""
    assert docs_tables.page_with_tables(TEXTS[page]) == TEXTS[page], "run tests/docs/docs_tables.py"


def test_every_setting_stands_in_a_table() -> None:
    marks = set(re.findall(r"<!-- table: ([a-z-]+) -->", TEXTS[ROOT / "docs/configuration.md"]))
    assert set(docs_tables.MODELS) <= marks


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{name(page)}: {link}"
        if anchor:
            assert anchor in anchors(path), f"{name(page)}: {link}"


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    titles = re.findall(
        r"^#+ (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE
    )
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_and_files_in_the_text_exist(page: Path) -> None:
    for code in _CODE.findall(prose(page)):
        key = code.partition("=")[0].partition(":")[0]
        if _SETTING.fullmatch(key):
            complete(key)
        if re.fullmatch(
            r"(tests|pipeline|stages|algorithms|models|environments|datasets)/\S*", code
        ):
            assert (ROOT / code).exists(), f"{name(page)}: {code}"


def test_every_page_is_in_the_index() -> None:
    listed = set(_LINK.findall(TEXTS[ROOT / "docs/README.md"]))
    here = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert here <= listed


# ---------------------------------------------------------------------- YAML


@pytest.mark.parametrize("page", with_blocks("yaml"), ids=name)
def test_yaml_loads(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in FOLDERS:
        shutil.copytree(config_root() / folder, tmp_path / folder)
    write_files(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    for number, block in enumerate(blocks(page, "yaml")):
        title = block.title or f"block-{number}.yaml"
        if Path(title).parent.name in FOLDERS:
            load_config(Path(title).stem, root=tmp_path)
        else:
            Path(title).write_text(block.text, encoding="utf-8")
            load_config(title)


# ---------------------------------------------------------------------- commands


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Every `omrl` command of a page, with the lines that the page shows as its answer.

    In a block with prompts the lines behind them are commands, in one without any line may be.
    """
    for code in _CODE.findall(prose(page)):
        if code.startswith("omrl ") and code.split()[1] in cli.COMMANDS and len(code.split()) > 2:
            yield code, []
    for block in blocks(page, "sh", "console", ""):
        lines = block.text.replace("\\\n", " ").splitlines()
        prompt = r"\$ " if any(line.startswith("$ ") for line in lines) else ""
        starts = [i for i, line in enumerate(lines) if re.match(rf"{prompt}(\w+=\S+ )*omrl ", line)]
        for start, end in pairwise([*starts, len(lines)]):
            yield lines[start].removeprefix("$ "), lines[start + 1 : end]


def words_of(command: str) -> list[str]:
    """What follows `omrl` on the command line."""
    words = shlex.split(command, comments=True)
    return words[words.index("omrl") + 1 :]


@pytest.mark.parametrize("page", [p for p in PAGES if list(commands(p))], ids=name)
def test_commands_parse(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMRL_HOME", str(tmp_path / "runs"))
    write_files(page, tmp_path)
    for command, answer in commands(page):
        words = words_of(command)
        if answer and re.match(r"omrl( run)?: (?!.*NaN)", answer[0]):
            capsys.readouterr()
            with suppress(SystemExit):
                assert cli.main(words) == 2, command
            assert capsys.readouterr().err.splitlines() == answer[:1], command
        else:
            check_command(words, tmp_path)


def check_command(words: list[str], folder: Path) -> None:
    """Parse, and check what the parser leaves to the command: preset, settings, seeds, stages."""
    if words[0] in ("--help", "COMMAND"):
        return
    options, rest = cli.build_parser(words[0]).parse_known_args(words)
    assert not rest, words
    if words[0] != "run":
        return
    parse_seeds(options.seed, options.seeds)
    stages_to_refresh(options.refresh, options.since)
    assert options.preset in runnable_names() or (folder / options.preset).is_file(), words
    load_config(options.preset, options.overrides)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_option_is_in_the_page_on_running(command: str) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(f"pipeline.commands.{command.replace('-', '_')}").add_arguments(parser)
    text = TEXTS[ROOT / "docs/running.md"]
    assert f"## omrl {command}" in text
    options = [o for action in parser._actions for o in action.option_strings]
    assert [option for option in options if f"`{option}" not in text] == []


def test_the_checks_of_a_family_are_those_shown() -> None:
    page = ROOT / "docs/domains.md"
    shown = next(answer for command, answer in commands(page) if "check-env" in command and answer)
    assert shown[:-1] == [f"pass  {promise}" for promise in CHECKS]
    assert shown[-1] == f"line:Line: {len(CHECKS)} of {len(CHECKS)} checks passed"


# ---------------------------------------------------------------------- Python

TINY = (
    "collect.behaviour=random",
    "collect.tasks.train=2",
    "collect.tasks.test=2",
    "collect.random_trials=3",
    "collect.iterations=0",
    "vae.updates=2",
    "vae.model.encoder.latent_dim=2",
    "offline.updates=2",
    "offline.evaluate_every=2",
    "offline.log_every=2",
    "offline.batch_size=8",
)


@pytest.fixture(scope="module")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a run called gridworld-seed0, of the real stages on next to nothing."""
    from pipeline.config import RuntimeConfig
    from pipeline.run import RunRequest, execute
    from pipeline.store import Store

    root = tmp_path_factory.mktemp("tiny") / "runs"
    runtime = RuntimeConfig(threads=1, workers=1, quiet=True, tensorboard=False)
    request = RunRequest(load_config("gridworld", TINY), 0, "gridworld-seed0", runtime=runtime)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)  # no test here cuts the power
        execute(request, Store(root))
    return root


@pytest.mark.parametrize("page", with_blocks("python"), ids=name)
def test_python_runs(
    page: Path, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(page, tmp_path)
    shutil.copytree(tiny_store, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    threads = torch.get_num_threads()
    namespace: dict[str, object] = {}
    for number, block in enumerate(blocks(page, "python")):
        path = tmp_path / (block.title or f"block-{number}.py")
        path.write_text(block.text, encoding="utf-8")
        namespace = runpy.run_path(str(path), init_globals=namespace)
    torch.set_num_threads(threads)
    for block in blocks(page, "python"):
        sys.modules.pop(Path(block.title).stem, None)


# ---------------------------------------------------------------------- of the tests themselves


def test_an_unknown_setting_is_noticed() -> None:
    with pytest.raises(ConfigError, match="kl_wieght"):
        complete("vae.kl_wieght")
    assert not is_file("gridworld")
