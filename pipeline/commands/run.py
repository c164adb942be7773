"""`omrl run`: the whole pipeline for a preset, one seed or several."""

from __future__ import annotations

import argparse
import re
import shlex
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.console import human_seconds, human_size, say, tell
from pipeline.errors import ConfigError
from pipeline.exits import INTERRUPTED, OK, exit_code
from pipeline.names import printable

if TYPE_CHECKING:
    from pipeline.config import RuntimeConfig
    from pipeline.plan import Step
    from pipeline.presets import LoadedConfig
    from pipeline.run import RunRequest, RunResult
    from pipeline.store import Artefact, Store

_MAX_SEEDS = 1000
_MAX_SEED = 2**31 - 1
_WANTED = {"device": "cpu, cuda or cuda:N", "precision": "float32 or tf32"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `omrl run`."""
    parser.add_argument("preset", help="a preset's name (see `omrl presets`) or a YAML file")
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change one setting, such as vae.kl_weight=0.1; may be repeated",
    )
    parser.add_argument(
        "--trials",
        metavar="NAME",
        help="begin with these imported trials (`omrl import`) instead of collecting",
    )
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", default=None, metavar="N", help="the run's seed (default 0)")
    seeds.add_argument("--seeds", default=None, metavar="A..B", help="several: 0..4 or 0,2,5")
    parser.add_argument(
        "--refresh",
        metavar="STAGE",
        action="append",
        default=[],
        help="make this stage's artefact anew; several as A,B; may be repeated",
    )
    parser.add_argument(
        "--from", dest="since", metavar="STAGE", help="make this stage and all after it anew"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would run and why")
    parser.add_argument("--no-prefect", action="store_true", help="plain Python, no Prefect")
    parser.add_argument("--no-report", action="store_true", help="no HTML page at the end")
    parser.add_argument("--name", metavar="RUN", help="the run's name, instead of the preset's")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument(
        "--precision", default="float32", help="float32, or tf32: faster training on a GPU"
    )
    parser.add_argument("--threads", default="2", metavar="N", help="CPU threads a stage (2)")
    parser.add_argument("--workers", default="2", metavar="N", help="collecting processes (2)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def main(options: argparse.Namespace) -> int:
    """Run each seed in turn; say how to go on if stopped."""
    from pipeline.fit import check_fit
    from pipeline.fit_imported import check_imported, imported_setting
    from pipeline.plan import stages_to_refresh
    from pipeline.presets import load_config
    from pipeline.store import Store, default_root
    from stages.context import check_device, check_precision

    seeds = parse_seeds(options.seed, options.seeds)
    if options.trials is not None:
        options.overrides = [*options.overrides, imported_setting(options.trials)]
    loaded = load_config(options.preset, options.overrides)
    check_fit(loaded)
    refresh = stages_to_refresh(options.refresh, options.since)
    store = Store(default_root())
    check_imported(loaded, store, refresh)
    requests = [_request(options, loaded, seed, refresh) for seed in seeds]
    if options.dry_run:
        from pipeline.explain import explain

        for request in requests:
            say(explain(request, store))
        return OK
    check_device(options.device)
    check_precision(options.precision, options.device)
    return _run_all(options, requests, store)


def _run_all(options: argparse.Namespace, requests: Sequence[RunRequest], store: Store) -> int:
    from pipeline.signals import stopping_on_signals

    stop = threading.Event()
    results: list[RunResult] = []
    done: set[str] = set()
    with stopping_on_signals(stop):
        for request in requests:
            try:
                done.clear()
                results.append(_run_one(options, request, store, stop, done.add))
            except BaseException as error:
                code = exit_code(error)
                if code == INTERRUPTED:
                    left = requests[len(results) :]
                    tell(f"stopped. Go on with: {_command_to_go_on(options, left, done)}")
                    return INTERRUPTED
                raise
    return _finish(options, requests, results, store)


def _run_one(
    options: argparse.Namespace,
    request: RunRequest,
    store: Store,
    stop: threading.Event,
    done: Callable[[str], None],
) -> RunResult:
    tell(f"run {request.name} in {store.root}")

    def on_step(step: Step, artefact: Artefact) -> None:
        done(step.name)
        tell(_step_line(step, artefact))

    if options.no_prefect:
        from pipeline.run import execute

        return execute(request, store, stop=stop, on_step=on_step)
    from pipeline.embedded import execute_with_prefect

    return execute_with_prefect(request, store, stop, on_step, report=not options.no_report)


def _step_line(step: Step, artefact: Artefact) -> str:
    manifest = artefact.manifest
    how = human_seconds(manifest.seconds)
    if artefact.cached:
        how = "imported" if manifest.stage == "import" else "cached"
    short = f"{manifest.kind}/{manifest.fingerprint[:8]}"
    return f"  {step.name:<20} {how:>12}  {short:<22} {human_size(manifest.size):>10}"


def _finish(
    options: argparse.Namespace,
    requests: Sequence[RunRequest],
    results: Sequence[RunResult],
    store: Store,
) -> int:
    """The table of scores, and the path of the page (Prefect's flow has drawn it for one seed)."""
    from pipeline.plan import REPORT
    from pipeline.report.policies import run_table

    records = [result.record for result in results]
    one = len(records) == 1
    title = records[0].name if one else f"{records[0].name.rpartition('-')[0]}, all seeds"
    say(run_table(title, [result.artefacts["evaluate"].folder for result in results]))
    if not options.no_report:
        from pipeline.commands.report import write

        anew = REPORT in requests[0].refresh and (options.no_prefect or len(results) > 1)
        say(f"report: {write(store, [result.record.name for result in results], refresh=anew)}")
    return OK


def _request(
    options: argparse.Namespace, loaded: LoadedConfig, seed: int, refresh: frozenset[str]
) -> RunRequest:
    from pipeline.records import run_name
    from pipeline.run import RunRequest

    runtime = runtime_of(options, options.quiet)
    return RunRequest(
        loaded=loaded,
        seed=seed,
        name=run_name(loaded.stem, loaded.overrides, seed, options.name),
        refresh=refresh,
        runtime=runtime,
        command=shlex.join(_words(options, [seed], runtime)),
    )


def runtime_of(options: argparse.Namespace, quiet: bool) -> RuntimeConfig:
    """How runs are carried out, as the options say.

    Raises:
        ConfigError: a value is not one; names the option.
    """
    from pydantic import ValidationError

    from pipeline.config import RuntimeConfig

    try:
        return RuntimeConfig(
            device=options.device,
            precision=options.precision,
            threads=options.threads,
            workers=options.workers,
            quiet=quiet,
        )
    except ValidationError as error:
        first = error.errors()[0]
        shown = first["input"]
        option = str(first["loc"][0])
        wanted = _WANTED.get(option, "a count of at least 1")
        raise ConfigError(f"--{option} {shown}: must be {wanted}") from error


def parse_seeds(seed: str | None, seeds: str | None) -> list[int]:
    """The seeds of `--seed N`, `--seeds 0..4` (both ends) or `--seeds 0,2,5`; [0] by default.

    Raises:
        ConfigError: not of these forms, or out of range.
    """
    if seeds is None:
        return [_seed(seed, "--seed")] if seed is not None else [0]
    option = f"--seeds {seeds}"
    if match := re.fullmatch(r"([0-9]{1,10})\.\.([0-9]{1,10})", seeds, re.ASCII):
        first, last = int(match[1]), int(match[2])
        if first > last or last > _MAX_SEED or last - first >= _MAX_SEEDS:
            raise ConfigError(f"{option}: the first must not exceed the last, at most 1000 seeds")
        return list(range(first, last + 1))
    found = [_seed(part, "--seeds") for part in seeds.split(",")]
    if len(set(found)) < len(found):
        raise ConfigError(f"{option}: a seed stands twice")
    return found


def _seed(text: str, option: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) or int(text) > _MAX_SEED:
        form = "" if option == "--seed" else ", a range such as 0..4 or a list such as 0,2,5"
        wanted = f"a whole number from 0 to {_MAX_SEED}{form}"
        raise ConfigError(f"{option} {printable(text)}: must be {wanted}")
    return int(text)


def _words(options: argparse.Namespace, seeds: Sequence[int], runtime: RuntimeConfig) -> list[str]:
    """The command that does this again for these seeds, without what asks for making anew."""
    from pipeline.again import run_words

    return run_words(options.preset, options.overrides, seeds, options.name, runtime.decisive)


def _command_to_go_on(
    options: argparse.Namespace, requests: Sequence[RunRequest], done: set[str]
) -> str:
    """The command that continues; what the only run left has made anew is not made once more."""
    from pipeline.plan import REPORT, STAGES, chain

    words = _words(options, [request.seed for request in requests], requests[0].runtime)
    steps = chain(requests[0].loaded.config)
    open_stages = {REPORT, *(step.stage for step in steps if step.name not in done)}
    if len(requests) > 1:
        open_stages = set(STAGES)
    left = [stage for stage in STAGES if stage in requests[0].refresh & open_stages]
    if left:
        words += ["--refresh", ",".join(left)]
    if options.workers != "2":
        words += ["--workers", options.workers]
    words += [
        f"--{name}"
        for name in ("no-prefect", "no-report", "quiet")
        if getattr(options, name.replace("-", "_"))
    ]
    return shlex.join(words)
