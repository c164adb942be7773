"""Partial configurations: models whose every key may be left to the preset.

Prefect draws its form from them and checks a submitted run against their schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    create_model,
    model_serializer,
)
from pydantic.fields import FieldInfo

from pipeline.documents import parse_value
from pipeline.errors import ConfigError
from stages.config import (
    CollectConfig,
    DonorsConfig,
    EvaluateConfig,
    OfflineConfig,
    RelabelConfig,
    VaeConfig,
)


class Overrides(BaseModel):
    """Some keys of a section; those not set are the preset's, and are not written out."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @model_serializer(mode="plain")
    def _only_what_is_set(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in type(self).model_fields if k in self.model_fields_set}


def partial(model: type[BaseModel]) -> type[Overrides]:
    """The model with every key optional, models inside it too; constraints and texts stay."""
    fields: dict[str, Any] = {n: _optional(info) for n, info in model.model_fields.items()}
    name = model.__name__.replace("Config", "Overrides")
    return create_model(name, __base__=Overrides, __doc__=model.__doc__, **fields)


def settings(section: str, overrides: Overrides) -> list[str]:
    """What is set, as `--set` takes it: `vae.elbo.kl_weight=0.1`."""
    values = overrides.model_dump(mode="json")
    return [f"{key}={_text(value)}" for key, value in _flat(section, values)]


def _optional(info: FieldInfo) -> tuple[Any, Any]:
    annotation: Any = info.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        annotation = partial(annotation)
    elif info.metadata:
        annotation = Annotated[(annotation, *info.metadata)]
    # No default in the schema: a form then shows an empty field, not a null to fight with.
    return annotation, Field(
        None, description=info.description, json_schema_extra=lambda s: s.pop("default", None)
    )


def _flat(path: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{path}.{key}", value)
        else:
            yield f"{path}.{key}", value


def _text(value: Any) -> str:
    """The value as a person would write it on the command line, if it is read back the same."""
    if isinstance(value, str):
        try:
            if value.strip() and parse_value(value, "") == value:
                return value
        except ConfigError:
            pass
    return json.dumps(value)


if TYPE_CHECKING:
    CollectOverrides: TypeAlias = Overrides
    DonorsOverrides: TypeAlias = Overrides
    VaeOverrides: TypeAlias = Overrides
    RelabelOverrides: TypeAlias = Overrides
    OfflineOverrides: TypeAlias = Overrides
    EvaluateOverrides: TypeAlias = Overrides
else:
    CollectOverrides = partial(CollectConfig)
    DonorsOverrides = partial(DonorsConfig)
    VaeOverrides = partial(VaeConfig)
    RelabelOverrides = partial(RelabelConfig)
    OfflineOverrides = partial(OfflineConfig)
    EvaluateOverrides = partial(EvaluateConfig)
