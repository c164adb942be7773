"""The command that makes runs again: with everything that decides their bytes, and no more."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config import RuntimeConfig
from pipeline.presets import located_preset, preset_stem
from pipeline.records import RunRecord, run_stem


def again(records: Sequence[RunRecord]) -> str:
    """For runs that differ in their seeds only; what else decides bytes is the first one's."""
    first = records[0]
    own_name = first.stem != run_stem(preset_stem(first.preset), first.overrides)
    words = run_words(
        first.preset,
        first.overrides,
        [record.seed for record in records],
        first.stem if own_name else None,
        first.runtime,
    )
    return shlex.join(words)


def run_words(
    preset: str,
    overrides: Sequence[str],
    seeds: Sequence[int],
    name: str | None = None,
    runtime: Mapping[str, Any] | None = None,
) -> list[str]:
    """The words of `omrl run`; they mean the same in any folder.

    Of `runtime`, as `RuntimeConfig.decisive`, no default is written.
    """
    words = ["omrl", "run", located_preset(preset)]
    for text in overrides:
        words += ["--set", text]
    words += ["--seed", str(seeds[0])] if len(seeds) == 1 else ["--seeds", seeds_text(seeds)]
    if name is not None:
        words += ["--name", name]
    defaults = RuntimeConfig().decisive
    for option, value in (runtime or {}).items():
        if value != defaults.get(option):
            words += [f"--{option}", str(value)]
    return words


def seeds_text(seeds: Sequence[int]) -> str:
    """Seeds as `--seeds` takes them."""
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}..{seeds[-1]}"
    return ",".join(str(seed) for seed in seeds)
