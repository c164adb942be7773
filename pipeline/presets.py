"""Presets: short YAML fragments in the clone's three folders, merged over what they extend.

A preset NAME is any of data_collection_config/NAME.yaml (section collect), vae_config/NAME.yaml
(section vae) and offline_config/NAME.yaml (sections relabel, offline, evaluate). `extends: OTHER`
in any of them puts the whole preset OTHER underneath; so a variant writes only what differs.
`benchmark: NAME` makes it a template for all task sets of a benchmark, run as NAME/TASK-SET
(`pipeline.templates`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from environments.registry import BENCHMARKS
from pipeline.config import SECTIONS, RunConfig
from pipeline.documents import Document, Origin, Path_, parse_value, read_document, value_text
from pipeline.errors import ConfigError
from pipeline.keys import complete
from pipeline.names import checked_name, did_you_mean, printable
from pipeline.problems import sentence
from pipeline.templates import BENCHMARK, Instance, instance, is_instance

FOLDERS: Mapping[str, tuple[str, ...]] = {
    "data_collection_config": ("collect",),
    "vae_config": ("donors", "vae"),
    "offline_config": ("relabel", "offline", "evaluate"),
}
_EXTENDS = "extends"


@dataclass(frozen=True)
class LoadedConfig:
    """A checked configuration and where it came from."""

    config: RunConfig
    preset: str  # as `located_preset` has it
    overrides: tuple[str, ...]  # "vae.elbo.kl_weight=0.1": full keys in order, each once
    origins: Mapping[Path_, Origin] = field(default_factory=dict, repr=False, compare=False)

    @property
    def stem(self) -> str:
        """What a run of it is called by default."""
        return preset_stem(self.preset)


def config_root() -> Path:
    """The clone's root, whatever the working folder."""
    return Path(__file__).resolve().parent.parent


def is_file(preset: str) -> bool:
    """Whether `preset` is meant as the path of a user's own file rather than a name."""
    return preset.endswith((".yaml", ".yml"))


def located_preset(preset: str) -> str:
    """A preset's name, or the absolute path of a user's file, from wherever it was named."""
    if is_instance(preset):
        return instance(preset).name
    return str(Path(preset).resolve()) if is_file(preset) else preset


def preset_stem(preset: str) -> str:
    """What runs of a preset, or of a user's file, are called by default."""
    return Path(preset).stem if is_file(preset) else preset.replace("/", "-")


def preset_names(root: Path | None = None) -> list[str]:
    """All presets but for templates, in order."""
    return sorted(_stems(root) - set(template_names(root)))


def template_names(root: Path | None = None) -> list[str]:
    """Presets that are run as NAME/TASK-SET, in order; companions are not among them."""
    return sorted(name for name in _stems(root) if _is_template(name, root or config_root()))


def runnable_names(root: Path | None = None) -> list[str]:
    """Every name that `load_config` takes, in order."""
    templates = [name for name in template_names(root) if not name.endswith("_visible")]
    sets = {name: BENCHMARKS[name.partition("_")[0]] for name in templates}
    return [
        *preset_names(root),
        *(f"{template}/{task_set}" for template in templates for task_set in sets[template]),
    ]


def _is_template(name: str, root: Path) -> bool:
    """Whether a file of that checked name says so."""
    paths = [path for folder in FOLDERS if (path := root / folder / f"{name}.yaml").is_file()]
    lines = (line for path in paths for line in path.read_text().splitlines())
    return any(line.startswith(f"{BENCHMARK}:") for line in lines)


def _stems(root: Path | None) -> set[str]:
    root = root or config_root()
    return {path.stem for folder in FOLDERS for path in (root / folder).glob("*.yaml")}


def description(name: str, root: Path | None = None) -> str:
    """What a preset says of itself: the first comment line of its first file."""
    for folder in FOLDERS:
        path = (root or config_root()) / folder / f"{name}.yaml"
        if path.is_file():
            first = path.read_text(encoding="utf-8").partition("\n")[0]
            return first.removeprefix("#").strip() if first.startswith("#") else ""
    return ""


def load_config(
    preset: str,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
    root: Path | None = None,
) -> LoadedConfig:
    """A preset, or a user's file, with `values` and then `overrides` laid over it.

    Args:
        preset: a name, or the path of a YAML file that holds a whole configuration.
        overrides: `key=value`, as `--set` takes them.
        values: nested plain data, as a Prefect form gives it; null leaves the preset's.
        root: where the three folders lie; the clone if None.

    Raises:
        ConfigError: one sentence with file and line, or the option, and the nearest valid name.
    """
    merged = _load(preset, root or config_root())
    if values is not None:
        _merge(merged, _plain(values))
    leaves: dict[str, Any] = {}
    for text in overrides:
        key, document = _override(text)
        _merge(merged, document)
        leaves.update(_flat(key, _at(document.values, key)))
    try:
        config = RunConfig.model_validate_json(json.dumps(merged.values), strict=True)
    except ValidationError as error:
        raise ConfigError(sentence(error, merged.origins, preset)) from error
    canonical = tuple(f"{key}={value_text(value)}" for key, value in sorted(leaves.items()))
    return LoadedConfig(config, located_preset(preset), canonical, merged.origins)


