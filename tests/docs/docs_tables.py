"""The tables in the pages that follow from the code: settings, presets, domains, reference returns.

They stand between `<!-- table: NAME -->` and `<!-- end -->`. After a change of the code

    python tests/docs/docs_tables.py

writes them again; `test_docs.py` fails while they are out of date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from algorithms.config import ElboConfig, LearnerConfig, RelabellingConfig
from environments.metaworld.facts import FACTS
from environments.registry import DOMAINS, load_family
from models.config import EncoderConfig, RewardDecoderConfig, StateDecoderConfig
from pipeline.config import RuntimeConfig
from pipeline.markdown import markdown_table
from pipeline.presets import description, load_config, preset_names
from stages.config import (
    CollectConfig,
    DonorsConfig,
    EvaluateConfig,
    OfflineConfig,
    RelabelConfig,
    TasksConfig,
    VaeConfig,
)

ROOT = Path(__file__).resolve().parents[2]
MARK = re.compile(r"<!-- table: ([a-z0-9.-]+) -->\n.*?<!-- end -->", re.DOTALL)

MODELS: dict[str, type[BaseModel]] = {
    "collect": CollectConfig,
    "donors": DonorsConfig,
    "tasks": TasksConfig,
    "learner": LearnerConfig,
    "vae": VaeConfig,
    "encoder": EncoderConfig,
    "reward-decoder": RewardDecoderConfig,
    "state-decoder": StateDecoderConfig,
    "elbo": ElboConfig,
    "relabelling": RelabellingConfig,
    "relabel": RelabelConfig,
    "offline": OfflineConfig,
    "evaluate": EvaluateConfig,
    "runtime": RuntimeConfig,
}
"""What has a table and, under the same word, a heading in configuration.md."""


def page_with_tables(text: str) -> str:
    """A page's text with every marked table made anew.

    Raises:
        KeyError: a mark names no table.
        ValueError: a setting has no description.
    """
    return MARK.sub(lambda m: f"<!-- table: {m[1]} -->\n{make(m[1])}\n<!-- end -->", text)


def make(name: str) -> str:
    """One table as Markdown."""
    if name in _OTHERS:
        return _OTHERS[name]()
    header = ("setting", "default", "values", "meaning")
    return markdown_table(header, list(_settings(MODELS[name], ""))).rstrip()


def _settings(model: type[BaseModel], path: str) -> Iterator[Sequence[str]]:
    """Rows of a model's settings; those of a model with a table of its own are left to it."""
    for name, field in model.model_fields.items():
        key, inner = path + name, field.annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            default = "must be set" if field.is_required() else f"`{_text(field.default)}`"
            yield f"`{key}`", default, _values(field), _meaning(name, field)
        elif inner in MODELS.values():
            own = next(word for word, one in MODELS.items() if one is inner)
            yield f"`{key}.*`", "", "", f"see [{own.replace('-', ' ')}](#{own})"
            for part, value in _changed(field.default, inner):
                yield f"`{key}.{part}`", f"`{_text(value)}`", "", "here with another default"
        else:
            yield from _settings(inner, f"{key}.")


def _meaning(name: str, field: FieldInfo) -> str:
    if not field.description:
        raise ValueError(f"setting {name} has no description: give its Field one")
    return field.description


