"""The command line: what it prints, how it ends, and what it does not import."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, called
from fake_stages import fake_stage

import pipeline.run
from pipeline.cli import COMMANDS, build_parser, main
from pipeline.commands.run import parse_seeds
from pipeline.errors import ConfigError
from pipeline.exits import _CODES, exit_code, sentence
from pipeline.records import list_records, write_record
from pipeline.store import Store
from stages.context import StageContext

Capture = pytest.CaptureFixture[str]
PLAIN = ("--no-prefect", "--no-report", "--quiet")


def run_toy_command(*words: str) -> int:
    """`omrl run toy` in plain Python."""
    return main(["run", "toy", *PLAIN, *words])


@pytest.fixture
def toy(store: Store, presets: Path, fake: None, call_log: Path) -> Store:
    """A store in which `omrl run toy` works with fake stages."""
    return store


def outputs_json(capsys: Capture, *words: str) -> Any:
    """What a command prints as JSON."""
    capsys.readouterr()
    assert main(list(words)) in (0, 1)
    return json.loads(capsys.readouterr().out)


def test_a_run_prints_its_steps_and_scores(toy: Store, capsys: Capture) -> None:
    assert run_toy_command() == 0
    printed = capsys.readouterr()
    assert "run toy-seed0 in" in printed.err
    assert [line.split()[0] for line in printed.err.splitlines()[1:]] == [
        "collect", "train-vae", "relabel", "train-offline", "train-blind", "evaluate",
    ]  # fmt: skip
    assert printed.out.splitlines()[0] == "toy-seed0"
    assert printed.out.splitlines()[2].split()[:3] == ["policy", "return", "IQM"]
    assert "seen in training" in printed.out
    assert run_toy_command() == 0
    assert capsys.readouterr().err.count(" cached ") == 6


def test_several_seeds_in_one_table(toy: Store, capsys: Capture) -> None:
    assert run_toy_command("--seeds", "0..2", "--set", "vae.kl_weight=0.1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("toy-")
    assert lines[0].endswith(", all seeds")
    assert " ".join(lines).endswith("3 seeds.")
    assert sorted(record.seed for record in list_records(toy)) == [0, 1, 2]
    assert all(
        record.command.startswith("omrl run toy --set vae.kl_weight=0.1 --seed ")
        for record in list_records(toy)
    )


@pytest.mark.parametrize(
    ("words", "stages"),
    [
        (["--refresh", "relabel"], ["relabel"]),
        (["--refresh", "relabel,evaluate"], ["relabel", "evaluate"]),
        (["--refresh", "relabel, evaluate,"], ["relabel", "evaluate"]),
        (["--refresh", "relabel", "--refresh", "evaluate"], ["relabel", "evaluate"]),
        (["--from", "train-offline"], ["train_offline", "train_offline", "evaluate"]),
        (["--name", "other"], []),
        (["--threads", "1", "--workers", "3"], []),
    ],
)
def test_what_is_made_anew(words: list[str], stages: list[str], toy: Store, call_log: Path) -> None:
    run_toy_command()
    called(call_log)
    assert run_toy_command(*words) == 0
    assert called(call_log) == stages


def test_the_recorded_command_makes_the_run_again(
    toy: Store, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.context.check_device", lambda device: None)
    gpu = ["--device", "cuda", "--precision", "tf32"]
    layers = "vae.reward_decoder.layers=[8, 16]"
    options = ["--set", layers, "--name", "mine", "--threads", "1", *gpu]
    assert run_toy_command(*options, "--workers", "3") == 0
    (before,) = list_records(toy)
    assert before.command == (
        f"omrl run toy --set '{layers}' --seed 0 --name mine --device cuda --precision tf32 "
        "--threads 1"
    )
    assert main([*shlex.split(before.command)[1:], *PLAIN]) == 0
    assert capsys.readouterr().err.count(" cached ") == 6
    (after,) = list_records(toy)
    assert after.command == before.command
    assert after.runtime == {"device": "cuda", "precision": "tf32", "threads": 1}


def test_a_refresh_leaves_the_preset_behind_it_alone(toy: Store, call_log: Path) -> None:
    run_toy_command()
    called(call_log)
    assert main(["run", *PLAIN, "--refresh", "relabel", "toy"]) == 0
    assert called(call_log) == ["relabel"]


def test_a_dry_run_runs_nothing(toy: Store, capsys: Capture, call_log: Path) -> None:
    assert run_toy_command("--dry-run", "--seeds", "0..1") == 0
    printed = capsys.readouterr().out
    assert "run toy-seed0" in printed
    assert "run toy-seed1" in printed
    assert called(call_log) == []
    assert not toy.root.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run toi", "unknown preset 'toi'; did you mean 'toy'?"),
        ("run ../toy", "preset name '../toy' cannot be used"),
        ("run none.yaml", "none.yaml: cannot be read: No such file or directory"),
        ("run toy --set vae.kl_weigth=1", "unknown key 'vae.kl_weigth'; did you mean"),
        ("run toy --set collect.domain=gridwold", "gridworld"),
        (
            "run toy --set collect.policy_replaying=0.5 --set collect.group_size=10",
            "--set collect.group_size=10: collect.group_size 10 leaves one of 21 tasks alone",
        ),
        ("run toy --seed -1", "--seed '-1': must be a whole number from 0 to"),
        ("run toy --seed one", "--seed 'one': must be a whole number"),
        ("run toy --seed 99999999999", "must be a whole number from 0 to 2147483647"),
        ("run toy --seeds 4..0", "--seeds 4..0: the first must not exceed the last"),
        ("run toy --seeds 0..5000", "at most 1000 seeds"),
        ("run toy --seeds 1,1", "--seeds 1,1: a seed stands twice"),
        ("run toy --seeds 0...4", "a range such as 0..4 or a list such as 0,2,5"),
        (
            "run toy --refresh relable",
            "--refresh: unknown stage 'relable'; did you mean 'relabel'?",
        ),
        ("run toy --refresh relabel,evalute", "--refresh: unknown stage 'evalute'; did you mean"),
        ("run toy --refresh ,", "--refresh: name a stage: collect, plan-donors, train-vae"),
        ("run toy --from evalute", "--from: unknown stage 'evalute'; did you mean 'evaluate'?"),
        ("run toy --device mps", "--device mps: must be cpu, cuda or cuda:N"),
        ("run toy --device gpu", "--device gpu: must be cpu, cuda or cuda:N"),
        ("run toy --device cuda:99", "--device cuda:99: this machine has "),
        ("run toy --precision bf16", "--precision bf16: must be float32 or tf32"),
        ("run toy --precision tf32", "--precision tf32: only a GPU rounds so; add `--device cuda`"),
        ("run toy --threads 0", "--threads 0: must be a count of at least 1"),
        ("run toy --workers two", "--workers two: must be a count of at least 1"),
        ("run toy --name ../x", "run name '../x' cannot be used"),
        ("run toy --name a/b", "run name 'a/b' cannot be used"),
        ("show nothing", "no artefact 'nothing'"),
        ("verify nothing", "no artefact 'nothing'"),
        ("gc --forget nothing", "no run 'nothing'"),
        ("report nothing", "no run 'nothing'"),
        ("report ../../x", "run name '../../x' cannot be used"),
        ("scores gridwold", "gridworld"),
        ("check-env gridwold", "gridworld"),
        ("check-env os:path", "os:path"),
        ("check-env gridworld --seed -1", "--seed '-1': must be a whole number"),
        ("presets toi", "unknown preset 'toi'"),
    ],
)
def test_mistakes_end_with_2_and_one_sentence(
    words: str, message: str, toy: Store, capsys: Capture, call_log: Path
) -> None:
    arguments = words.split()
    if arguments[0] == "run":
        arguments += PLAIN
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("omrl: ")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert called(call_log) == []
    assert not toy.root.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run toy --sed 3", "omrl run: unrecognized arguments: --sed 3; did you mean --seed?"),
        ("run toy --refersh=relabel", "did you mean --refresh?"),
        ("run", "omrl run: the following arguments are required: preset"),
        ("run toy --seed 1 --seeds 0..1", "not allowed with argument"),
        ("frobnicate", "invalid choice: 'frobnicate'"),
        ("", "the following arguments are required: COMMAND"),
        ("ls --yaml", "omrl ls: unrecognized arguments: --yaml"),
    ],
)
def test_unknown_options_end_with_2_and_the_nearest(
    words: str, message: str, capsys: Capture
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_seeds() -> None:
    assert parse_seeds(None, None) == [0]
    assert parse_seeds("7", None) == [7]
    assert parse_seeds(None, "0..4") == [0, 1, 2, 3, 4]
    assert parse_seeds(None, "3..3") == [3]
    assert parse_seeds(None, "0,2,5") == [0, 2, 5]
    with pytest.raises(ConfigError):
        parse_seeds("\u0663", None)


Stage = Callable[[Any, int, Mapping[str, Path], Path, StageContext], None]


def patched(
    monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[StageContext], None]
) -> None:
    """Let one fake stage do something first."""

    def load(function: str) -> Stage:
        stage = fake_stage(function)
        if not function.endswith(f":{name}"):
            return stage

        def changed(
            config: Any, seed: int, inputs: Mapping[str, Path], output: Path, context: StageContext
        ) -> None:
            act(context)
            stage(config, seed, inputs, output, context)

        return changed

    monkeypatch.setattr(pipeline.run, "load_stage", load)


def interrupt_once() -> Callable[[StageContext], None]:
    """Sends Ctrl-C to ourselves the first time."""
    left = [signal.SIGINT]

    def act(context: StageContext) -> None:
        if left:
            os.kill(os.getpid(), left.pop())

    return act


def test_ctrl_c_says_how_to_go_on_and_that_works(
    toy: Store, capsys: Capture, call_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_toy_command()
    patched(monkeypatch, "relabel", interrupt_once())
    called(call_log)
    before = signal.getsignal(signal.SIGINT)
    assert run_toy_command("--from", "train-vae", "--threads", "1") == 130
    assert signal.getsignal(signal.SIGINT) is before
    printed = capsys.readouterr().err
    assert "stopping after a checkpoint; once more to stop at once" in printed
    command = printed.splitlines()[-1].partition("Go on with: ")[2]
    assert command == (
        "omrl run toy --seed 0 --threads 1 --refresh relabel,train-offline,evaluate,report "
        "--no-prefect --no-report --quiet"
    )
    called(call_log)
    assert main(shlex.split(command)[1:]) == 0
    assert called(call_log) == ["relabel", "train_offline", "train_offline", "evaluate"]


def test_ctrl_c_in_the_second_of_three_seeds(
    toy: Store, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_toy_command()
    patched(monkeypatch, "collect", interrupt_once())
    assert run_toy_command("--seeds", "0..2", "--name", "x y") == 2
    assert run_toy_command("--seeds", "0..2", "--name", "mine") == 130
    assert "Go on with: omrl run toy --seeds 1..2 --name mine" in capsys.readouterr().err


def test_a_second_ctrl_c_stops_at_once(
    toy: Store, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(context: StageContext) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        pytest.fail("not stopped")

    patched(monkeypatch, "relabel", twice)
    assert run_toy_command() == 130
    assert "Go on with: omrl run toy --seed 0" in capsys.readouterr().err
    assert list((toy.root / ".tmp").iterdir()) == []


def test_a_loss_that_diverges_ends_with_3(
    toy: Store, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from algorithms.errors import DivergenceError

    def diverge(context: StageContext) -> None:
        (context.checkpoints / "good").touch()
        raise DivergenceError("critic loss is NaN at update 12")

    patched(monkeypatch, "train_offline", diverge)
    assert run_toy_command() == 3
    assert capsys.readouterr().err.splitlines()[-1] == "omrl: critic loss is NaN at update 12"
    assert len(list((toy.root / ".checkpoints").rglob("good"))) == 1


def test_a_full_disk_ends_with_1_and_names_the_path(
    toy: Store, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(context: StageContext) -> None:
        raise OSError(28, "No space left on device")

    patched(monkeypatch, "relabel", full)
    assert run_toy_command() == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"omrl: no room to write {toy.root}/.tmp/hyper-states-")
    assert main(["verify"]) == 0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4e14 bytes"
        ),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("Storage size calculation overflowed with sizes=[2147483647, 2147483647]"),
    ],
)
def test_short_memory_ends_with_1_and_names_the_stage(
    error: Exception, toy: Store, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(context: StageContext) -> None:
        raise error

    patched(monkeypatch, "train_offline", allocate)
    assert run_toy_command() == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("omrl: train-offline: its settings need more memory than there is")


def test_a_defect_shows_its_trace(toy: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(context: StageContext) -> None:
        raise ValueError("bug")

    patched(monkeypatch, "relabel", bug)
    with pytest.raises(ValueError, match="bug"):
        run_toy_command()


def test_a_trace_can_be_asked_for(toy: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMRL_TRACEBACK", "1")
    with pytest.raises(ConfigError):
        main(["run", "toi"])


def test_ls_and_show(toy: Store, capsys: Capture) -> None:
    assert main(["ls"]) == 0
    assert "is empty" in capsys.readouterr().out
    run_toy_command()
    listed = outputs_json(capsys, "ls", "--json")
    assert [run["name"] for run in listed["runs"]] == ["toy-seed0"]
    assert len(listed["artefacts"]) == 6
    assert all(artefact["runs"] == ["toy-seed0"] for artefact in listed["artefacts"])
    assert main(["ls"]) == 0
    assert "toy-seed0" in capsys.readouterr().out
    run = outputs_json(capsys, "show", "toy-seed0", "--json")
    assert run["config"]["vae"]["updates"] == 10
    scores = run["artefacts"]["evaluate"]
    shown = outputs_json(capsys, "show", scores[:12], "--json")
    assert f"{shown['kind']}/{shown['fingerprint']}" == scores
    assert len(shown["lineage"]) == 5
    assert main(["show", "toy-seed0"]) == 0
    assert "again   omrl run toy --seed 0" in capsys.readouterr().out
    assert main(["show", scores]) == 0
    text = capsys.readouterr().out
    assert "lineage" in text
    assert "input agent" in text
    assert "blind_share: 0.25" in text
    assert "  episodes: -\n" in text
    assert main(["show", run["artefacts"]["train-vae"]]) == 0
    text = capsys.readouterr().out
    assert "learning_rate_decay: false" in text
    assert "model.reward_decoder.inputs: [next_observation]" in text
    assert "model.reward_decoder.layers: [32, 32]" in text
    assert not re.search(r"\b(None|True|False)\b", text)


def test_a_report_counts_a_run_once(toy: Store, capsys: Capture) -> None:
    run_toy_command()
    assert main(["report", "toy-seed0", "toy-seed0"]) == 2
    assert "a run stands twice" in capsys.readouterr().err


def test_show_finds_the_page_of_several_seeds(toy: Store, capsys: Capture) -> None:
    run_toy_command("--seeds", "0..1")
    assert main(["show", "toy-seed0"]) == 0
    assert "report  none; `omrl report toy-seed0` writes it" in capsys.readouterr().out
    for name, runs in (("toy", ["toy-seed0", "toy-seed1"]), ("toy-seed1", ["toy-seed1"])):
        folder = toy.folder("reports") / name
        folder.mkdir()
        (folder / "index.html").touch()
        (folder / "stamp.json").write_text(json.dumps({"runs": runs}))
    for run, page in (("toy-seed0", "toy"), ("toy-seed1", "toy-seed1")):
        assert main(["show", run]) == 0
        assert f"report  {toy.root}/reports/{page}/index.html" in capsys.readouterr().out


def test_verify_finds_damage(toy: Store, capsys: Capture) -> None:
    run_toy_command()
    assert main(["verify"]) == 0
    assert "6 artefacts, 0 damaged" in capsys.readouterr().out
    kind, name = next(iter(toy.all_keys(("vae",))))
    (toy.artefact_folder(kind, name) / "parts" / "0.txt").unlink()
    found = outputs_json(capsys, "verify", "--json")
    assert [entry["id"] for entry in found if not entry["ok"]] == [f"vae/{name}"]
    assert main(["verify", name[:8]]) == 1
    assert "file parts/0.txt is missing" in capsys.readouterr().out
    assert main(["show", "toy-seed0"]) == 0
    (toy.artefact_folder(kind, name) / "manifest.json").unlink()
    assert main(["show", name]) == 2
    assert main(["show", "toy-seed0"]) == 0
    assert "gone or damaged" in capsys.readouterr().out


def test_gc(toy: Store, capsys: Capture) -> None:
    run_toy_command()
    run_toy_command("--seed", "1")
    assert main(["gc"]) == 0
    assert "0 B were freed" in capsys.readouterr().out
    assert main(["gc", "--dry-run", "--forget", "toy-seed1"]) == 0
    assert "would be freed" in capsys.readouterr().out
    assert len(list(toy.all_keys())) == 12
    assert main(["gc", "--forget", "toy-seed1"]) == 0
    assert "no run uses it" in capsys.readouterr().out
    assert len(list(toy.all_keys())) == 6


def test_scores(toy: Store, capsys: Capture) -> None:
    assert main(["scores"]) == 0
    assert "no complete run yet" in capsys.readouterr().out
    assert outputs_json(capsys, "scores", "gridworld", "--json") == []
    run_toy_command()
    rows = outputs_json(capsys, "scores", "gridworld", "--json")
    assert [row["preset"] for row in rows] == ["toy"]
    assert {
        "domain", "preset", "headline", "seeds", "protocol", "return_sum", "return_per_episode",
        "success", "oracle", "command",
    } <= set(rows[0])  # fmt: skip
    assert set(rows[0]["return_sum"]) == {"mean", "iqm", "ci95"}
    assert main(["scores", "gridworld"]) == 0
    assert "toy" in capsys.readouterr().out


def test_scores_of_a_family_that_is_not_here(toy: Store, capsys: Capture) -> None:
    run_toy_command()
    (record,) = list_records(toy)
    write_record(toy, replace(record, domain="line:Line"))
    rows = outputs_json(capsys, "scores", "line:Line", "--json")
    assert [row["domain"] for row in rows] == ["line:Line"]
    assert main(["scores", "lane:Line"]) == 2


def test_presets_and_schema(toy: Store, capsys: Capture) -> None:
    assert main(["presets"]) == 0
    assert "toy     gridworld  a toy" in capsys.readouterr().out
    assert outputs_json(capsys, "presets", "--json")[0]["preset"] == "toy"
    assert outputs_json(capsys, "presets", "toy", "--json")["vae"]["updates"] == 10
    assert main(["presets", "toy"]) == 0
    assert "rule: dqn" in capsys.readouterr().out
    schema = outputs_json(capsys, "schema")
    assert "extends" in schema["properties"]
    assert "required" not in schema
    assert schema["additionalProperties"] is False
    unsaid = [
        f"{model}.{name}"
        for model, entry in schema["$defs"].items()
        for name, field in entry["properties"].items()
        if not field.get("description") and "$ref" not in field
    ]
    assert unsaid == []


def test_check_env(toy: Store, capsys: Capture) -> None:
    assert main(["check-env", "gridworld"]) == 0
    printed = capsys.readouterr().out
    assert "pass  spec is sane" in printed
    assert "FAIL" not in printed


def test_help_of_every_command(capsys: Capture) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit) as caught:
            main([command, "--help"])
        assert caught.value.code == 0
        assert f"usage: omrl {command}" in capsys.readouterr().out
    assert build_parser().prog == "omrl"


HEAVY = ["torch", "prefect", "matplotlib", "zarr", "h5py", "tensorboard", "gymnasium"]


def imported_by(words: str, home: Path) -> set[str]:
    """The modules that a command has imported when it ends."""
    program = (
        "import sys\nfrom pipeline.cli import main\n"
        f"try:\n    main({words.split()!r})\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write(' '.join(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={**os.environ, "OMRL_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


def test_help_imports_next_to_nothing(tmp_path: Path) -> None:
    assert not imported_by("--help", tmp_path) & {*HEAVY, "numpy", "pydantic", "yaml"}


@pytest.mark.parametrize("words", ["run gridworld --dry-run", "ls", "presets", "schema"])
def test_light_commands_import_nothing_heavy(words: str, tmp_path: Path) -> None:
    assert not imported_by(words, tmp_path) & set(HEAVY)


def test_help_is_quick(tmp_path: Path) -> None:
    times = []
    for _ in range(3):
        begun = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "--help"],
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        times.append(time.monotonic() - begun)
    assert min(times) < 0.5


def test_every_error_that_has_a_code_exists() -> None:
    for name in _CODES:
        module, _, kind = name.rpartition(".")
        found = getattr(__import__(module, fromlist=[kind]), kind)
        assert issubclass(found, BaseException)
        code = exit_code(found.__new__(found))
        assert code == _CODES[name]
    assert exit_code(ValueError()) is None


def test_sentences() -> None:
    assert sentence(ConfigError("a\n  b")) == "a b"
    assert sentence(OSError(13, "Permission denied", "/x")) == "/x: Permission denied"
    assert sentence(OSError("odd")) == "odd"
    assert sentence(ConfigError()) == "ConfigError"


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m pipeline.cli schema | head -c 1"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "{"
    assert "Traceback" not in done.stderr