def _load(preset: str, root: Path) -> Document:
    if is_instance(preset):
        return _load_instance(instance(preset), root)
    if not is_file(preset):
        found = _load_preset(preset, root, ())
        if _is_template(preset, root):  # after its name was checked
            raise ConfigError(
                f"preset {preset!r} is for every task set of a benchmark: name one as well, such "
                f"as {runnable_example(preset)}"
            )
        return found
    document = read_document(Path(preset))
    return _over_base([(document, SECTIONS)], root, ())


def _examples(root: Path) -> list[str]:
    return [runnable_example(name) for name in template_names(root)[:1]]


def runnable_example(template: str) -> str:
    """A template on the first of its task sets."""
    return f"{template}/{BENCHMARKS[template.partition('_')[0]][0]}"


def _load_instance(wanted: Instance, root: Path) -> Document:
    """A template's settings, with the task set as the domain."""
    if not _is_template(wanted.template, root):
        hint = did_you_mean(wanted.template, template_names(root))
        raise ConfigError(f"unknown preset {printable(wanted.name)}; {hint}")
    name = wanted.template
    if not wanted.hides_its_goal and _is_template(wanted.companion, root):
        wanted.say_visible()
        name = wanted.companion
    document = _load_preset(name, root, ())
    _merge(document, Document({"collect": {"domain": wanted.domain}}, {}))
    return document


def _load_preset(
    name: str, root: Path, above: tuple[str, ...], asker: Origin | None = None
) -> Document:
    """A preset with all that it extends; `asker` is the line that extends it."""
    where = f"{asker}: " if asker is not None else ""
    if name in above:
        raise ConfigError(f"{where}preset {name!r} extends itself: {' > '.join((*above, name))}")
    try:
        checked_name(name, "preset")
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from error
    fragments = []
    for folder, sections in FOLDERS.items():
        path = root / folder / f"{name}.yaml"
        if path.is_file():
            fragments.append((read_document(path, f"{folder}/{name}.yaml"), sections))
    if not fragments:
        hint = did_you_mean(name, [*preset_names(root), *_examples(root)])
        raise ConfigError(f"{where}unknown preset {printable(name)}; {hint}")
    return _over_base(fragments, root, (*above, name))


def _over_base(
    fragments: Iterable[tuple[Document, Sequence[str]]], root: Path, above: tuple[str, ...]
) -> Document:
    """The fragments of one preset laid over the preset that they extend, if any."""
    base: tuple[str, Origin] | None = None
    own: list[Document] = []
    for document, sections in fragments:
        origin = document.origins.get((_EXTENDS,))
        name = document.values.pop(_EXTENDS, None)
        document.values.pop(BENCHMARK, None)
        _check_sections(document, sections)
        if origin is not None:
            if not isinstance(name, str):
                raise ConfigError(f"{origin}: {_EXTENDS} takes the name of one preset")
            if base is not None and base[0] != name:
                raise ConfigError(f"{origin}: extends {name!r}, but {base[1]} extends {base[0]!r}")
            base = base or (name, origin)
        own.append(document)
    merged = _load_preset(base[0], root, above, base[1]) if base is not None else Document({}, {})
    for document in own:
        _merge(merged, document)
    return merged


def _check_sections(document: Document, sections: Sequence[str]) -> None:
    for key, value in document.values.items():
        origin = document.origins[(key,)]
        if key not in sections:
            hint = did_you_mean(key, (*sections, _EXTENDS))
            raise ConfigError(f"{origin}: unknown section {printable(key)}; {hint}")
        if value is None:
            raise ConfigError(f"{origin}: section {key!r} is empty; fill it or leave it out")


def _override(text: str) -> tuple[tuple[str, ...], Document]:
    """`key=value` as a document with a single leaf."""
    source = f"--set {text if len(text) <= 60 else text[:60] + '...'}"
    dotted, equals, value = text.partition("=")
    if not equals or not value.strip():
        raise ConfigError(f"{source}: write KEY=VALUE, such as vae.kl_weight=0.1")
    try:
        key = complete(dotted.strip())
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    origin = Origin(source)
    nested: Any = parse_value(value, source)
    for part in reversed(key):
        nested = {part: nested}
    return key, Document(nested, {key[:n]: origin for n in range(1, len(key) + 1)})


def _at(values: Any, key: Sequence[str]) -> Any:
    for part in key:
        values = values[part]
    return values


def _flat(key: Sequence[str], value: Any) -> Iterator[tuple[str, Any]]:
    """The leaves of a value as (dotted key, value)."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat((*key, name), item)
    else:
        yield ".".join(key), value


def _plain(values: Mapping[str, Any]) -> Document:
    """Values given by a program; keys set to None are left to the preset."""
    return Document(deepcopy({k: v for k, v in values.items() if v is not None}), {})


def _merge(base: Document, over: Document) -> None:
    """Lay `over` on `base`, mapping into mapping; anything else replaces, with its origins."""
    replaced = set(_merge_values(base.values, over.values))
    for path in list(base.origins):
        if any(path[:length] in replaced for length in range(1, len(path) + 1)):
            del base.origins[path]
    base.origins.update(over.origins)


def _merge_values(
    base: dict[str, Any], over: Mapping[str, Any], path: Path_ = ()
) -> Iterator[Path_]:
    """Merge, and say the path of every value that was replaced."""
    for key, value in over.items():
        old = base.get(key)
        if isinstance(old, dict) and isinstance(value, Mapping):
            yield from _merge_values(old, value, (*path, key))
        else:
            base[key] = value
            yield (*path, key)
