"""`omrl import`: D4RL, Minari, BOReL's and IDAQ's logs become trials that a run begins with."""

# ruff: noqa: N999 - called as its command is, and imported by name only

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.console import say, table, tell
from pipeline.errors import ConfigError
from pipeline.exits import OK
from pipeline.names import printable

if TYPE_CHECKING:
    from environments.base import Spec
    from pipeline.importing import ImportRequest, Preparation
    from pipeline.store import Artefact

_SHOWN = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `omrl import`."""
    parser.add_argument("paths", metavar="PATH", nargs="+", help="files, folders, or Minari ids")
    parser.add_argument("--domain", required=True, help="a task family's name, or module:Class")
    parser.add_argument(
        "--format",
        default="auto",
        choices=("auto", "d4rl", "minari", "borel", "idaq"),
        help="told from the files if left out",
    )
    parser.add_argument("--name", help="what runs call the trials; the first path's if left out")
    parser.add_argument("--episodes", metavar="K", help="of a trial; the domain's own by default")
    parser.add_argument("--tasks", metavar="CSV", help="which log is of which task (docs/data.md)")
    parser.add_argument(
        "--test-tasks", default="20", metavar="N", help="drawn where no table names any (20)"
    )
    parser.add_argument(
        "--test-tasks-seen", action="store_true", help="evaluate on the tasks trained on"
    )
    parser.add_argument("--behaviour", default="imported", help="whose logs these are, in a word")
    parser.add_argument(
        "--allow-other-rewards",
        action="store_true",
        help="take rewards that the domain does not reproduce",
    )
    parser.add_argument(
        "--without-states",
        action="store_true",
        help="take logs without the simulator states that recompute rewards; relabel none then",
    )
    parser.add_argument(
        "--d4rl-name", metavar="NAME", help="D4RL's data set whose scale normalises the return"
    )
    parser.add_argument("--dry-run", action="store_true", help="check all and write nothing")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def main(options: argparse.Namespace) -> int:
    """Recognise, check, import, and say what to run next."""
    from pipeline.importing import carry_out, prepare, recipe_of, try_out
    from pipeline.imports import ImportRecord, check_free, import_name, write_import
    from pipeline.store import Store, default_root
    from stages.context import Bar

    request = _request(options)
    name = import_name(options.name or _stem(options.paths[0]))
    _check_scale(options.d4rl_name)
    store = Store(default_root())
    preparation = prepare(request)
    scale = _scale(options, preparation.family.spec)
    tell(preparation.recognised)
    for note in preparation.notes:
        tell(note)
    count = len(preparation.plan.tasks)
    bar = Bar(2 * count - count * options.dry_run, "import", "task", options.quiet)
    try:
        if options.dry_run:
            found = try_out(preparation, bar.advance)
            bar.close()
            _say_facts(found, scale, preparation.plan.rounded)
            say(f"{name}: nothing was written (--dry-run)")
            return OK
        recipe = recipe_of(preparation.plan, bar.advance)
        check_free(store, name, recipe.reference)
        lease = carry_out(store, preparation, recipe, bar.advance)
    finally:
        bar.close()
    try:
        found = _found(lease.artefact)
        record = ImportRecord(
            name=name,
            domain=preparation.plan.domain,
            artefact=recipe.reference,
            config=recipe.config,
            source=recipe.source,
            created=datetime.now(UTC).isoformat(timespec="microseconds"),
            command=_command(options, name),
            summary=_totals(found),
        )
        write_import(store, record)
    finally:
        lease.close()
    _say_facts(found, scale, preparation.plan.rounded)
    how = "was in the store already" if lease.artefact.cached else "made"
    say(f"{name}: {recipe.reference}, {how}")
    say(f"next: {_next(preparation, name, 'without_states' in record.summary)}")
    return OK


def _request(options: argparse.Namespace) -> ImportRequest:
    from pipeline.importing import ImportRequest

    return ImportRequest(
        paths=tuple(options.paths),
        domain=options.domain,
        format=options.format,
        episodes=None if options.episodes is None else _count(options.episodes, "--episodes"),
        table=None if options.tasks is None else Path(options.tasks),
        behaviour=options.behaviour,
        test_tasks=_count(options.test_tasks, "--test-tasks"),
        test_tasks_seen=options.test_tasks_seen,
        allow_other_rewards=options.allow_other_rewards,
        without_states=options.without_states,
    )


def _count(text: str, option: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 10**6):
        raise ConfigError(f"{option} {printable(text)}: must be a whole number of at least 1")
    return int(text)


def _stem(path: str) -> str:
    """A name for trials of which nobody said what they are called."""
    return Path(path).resolve().stem


def _check_scale(name: str | None) -> None:
    """Refuse a name that D4RL has no reference returns for.

    Raises:
        ConfigError: it is one.
    """
    from datasets.d4rl_scores import reference

    if name is not None and reference(name) is None:
        raise ConfigError(
            f"--d4rl-name {printable(name)}: no data set of D4RL that has reference "
            "returns, such as halfcheetah-medium-v2"
        )


def _scale(options: argparse.Namespace, spec: Spec) -> str | None:
    """D4RL's name of the data set: as given, or the file's where the logs can be that data set."""
    from datasets.d4rl_scores import has_widths, reference

    if options.d4rl_name is not None:
        given: str = options.d4rl_name
        return given
    guess = Path(options.paths[0]).stem
    fits = has_widths(guess, spec.observation_dim, spec.action_dim)
    return guess if fits and reference(guess) is not None else None


def _found(artefact: Artefact) -> list[dict[str, Any]]:
    """The facts of each log, as the trials' `tasks.json` keeps them."""
    from datasets.trial_store import read_meta

    logs: list[dict[str, Any]] = read_meta(artefact.folder).details["import"]["logs"]
    return logs


