"""How fields of the recipe are read. Most name an entry of a registry: by a bare name, a name with
settings, or a switch with settings.

Settings are the fields of the frozen dataclass that the registry holds, so no second list of them
can disagree with it. A class is imported only when a recipe names it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from rpat_cli.errors import RpatError
from rpat_cli.registry import Registry
from rpat_cli.text import check_count

T = TypeVar("T")


def no_switch(value: Any, annotation: Any) -> Any:
    """The value itself. Raises `ValueError` for `true`, which is also what YAML makes of `yes` and
    `on`, in the place of a number: it would be read as 1."""
    if isinstance(value, bool):
        kinds = set(_kinds(annotation))
        if bool not in kinds and kinds & {int, float}:
            number = "a number" if float in kinds else "a whole number"
            raise ValueError(f"must be {number}, and not true or false")
    return value


def _kinds(annotation: Any) -> Iterator[Any]:
    """The members of a union, without what annotates them."""
    if get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _kinds(member)
    else:
        yield annotation


class Strict(BaseModel):
    """Unknown keys are mistakes, never ignored, and so are numbers that nobody means.

    Sections of engines are no `Section`: pydantic lets no validator run before a discriminator.
    """

    model_config = ConfigDict(
        extra="forbid", validate_default=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*")
    @classmethod
    def _check_size(cls, value: Any, info: ValidationInfo) -> Any:
        return value if info.field_name in ("seed", "seeds") else check_count(value)


class Section(Strict):
    """A part of the recipe."""

    @field_validator("*", mode="before")
    @classmethod
    def _check_switch(cls, value: Any, info: ValidationInfo) -> Any:
        return no_switch(value, cls.model_fields[str(info.field_name)].annotation)


class Component(BaseModel):
    """An entry of a registry with its settings: `{name: trades, beta: 6.0}` or just `trades`."""

    model_config = ConfigDict(extra="allow")
    name: str

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    def build(self, registry: Mapping[str, Callable[..., T]]) -> T:
        """The object that the registry makes under this name, with these settings."""
        return registry[self.name](**self.options)


class SettingsError(ValueError):
    """Settings that an entry does not take, together with the names of those that it does."""

    def __init__(self, error: ValidationError, allowed: list[str]) -> None:
        super().__init__(str(error))
        self.error = error
        self.allowed = allowed


@cache
def _adapter(cls: type) -> TypeAdapter[Any]:
    """Cached, since building one takes longer than many validations."""
    return TypeAdapter(cls)


def built(cls: type, settings: Mapping[str, Any]) -> Any:
    """The frozen dataclass made of these settings, checked and with its defaults. Raises
    `SettingsError`, and `ValueError` for a count that is far too large."""
    kinds = {field.name: field.type for field in fields(cls)}
    for key, value in settings.items():
        try:
            check_count(no_switch(value, kinds.get(key)))
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    try:
        return _adapter(cls).validate_python(dict(settings))
    except ValidationError as error:
        raise SettingsError(error, [field.name for field in fields(cls)]) from None


def one_of(registry: Registry[Any]) -> AfterValidator:
    """For a field that holds a bare name of `registry`."""

    def check(name: str) -> str:
        if name not in registry:
            raise ValueError(registry.refusal(name, list(registry)))
        return name

    return AfterValidator(check)


def entry_of(registry: Registry[Any], *, none_allowed: bool = False) -> BeforeValidator:
    """For a `Component` field that names an entry of `registry`; its settings are checked and
    completed. With `none_allowed`, `none` is None."""

    def read(value: Any) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        elif isinstance(value, Component):
            value = {"name": value.name, **value.options}
        name = value.get("name") if isinstance(value, Mapping) else None
        if none_allowed and name == "none":
            return None
        if not isinstance(name, str):
            return value  # not of this form: pydantic says what is wrong with it
        if name not in registry:
            raise ValueError(registry.refusal(name, list(registry)))
        given = {key: setting for key, setting in value.items() if key != "name"}
        return Component(name=name, **asdict(built(registry[name], given)))

    return BeforeValidator(read)


def switch(
    registry: Registry[Any], name: str, *, off: Literal[False] | None = None
) -> BeforeValidator:
    """For a field that turns an entry of `registry` on: `true`, `false`, or its settings.

    `off` is what `false` becomes, where it must differ from a field that was left out.
    """

    def read(value: Any) -> Any:
        if value is None:
            return None
        if value is False:
            return off
        cls = registry[name]
        if isinstance(value, cls):
            return value
        given = {} if value is True else value
        if not isinstance(given, Mapping):
            raise ValueError("must be true, false, or a mapping of its settings")
        return built(cls, given)

    return BeforeValidator(read)


def as_value_error(check: Callable[[Any], object]) -> AfterValidator:
    """A check that raises `RpatError`, as a validator of a field. The value stays as it is."""

    def validate(value: Any) -> Any:
        try:
            check(value)
        except RpatError as error:
            raise ValueError(str(error)) from None
        return value

    return AfterValidator(validate)


def names_in(value: Any) -> Any:
    """`a,b` from a flag and `[a, b]` from a file mean the same; `none` is the empty list.

    A piece such as `m=9` is a further setting of the name before it: `randaugment:n=2,m=9` is one
    name.
    """
    if not isinstance(value, str):
        return value
    names: list[str] = []
    for piece in (piece.strip() for piece in value.split(",")):
        if names and "=" in piece and ":" not in piece:
            names[-1] += f",{piece}"
        elif piece and piece != "none":
            names.append(piece)
    return names


def files_in(value: Any) -> Any:
    """`a.npz,b.npz` from a flag and `[a.npz, b.npz]` from a file mean the same. One file is a
    string, as it always was."""
    if isinstance(value, str):
        value = [piece.strip() for piece in value.split(",") if piece.strip()]
    return value[0] if isinstance(value, list) and len(value) == 1 else value or None


def sides_in(value: Any) -> Any:
    """`48x64` from a flag and `[48, 64]` from a file are both a height and a width."""
    if isinstance(value, str) and "x" in value:
        return [side.strip() for side in value.split("x")]
    return value


def count_or_share(value: float) -> int | float:
    """A share of the images below 1, a count of them from there on."""
    if value < 1:
        return value
    if value != int(value):
        raise ValueError("must be a whole number of images, or a share below 1")
    return int(value)
