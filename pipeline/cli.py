"""The command line: `omrl`. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

from pipeline.console import tell
from pipeline.exits import INTERRUPTED, USER, exit_code, sentence

COMMANDS = {
    "run": "run the pipeline for a preset",
    "batch": "run many presets side by side",
    "import": "take logs of other programs into the store",
    "export": "write trials as D4RL files or a Minari data set",
    "presets": "list the presets",
    "ls": "list runs and artefacts",
    "show": "show one run or artefact with its lineage",
    "verify": "check every byte of one artefact, or of all",
    "gc": "delete what no run uses",
    "report": "write a run's HTML page and tables again",
    "video": "film an adapting agent, with its belief beside it",
    "scores": "scores of all runs of a domain",
    "check-env": "check a task family against the contract",
    "bench": "time every stage beside a plain loop",
    "schema": "print the JSON schema of the configuration",
}


class _Parser(argparse.ArgumentParser):
    """Refuses with one line that names the nearest option."""

    def error(self, message: str) -> NoReturn:
        words = message.partition("unrecognized arguments: ")[2].split()
        known = [o for action in self._actions for o in action.option_strings if o.startswith("--")]
        near = difflib.get_close_matches(words[0].partition("=")[0], known, n=1) if words else []
        hint = f"; did you mean {near[0]}?" if near else f"; see `{self.prog} --help`"
        tell(f"{self.prog}: {message}{hint}")
        raise SystemExit(USER)


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser; only the command about to run has its options filled in."""
    parser = _Parser(
        prog="omrl",
        description="Offline meta-RL: from logs of ordinary agents to one that explores.",
        epilog="Artefacts go to ./runs, or to OMRL_HOME. `omrl COMMAND --help` says more.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name == command:
            _module(name).add_arguments(sub)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 done; 1 a check failed or the machine did (full disk); 2 something to correct; 3 a loss
        diverged; 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = next((word for word in words if word in COMMANDS), None)
    options = _parse(build_parser(command), command, words)
    _tell_warnings()
    try:
        return int(_module(options.command).main(options))
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; nothing is left to say
        return 0
    except (Exception, KeyboardInterrupt) as error:
        code = exit_code(error)
        if code is None or os.environ.get("OMRL_TRACEBACK"):
            raise
        tell("interrupted" if code == INTERRUPTED else f"omrl: {sentence(error)}")
        return code


class _Teller(logging.Handler):
    """Log records as plain lines on standard error, whatever that is at the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        tell(self.format(record))


def _tell_warnings() -> None:
    log = logging.getLogger("omrl")
    if not any(isinstance(handler, _Teller) for handler in log.handlers):
        log.addHandler(_Teller())


def _parse(
    parser: argparse.ArgumentParser, command: str | None, words: list[str]
) -> argparse.Namespace:
    """Parse; an unknown option is refused by the command's own parser, which knows the nearest."""
    options, rest = parser.parse_known_args(words)
    if rest:
        own = _Parser(prog=f"omrl {command}", allow_abbrev=False, add_help=False)
        if command is not None:
            _module(command).add_arguments(own)
        own.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


class _Command(Protocol):
    """What every module in pipeline/commands has."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Fill in the options."""

    def main(self, options: argparse.Namespace) -> int:
        """Do it; the exit code."""


def _module(command: str) -> _Command:
    module = importlib.import_module(f"pipeline.commands.{command.replace('-', '_')}")
    return cast(_Command, module)


if __name__ == "__main__":
    raise SystemExit(main())
