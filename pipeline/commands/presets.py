"""`omrl presets`: what can be run by name."""

from __future__ import annotations

import argparse

from pipeline.console import say, say_json, table
from pipeline.exits import OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `omrl presets`."""
    parser.add_argument("preset", nargs="?", help="print this preset's whole configuration instead")
    parser.add_argument(
        "--task-sets",
        action="store_true",
        help="list the task sets of benchmarks instead, and which hide their goal",
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def main(options: argparse.Namespace) -> int:
    """List the presets, or print one in full."""
    from pipeline.presets import description, load_config, preset_names, template_names

    if options.preset is not None:
        config = load_config(options.preset).config.model_dump(mode="json")
        if options.json:
            say_json(config)
        else:
            import yaml

            say(yaml.safe_dump(config, sort_keys=False).rstrip())
        return OK
    rows = [
        (name, load_config(name).config.collect.domain, description(name))
        for name in preset_names()
    ]
    if options.task_sets:
        say(table(("domain", "goal"), _task_sets()))
        return OK
    rows += [
        (f"{name}/TASK-SET", f"{name.partition('_')[0]}/TASK-SET", description(name))
        for name in template_names()
        if not name.endswith("_visible")
    ]
    if options.json:
        keys = ("preset", "domain", "description")
        say_json([dict(zip(keys, row, strict=True)) for row in rows])
    else:
        say(table(("preset", "domain", "what it is"), rows))
    return OK


def _task_sets() -> list[tuple[str, str]]:
    """Domains of every benchmark, and whether there is anything to find out."""
    from environments.registry import BENCHMARKS, goal_of

    domains = [f"{name}/{one}" for name, sets in BENCHMARKS.items() for one in sets]
    return [(domain, goal_of(domain)) for domain in domains]
