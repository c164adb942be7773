"""The keys of the configuration as a tree: what exists, what is near, what a short form means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel

from pipeline.config import RunConfig
from pipeline.errors import ConfigError
from pipeline.names import did_you_mean, printable

Key = tuple[str, ...]

_LIST_OF_ALL = "`omrl schema`"


def model_at(path: Sequence[str | int]) -> type[BaseModel] | None:
    """The model that the mapping at `path` fills, or None if none does."""
    model: type[BaseModel] = RunConfig
    for part in path:
        child = _children(model).get(part) if isinstance(part, str) else None
        if child is None:
            return None
        model = child
    return model


@cache
def leaves() -> tuple[Key, ...]:
    """Every key that holds a value rather than a section, as a path."""
    return tuple(_leaves(RunConfig, ()))


def complete(dotted: str) -> Key:
    """The full path of a key as typed: exact, or a tail that only one leaf of its section has.

    `vae.kl_weight` is `vae.elbo.kl_weight`; `vae.layers` could be two things and is refused.

    Raises:
        ConfigError: no such key, or several.
    """
    path = tuple(dotted.split("."))
    if path in leaves() or model_at(path) is not None:
        return path
    section, tail = path[0], path[1:]
    if section not in RunConfig.model_fields:
        raise ConfigError(f"unknown section {printable(section)}; {_nearest(path)}")
    hits = [leaf for leaf in leaves() if leaf[0] == section and leaf[-len(tail) :] == tail]
    if len(hits) == 1:
        return hits[0]
    if hits:
        names = " or ".join(".".join(hit) for hit in hits)
        raise ConfigError(f"key {printable(dotted)} could be {names}")
    raise ConfigError(f"unknown key {printable(dotted)}; {_nearest(path)}")


def suggest(parent: Key, name: str) -> str:
    """A clause about the unknown key `name` in the section `parent`: the nearest valid key."""
    model = model_at(parent)
    hint = did_you_mean(name, model.model_fields if model is not None else (), _LIST_OF_ALL)
    if hint.startswith("did"):
        return hint
    elsewhere = [".".join(leaf) for leaf in leaves() if leaf[-1] == name]
    if elsewhere:
        return "did you mean " + " or ".join(repr(key) for key in elsewhere[:3]) + "?"
    return hint


def _nearest(path: Key) -> str:
    """The nearest full key of the typed section, or of all; by its last word if that is known."""
    same = [".".join(leaf) for leaf in leaves() if leaf[0] == path[0]]
    words = {leaf.rpartition(".")[2]: leaf for leaf in same}
    hint = did_you_mean(path[-1], words)
    if same and hint.startswith("did"):
        return hint
    if same:
        return did_you_mean(".".join(path), same, _LIST_OF_ALL)
    return did_you_mean(path[0], RunConfig.model_fields)


def _children(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The fields of a model that are models themselves."""
    found: dict[str, type[BaseModel]] = {}
    for name, field in model.model_fields.items():
        annotation: Any = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found[name] = annotation
    return found


def _leaves(model: type[BaseModel], path: Key) -> Iterator[Key]:
    children = _children(model)
    for name in model.model_fields:
        if name in children:
            yield from _leaves(children[name], (*path, name))
        else:
            yield (*path, name)
