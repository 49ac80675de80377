"""What help pages say of the recipe's keys: their descriptions and defaults, from the fields of the
schema. Nothing here imports torch."""

from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rpat_cli.recipe.components import Section
from rpat_cli.recipe.defaults import OF_DATA_SETS
from rpat_cli.recipe.schema import recipe_class, switches
from rpat_cli.recipe.yaml_lines import KeyPath


def description(path: KeyPath) -> str:
    """The description of a key."""
    return field_of(path).description or ""


def default_of(path: KeyPath) -> str:
    """What a key is without being given, in words."""
    key = ".".join(_named_by(path))
    value = field_of(path).get_default(call_default_factory=True)
    text = "off" if key in switches() else _in_words(value)
    return f"the data set's, else {text}" if key in OF_DATA_SETS else text


def field_of(path: KeyPath) -> FieldInfo:
    """Of a key in a section, the field that declares it; of `method.name`, where `method` is what
    is named, the one of `method`."""
    path = _named_by(path)
    section = _section(path[:-1])
    assert section is not None
    return section.model_fields[path[-1]]


def _named_by(path: KeyPath) -> KeyPath:
    parent = path[:-1]
    return parent if path[-1] == "name" and _section(parent) is None else path


def _section(path: KeyPath) -> type[BaseModel] | None:
    """The section of the recipe at `path`, if it is one with fields of its own."""
    section: type[BaseModel] = recipe_class()
    for part in path:
        annotation = section.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, Section)):
            return None
        section = annotation
    return section


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(getattr(value, "name", value))