def _totals(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    trials = [each["trials"] for each in found]
    bare = sum(each["differing"] is None for each in found)
    return {
        "tasks": len(found),
        "trials": sum(trials),
        "fewest_trials": min(trials),
        "transitions": sum(each["transitions"] for each in found),
        "episode_return": sum(each["episode_return"] * each["trials"] for each in found)
        / sum(trials),
        **({"without_states": bare} if bare else {}),
    }


def _say_facts(found: Sequence[Mapping[str, Any]], scale: str | None, rounded: bool) -> None:
    from datasets.d4rl_scores import normalised

    rows = [_row(each["name"], each) for each in found[:_SHOWN]]
    if len(found) > _SHOWN:
        rows.append((f"... and {len(found) - _SHOWN} more", "", "", ""))
    totals = _totals(found)
    rows.append(_row(f"all {totals['tasks']}", totals))
    say(table(("task", "trials", "transitions", "episode return"), rows, right=(1, 2, 3)))
    if scale is not None:
        share = normalised(scale, totals["episode_return"])
        say(f"normalised return: {share:.3f} (0 random, 1 expert, on the scale of D4RL's {scale})")
    odd = [each for each in found if each["differing"]]
    if odd:
        worst = max(odd, key=lambda each: float(each["differing"]))
        why = "; tasks are rounded" if rounded else ""
        tell(
            f"rewards of {len(odd)} logs are not quite those of the domain: in "
            f"{worst['differing']:.2%} of the steps of {worst['name']}{why}"
        )
    if bare := totals.get("without_states"):
        tell(
            f"logs without simulator states: {bare} of {len(found)}; their rewards are not "
            "checked and cannot be recomputed, so a run of these trials must relabel none"
        )
    if any(each["carried_starts"] for each in found):
        tell(
            "later episodes of a trial begin with the last observation of the one before, "
            "as BOReL writes them; where they really began is not known"
        )


def _row(name: str, facts: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return (
        name,
        str(facts["trials"]),
        str(facts["transitions"]),
        f"{facts['episode_return']:.2f}",
    )


def _command(options: argparse.Namespace, name: str) -> str:
    """The command that imports these logs again, from any folder."""
    words = ["omrl", "import"]
    words += [str(Path(p).resolve()) if Path(p).exists() else p for p in options.paths]
    words += ["--domain", options.domain, "--name", name]
    if options.tasks is not None:
        words += ["--tasks", str(Path(options.tasks).resolve())]
    defaults = {"format": "auto", "episodes": None, "test_tasks": "20", "behaviour": "imported"}
    for option, default in defaults.items():
        value = getattr(options, option)
        if value != default:
            words += [f"--{option.replace('_', '-')}", value]
    for option in ("test_tasks_seen", "allow_other_rewards", "without_states"):
        words += [f"--{option.replace('_', '-')}"] if getattr(options, option) else []
    return shlex.join(words)


def _next(preparation: Preparation, name: str, without_states: bool) -> str:
    from pipeline.fit_imported import NO_RELABELLING
    from pipeline.presets import runnable_names

    domain = preparation.plan.domain
    words = ["omrl", "run", domain if domain in runnable_names() else "PRESET", "--trials", name]
    if without_states and preparation.family.spec.goal == "hidden":  # else nothing is relabelled
        words += [word for setting in NO_RELABELLING for word in ("--set", setting)]
    return " ".join(words)
