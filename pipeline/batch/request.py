"""What a batch is: presets times seeds, where its runs go, and the jobs that it falls into."""

from __future__ import annotations

import hashlib
import importlib
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from pipeline.again import run_words, seeds_text
from pipeline.batch.job import Job
from pipeline.config import RuntimeConfig
from pipeline.errors import ConfigError
from pipeline.exits import exit_code, sentence
from pipeline.fit import check_fit
from pipeline.names import checked_name, did_you_mean, printable
from pipeline.presets import LoadedConfig, load_config, located_preset, preset_stem
from pipeline.records import run_name, run_stem
from pipeline.store import Store

Runner = Literal["process", "dask", "ray"]
RUNNERS: tuple[Runner, ...] = get_args(Runner)
GROUPS = ("eleven", "all")
_FACTS = "environments.metaworld.facts"
_MOST_LETTERS = 60


@dataclass(frozen=True)
class Member:
    """One preset of a batch: its configuration, or why its settings cannot be used."""

    preset: str
    label: str  # the preset's name, or its file's without the ending
    loaded: LoadedConfig | None
    problem: str = ""

    def run(self, seed: int) -> str:
        """The name of its run with that seed, the same as `omrl run` gives it."""
        overrides = () if self.loaded is None else self.loaded.overrides
        return run_name(preset_stem(self.preset), overrides, seed)


@dataclass(frozen=True)
class Where:
    """On what the jobs run: processes of this machine, or the workers of a cluster."""

    runner: Runner = "process"
    address: str | None = None  # of a scheduler that is there; None: workers of this machine
    concurrency: int | None = None  # jobs at once; None: as many as there is room for

    def limit(self, threads: int, jobs: int) -> int:
        """Jobs handed out at once; a cluster that is there knows itself how many it can run."""
        if self.concurrency is not None:
            return self.concurrency
        return jobs if self.address else max(1, (os.cpu_count() or 1) // threads)


@dataclass(frozen=True)
class BatchRequest:
    """Presets times seeds under one name, with the command that does it again."""

    name: str
    members: tuple[Member, ...]
    seeds: tuple[int, ...]
    command: str
    where: Where = Where()
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def jobs(self, store: Store, token: str) -> list[Job]:
        """One a run: the first seed of every preset, then the second, so that all get on."""
        pairs = [(m, seed) for seed in self.seeds for m in self.members if m.loaded is not None]
        return [self._job(member, seed, store, token) for member, seed in pairs]

    def _job(self, member: Member, seed: int, store: Store, token: str) -> Job:
        overrides = () if member.loaded is None else member.loaded.overrides
        words = run_words(member.preset, overrides, [seed], None, self.runtime.decisive)[1:]
        words += ["--workers", str(self.runtime.workers)]
        words += ["--no-prefect", "--no-report", *(["--quiet"] if self.runtime.quiet else [])]
        return Job(
            batch=self.name,
            member=member.label,
            seed=seed,
            run=member.run(seed),
            words=tuple(words),
            store=str(store.root),
            token=token,
            folder=str(Path.cwd()),
        )


def batch_request(
    presets: Sequence[str],
    seeds: Sequence[int],
    overrides: Sequence[str] = (),
    name: str | None = None,
    where: Where = Where(),
    runtime: RuntimeConfig | None = None,
) -> BatchRequest:
    """A checked batch. Settings that fit some presets only make the others fail, each for itself.

    Raises:
        ConfigError: there is no such preset or group, one stands twice, the settings fit none of
            them, or the name cannot be used.
    """
    members = tuple(_member(preset, overrides) for preset in expand(presets))
    labels = [member.label for member in members]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ConfigError(f"two presets of the batch are called {printable(twice)}; name it once")
    if all(member.loaded is None for member in members):
        raise ConfigError(members[0].problem)
    known = next(member.loaded for member in members if member.loaded is not None)
    chosen = checked_name(name or _default_name(presets, labels, known.overrides), "batch")
    runtime = runtime or RuntimeConfig()
    words = _batch_words(presets, seeds, known.overrides, name, where, runtime)
    return BatchRequest(chosen, members, tuple(seeds), shlex.join(words), where, runtime)


def expand(presets: Sequence[str]) -> list[str]:
    """The presets with every group replaced by its families: `ml1/eleven` is eleven of them.

    Raises:
        ConfigError: nothing is named, or this clone has no such groups.
    """
    found: list[str] = []
    for preset in presets:
        template, slash, group = preset.rpartition("/")
        if slash and group in GROUPS:
            found += [f"{template}/{family}" for family in _families(preset, group)]
        else:
            found.append(located_preset(preset))
    if not found:
        raise ConfigError("a batch needs a preset at least; `omrl presets` lists them")
    return found


def is_group(preset: str) -> bool:
    """Whether it names several, as `ml1/eleven` does."""
    return preset.rpartition("/")[1] == "/" and preset.rpartition("/")[2] in GROUPS


def _families(preset: str, group: str) -> tuple[str, ...]:
    """Bare names of a group's task families, such as `reach-wall`."""
    try:
        facts = importlib.import_module(_FACTS)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{preset}: there is no list of Meta-World families here") from error
    return tuple(name.rpartition("/")[2] for name in getattr(facts, group.upper()))


def checked_runner(name: str) -> Runner:
    """`name` if it is a runner.

    Raises:
        ConfigError: it is not.
    """
    for runner in RUNNERS:
        if runner == name:
            return runner
    raise ConfigError(f"--runner: unknown runner {printable(name)}; {did_you_mean(name, RUNNERS)}")


def _member(preset: str, overrides: Sequence[str]) -> Member:
    """One preset; that it does not exist or cannot be read is the batch's error, not its own."""
    plain = load_config(preset)
    try:
        loaded = load_config(preset, overrides) if overrides else plain
        check_fit(loaded)
    except Exception as error:
        if exit_code(error) is None:
            raise
        return Member(preset, plain.stem, None, sentence(error))
    return Member(preset, loaded.stem, loaded)


def _default_name(presets: Sequence[str], labels: Sequence[str], overrides: Sequence[str]) -> str:
    """`ml1-eleven`, `gridworld`, `a-b-c`, or `a-and-9-more-<hash>`; behind it, as in a run's name,
    what the settings are that differ.
    """
    joined = "-".join(labels)
    if len(presets) == 1 and presets[0].rpartition("/")[2] in GROUPS:
        joined = presets[0].replace("/", "-")
    elif len(joined) > _MOST_LETTERS:
        digest = hashlib.sha256("\n".join(labels).encode()).hexdigest()[:8]
        joined = f"{labels[0][:_MOST_LETTERS]}-and-{len(labels) - 1}-more-{digest}"
    return run_stem(joined, overrides)


def _batch_words(
    presets: Sequence[str],
    seeds: Sequence[int],
    overrides: Sequence[str],
    name: str | None,
    where: Where,
    runtime: RuntimeConfig,
) -> list[str]:
    """The words of `omrl batch` that do it again; no default is written."""
    words = ["omrl", "batch", *(p if is_group(p) else located_preset(p) for p in presets)]
    for text in overrides:
        words += ["--set", text]
    words += ["--seeds", seeds_text(seeds)]
    options = {"name": name, "address": where.address, "concurrency": where.concurrency}
    options |= {"runner": where.runner if where.runner != "process" else None}
    defaults = RuntimeConfig()
    for option in ("device", "precision", "threads", "workers"):
        value = getattr(runtime, option)
        options[option] = value if value != getattr(defaults, option) else None
    for option, value in options.items():
        if value is not None:
            words += [f"--{option}", str(value)]
    return words
