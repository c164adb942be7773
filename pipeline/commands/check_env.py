"""`omrl check-env`: the contract that every task family must pass, for a user's own too."""

from __future__ import annotations

import argparse

from pipeline.console import say
from pipeline.exits import FAILED, OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `omrl check-env`."""
    parser.add_argument("name", metavar="NAME|module:Class", help="a domain, or your own family")
    parser.add_argument("--seed", metavar="N", help="draws tasks and actions (0)")


def main(options: argparse.Namespace) -> int:
    """Run every check and list them; 1 if one fails."""
    from environments.checker import check_family
    from environments.registry import load_family
    from pipeline.commands.run import parse_seeds

    (seed,) = parse_seeds(options.seed, None)
    results = check_family(load_family(options.name), seed)
    for result in results:
        why = f": {result.message}" if result.message else ""
        say(f"{'pass' if result.ok else 'FAIL'}  {result.name}{why}")
    failed = sum(not result.ok for result in results)
    say(f"{options.name}: {len(results) - failed} of {len(results)} checks passed")
    return FAILED if failed else OK
