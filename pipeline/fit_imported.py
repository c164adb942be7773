"""Refuses, before anything runs, imported trials that do not fit the configuration."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from environments.registry import canonical_domain
from pipeline.config import RunConfig
from pipeline.documents import value_text
from pipeline.errors import ConfigError
from pipeline.imports import ImportRecord, read_import
from pipeline.presets import LoadedConfig
from pipeline.problems import located
from pipeline.store import Store

NO_RELABELLING = ("vae.relabelling.enabled=false", "relabel.relabelled_copies=0")
"""What a run of trials without simulator states needs, as `--set` takes it."""

_SETTING = ("collect", "imported")
_COLLECT = "collect"


def imported_setting(name: str) -> str:
    """What `--trials NAME` stands for, as `--set` takes it."""
    return f"{'.'.join(_SETTING)}={value_text(name)}"


def check_imported(loaded: LoadedConfig, store: Store, refresh: Collection[str]) -> None:
    """Compare the trials that a run begins with, where these are imported, with its settings.

    Raises:
        ConfigError: they do not fit; names the setting and where it was written.
        StoreError: there are none of that name.
    """
    name = loaded.config.collect.imported
    if name is None:
        return
    record = read_import(store, name)
    for setting, text in _problems(loaded.config, record, refresh):
        raise ConfigError(located(text, tuple(setting.split(".")), loaded.origins, loaded.preset))


def _problems(
    config: RunConfig, record: ImportRecord, refresh: Collection[str]
) -> Iterator[tuple[str, str]]:
    collect, relabel, setting = config.collect, config.relabel, ".".join(_SETTING)
    if canonical_domain(record.domain) != collect.domain:
        yield setting, f"trials {record.name} are of {record.domain}, not of {collect.domain}"
    if _COLLECT in refresh:
        yield (
            setting,
            f"trials {record.name} are imported and cannot be made anew here; import them again, "
            "or name a later stage",
        )
    episodes = record.config.get("episodes")
    if collect.episodes is not None and collect.episodes != episodes:
        yield (
            "collect.episodes",
            f"collect.episodes is {collect.episodes}, but trials {record.name} have {episodes}: "
            "import them with other --episodes, or set it to null",
        )
    relabelling = config.vae.relabelling
    relabels = relabelling.enabled or relabel.relabelled_copies
    if relabels and record.summary.get("without_states"):
        yield (
            "vae.relabelling.enabled" if relabelling.enabled else "relabel.relabelled_copies",
            f"trials {record.name} are without simulator states, so their rewards cannot be "
            f"relabelled: set {' and '.join(NO_RELABELLING)}",
        )
    if (
        relabelling.enabled
        and relabelling.donors == "other-tasks"
        and record.summary.get("tasks", 2) < 2
    ):
        yield (
            setting,
            f"trials {record.name} are of one task, but reward relabelling takes donors from "
            "other tasks (or set vae.relabelling.enabled: false)",
        )
    kept = relabel.skip_trials + (relabel.trials or 1)
    fewest = record.summary.get("fewest_trials", kept)
    if kept > fewest:
        yield (
            "relabel.skip_trials" if relabel.trials is None else "relabel.trials",
            f"relabel keeps {relabel.trials or 'all'} trials a task after the first "
            f"{relabel.skip_trials}, but trials {record.name} have {fewest} of some task: lower "
            "relabel.trials or relabel.skip_trials",
        )