def _changed(value: Any, model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """Fields in which a default differs from the model's own."""
    for name in model.model_fields:
        if getattr(value, name) != getattr(model(), name):
            yield name, getattr(value, name)


def _values(field: FieldInfo) -> str:
    """What a setting may be: its choices, or its type with bounds."""
    choices = _choices(field.annotation)
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    annotation = str(field.annotation)
    number = "whole number" if "int" in annotation else "number"
    if "bool" in annotation:
        return "`true`, `false`"
    if "tuple" in annotation:
        return "list of whole numbers"
    if "str" in annotation:
        return "text"
    return _bounded(number, field) + (", or `null`" if "None" in annotation else "")


def _choices(annotation: Any) -> tuple[str, ...]:
    """The words of a Literal, also inside a tuple."""
    found = get_args(annotation)
    if found and all(isinstance(one, str) for one in found):
        return found
    inner = [_choices(one) for one in found if one is not Ellipsis and get_args(one)]
    return inner[0] if inner else ()


def _bounded(number: str, field: FieldInfo) -> str:
    low = high = ""
    bounds = [*field.metadata, *(m for one in get_args(field.annotation) for m in _metadata(one))]
    for bound in bounds:
        match bound:
            case annotated_types.Gt(gt=value):
                low = "at least 1" if "whole" in number else f"above {value:g}"
            case annotated_types.Ge(ge=value):
                low = f"at least {value:g}"
            case annotated_types.Lt(lt=value):
                high = f"below {value:g}"
            case annotated_types.Le(le=value):
                high = f"at most {value:g}"
            case _:
                continue
    return ", ".join([number, *filter(None, (low, high))])


def _metadata(annotation: Any) -> Sequence[Any]:
    return getattr(annotation, "__metadata__", ())


def _text(value: Any) -> str:
    """A default as YAML would have it."""
    if isinstance(value, tuple):
        return f"[{', '.join(_text(item) for item in value)}]"
    words: dict[Any, str] = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _presets() -> str:
    header = ("preset", "tasks", "trials a task", "belief updates", "offline", "what it is")
    rows = []
    for name in preset_names():
        config = load_config(name).config
        collect, tasks = config.collect, config.collect.tasks
        trials = collect.random_trials + collect.iterations * collect.trials_per_iteration
        seen = "the same" if tasks.test_tasks_seen else "held out"
        rows.append(
            (
                f"`{name}`",
                f"{tasks.train}, {tasks.test} {seen}",
                str(trials),
                f"{config.vae.updates:,}",
                f"{config.offline.learner.rule}, {config.offline.updates:,} x "
                f"{config.offline.batch_size:,}",
                description(name),
            )
        )
    return markdown_table(header, rows).rstrip()


def _ml1() -> str:
    """Every task set of ML1, by whether it hides its goal."""
    rows = []
    for goal in ("hidden", "visible", "fixed"):
        facts = [one for one in FACTS.values() if one.goal == goal]
        names = [f"{one.key}{' (solid)' if one.solid_goal else ''}" for one in facts]
        rows.append((goal, str(len(facts)), ", ".join(names)))
    return markdown_table(("goal", "task sets", "which"), rows).rstrip()


def _domains() -> str:
    header = ("domain", "task", "differ in", "K", "H", "observation", "actions", "reward")
    rows = []
    for name in DOMAINS:
        spec = load_family(name).spec
        actions = (
            f"{spec.n_actions}" if spec.n_actions is not None else f"[-1, 1]^{spec.action_dim}"
        )
        low_high = spec.binary_reward
        reward = "real" if low_high is None else f"{low_high[0]:g} or {low_high[1]:g}"
        rows.append(
            (
                f"`{name}`",
                ", ".join(spec.task_names),
                spec.tasks_differ_in,
                str(spec.episodes),
                str(spec.horizon),
                _observation(spec.observation_names),
                actions,
                reward,
            )
        )
    return markdown_table(header, rows).rstrip()


def _observation(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} numbers"


def _returns() -> str:
    """Summed return of a trial of the scripted policies on each preset's own test tasks."""
    from stages.collect import draw_tasks

    rows = []
    for name in DOMAINS:
        family, config = load_family(name), load_config(name).config.collect
        tasks = draw_tasks(family, config).test
        found = (family.search_returns(tasks), family.oracle_returns(tasks))
        sums = ["-" if returns is None else f"{returns.sum(1).mean():.2f}" for returns in found]
        if any(returns is not None for returns in found):
            rows.append((f"`{name}`", str(len(tasks)), *sums))
    return markdown_table(("preset", "test tasks", "scripted search", "oracle"), rows).rstrip()


_OTHERS: dict[str, Callable[[], str]] = {
    "presets": _presets,
    "domains": _domains,
    "ml1": _ml1,
    "returns": _returns,
}


def pages() -> list[Path]:
    """README.md, CONTRIBUTING.md and everything in docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


if __name__ == "__main__":
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = page_with_tables(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
