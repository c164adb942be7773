"""What a run would do and why: the answer of `--dry-run`, without building anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.building import Recipe
from pipeline.console import table
from pipeline.manifest import Manifest
from pipeline.plan import Step, chain
from pipeline.run import RunRequest, imported_by
from pipeline.store import Artefact, Store

Status = Literal["cached", "would run", "depends"]
_MOST_REASONS = 6


@dataclass(frozen=True)
class Outlook:
    """What would happen to one step. `depends`: cached if the steps before give the same bytes."""

    step: Step
    status: Status
    reason: str
    artefact: Artefact | None = None


def explain(request: RunRequest, store: Store) -> str:
    """The outlooks of all steps as a table under the run's name."""
    rows = [(o.step.name, o.status, o.reason) for o in outlooks(request, store)]
    return f"run {request.name}\n{table(('stage', 'outlook', 'why'), rows)}"


def outlooks(request: RunRequest, store: Store) -> list[Outlook]:
    """What would happen to each step, in order."""
    found: dict[str, Outlook] = {}
    for step in chain(request.loaded.config):
        found[step.name] = _outlook(step, request, store, found)
    return list(found.values())


def _outlook(
    step: Step, request: RunRequest, store: Store, before: Mapping[str, Outlook]
) -> Outlook:
    if (imported := imported_by(step, store)) is not None:
        finding = store.inspect(*store.parse(imported.artefact))
        if finding.manifest is None or finding.problem is not None:
            lost = f"imported {imported.name} is {finding.problem or 'gone'}: import it again"
            return Outlook(step, "would run", lost)
        kind, _, fingerprint = imported.artefact.partition("/")
        text = f"imported {imported.name}, {kind}/{fingerprint[:8]}"
        return Outlook(step, "cached", text, Artefact(finding.folder, finding.manifest))
    inputs = {name: before[source] for name, source in step.inputs.items()}
    open_inputs = [name for name, outlook in inputs.items() if outlook.status != "cached"]
    unknown = [name for name in open_inputs if inputs[name].artefact is None]
    if unknown:
        changes = [f"input {name} changes" for name in unknown]
        own = _nearest(None, step, request, store) or []
        return Outlook(step, "would run", _reasons([*changes, *own]))
    made = {step.inputs[name]: o.artefact for name, o in inputs.items() if o.artefact is not None}
    recipe = step.recipe(request.seed, made, request.labels)
    finding = store.inspect(recipe.kind, recipe.fingerprint)
    if finding.problem is not None:
        return Outlook(step, "would run", f"damaged: {finding.problem}")
    if finding.manifest is None:
        why = _nearest(recipe, step, request, store)
        return Outlook(step, "would run", "never made" if why is None else _reasons(why))
    artefact = Artefact(finding.folder, finding.manifest)
    if step.stage in request.refresh:
        return Outlook(step, "would run", "refreshed", artefact)
    if open_inputs:
        text = f"cached if the bytes of {' and '.join(open_inputs)} stay the same"
        return Outlook(step, "depends", text, artefact)
    return Outlook(step, "cached", f"{recipe.kind}/{recipe.fingerprint[:8]}", artefact)


def _nearest(
    recipe: Recipe | None, step: Step, request: RunRequest, store: Store
) -> list[str] | None:
    """The fewest differences to an artefact of the same step and domain; None if there is none.

    Inputs count where they are known, which is when there is a recipe.
    """
    domain = request.loaded.config.collect.domain
    alike = [
        manifest
        for manifest in store.manifests((step.kind,))
        if manifest.stage == step.name and manifest.labels.get("domain") == domain
    ]
    newest_first = sorted(alike, key=lambda manifest: manifest.created, reverse=True)
    each = [list(_differences(recipe, step, request.seed, m)) for m in newest_first]
    return min(each, key=len, default=None)


def _differences(recipe: Recipe | None, step: Step, seed: int, manifest: Manifest) -> Iterator[str]:
    old = dict(_flat(manifest.config, step.section))
    new = dict(_flat(step.config.model_dump(mode="json"), step.section))
    for key in [*new, *(key for key in old if key not in new)]:
        if old.get(key, ...) != new.get(key, ...):
            yield f"{key} {_shown(old, key)} -> {_shown(new, key)}"
    if manifest.seed != seed:
        yield f"seed {manifest.seed} -> {seed}"
    if manifest.version != step.version:
        yield f"stage version {manifest.version} -> {step.version}"
    if manifest.source != step.source:
        how = "changed" if manifest.source is not None else "was not recorded before"
        yield f"source of module {step.domain.partition(':')[0]} {how}"
    for name, artefact in recipe.inputs.items() if recipe is not None else ():
        if name not in manifest.inputs or manifest.inputs[name].digest != artefact.digest:
            yield f"input {name} changed"


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}")
    else:
        yield path, value


def _shown(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return "(none)"
    value = values[key]
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _reasons(reasons: Sequence[str]) -> str:
    more = len(reasons) - _MOST_REASONS
    return "; ".join([*reasons[:_MOST_REASONS], *([f"{more} more"] if more > 0 else [])])
