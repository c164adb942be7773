"""`omrl schema`: the configuration's JSON schema, for editors that complete and check YAML."""

from __future__ import annotations

import argparse
from typing import Any

from pipeline.console import say_json
from pipeline.exits import OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`omrl schema` has no options."""


def main(options: argparse.Namespace) -> int:
    """Print the schema of a user's own file."""
    say_json(file_schema())
    return OK


def file_schema() -> dict[str, Any]:
    """The run configuration's schema, with `extends`; nothing is required beside it."""
    from pipeline.config import RunConfig

    schema = RunConfig.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "a preset that this file changes",
    }
    schema.pop("required", None)
    return schema
