"""The sweep file: a base recipe, axes over any of its keys, seeds, and what the table compares with.

    config: base.yaml                     # recipes: shipped ones by name, files (.yaml) relative to this file
    recipe: {data: fashion-mini}          # laid over them
    grid: {method: [pgd, trades], ra: [false, true]}      # every combination
                                          # the axis `extends` goes over whole recipes, named as in config
    zip: {model: [small-cnn, vgg16], batch_size: [50, 128]}      # first with first, second with second
    list: [{ra.weight: 1}, {ra.weight: 2, ra.mix: 0.7}]   # combinations written out
    random: {samples: 20, axes: {optimizer.lr: {log: [1e-3, 1e-1]}}}      # drawn, the same ones every time
    exclude: [{method: trades, ra: true}]
    seeds: 3                              # 0, 1, 2; or a list
    eval: [clean, pgd-20]
    baseline: {ra: false}                 # each row is compared with the row that differs from it in just this

Where several of grid, zip, list and random are given, they are multiplied with one another.
"""

import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from rpat_cli.config import Section
from rpat_cli.errors import ConfigError, Problem, did_you_mean
from rpat_cli.numbers import Number
from rpat_cli.recipe_io import Layer, read_yaml

Axes = dict[str, Any]
"""Dotted recipe keys and the values they take together: `{"method": "trades", "method.beta": 3}`."""

SHIPPED = Path(__file__).parent.parent / "recipes" / "sweeps"


def _seeds(value: Any) -> Any:
    return list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("must be different from one another")
    return seeds


class Draw(Section):
    """What one random axis is drawn from; exactly one of these."""

    choice: list[Any] | None = Field(None, min_length=1, description="one of these, equally likely")
    uniform: tuple[Number, Number] | None = Field(None, description="a number between these")
    log: tuple[Number, Number] | None = Field(None, description="a number between these, uniform in its logarithm")
    integer: tuple[int, int] | None = Field(None, description="a whole number between these, both included")

    @model_validator(mode="after")
    def _check(self) -> "Draw":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"must be exactly one of {', '.join(type(self).model_fields)}")
        bounds = self.uniform or self.log or self.integer
        if bounds and bounds[0] >= bounds[1]:
            raise ValueError("must go from a smaller to a larger number")
        if self.log and self.log[0] <= 0:
            raise ValueError("must be above 0 to have a logarithm")
        return self

    def sample(self, source: random.Random) -> Any:
        if self.choice is not None:
            return source.choice(self.choice)
        if self.integer is not None:
            return source.randint(*self.integer)
        if self.log is not None:
            return math.exp(source.uniform(math.log(self.log[0]), math.log(self.log[1])))
        assert self.uniform is not None
        return source.uniform(*self.uniform)


class RandomAxes(Section):
    axes: dict[str, Draw] = Field(min_length=1, description="recipe keys and what each is drawn from")
    samples: int = Field(ge=1, description="how many combinations to draw; more of them keep the first ones")
    seed: int = Field(0, description="seed of the draws")

    def draw(self) -> list[Axes]:
        source = random.Random(self.seed)
        return [{key: axis.sample(source) for key, axis in self.axes.items()} for _ in range(self.samples)]


Values = Annotated[list[Any], Field(min_length=1)]


class SweepSpec(Section):
    """What a sweep file says; unknown keys are mistakes."""

    config: Annotated[list[str], BeforeValidator(_one_or_more)] = Field([], description="recipes below the axes")
    recipe: dict[str, Any] = Field({}, description="recipe keys that all trials share")
    grid: dict[str, Values] = Field({}, description="axes of which every combination is tried")
    zip: dict[str, Values] = Field({}, description="axes that go forward together")
    rows: list[Axes] = Field([], alias="list", description="combinations written out")
    random: RandomAxes | None = Field(None, description="combinations drawn at random")
    exclude: list[Annotated[Axes, Field(min_length=1)]] = Field([], description="combinations to leave out")
    seeds: Annotated[
        list[Annotated[int, Field(ge=0, lt=2**32)]],
        BeforeValidator(_seeds),
        Field(min_length=1),
        AfterValidator(_distinct),
    ] = Field([0], description="seeds of every combination: a list, or how many from 0")
    eval: str | list[str] | None = Field(None, description="attacks of every trial's final report")
    baseline: Axes | None = Field(None, description="axis values of the row that each row is compared with")

    @model_validator(mode="after")
    def _check_zip(self) -> "SweepSpec":
        lengths = {key: len(values) for key, values in self.zip.items()}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{key} {length}" for key, length in lengths.items())
            raise ValueError(f"zip: the axes must be equally long (they have {shown} values)")
        return self


def find_sweep(name: str) -> Path:
    """A sweep file, or a shipped sweep by its name. Raises `ConfigError` with the names there are."""
    if Path(name).is_file():
        return Path(name)
    shipped = {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}
    if name in shipped:
        return shipped[name]
    near = [*shipped, *(str(path) for path in Path(name).parent.glob("*.y*ml"))]
    hint = f"{did_you_mean(name, near)} Shipped sweeps: {', '.join(shipped)}.".strip()
    raise ConfigError(Problem("", f"there is no sweep file {name!r}.", hint=hint))


def read_sweep(path: Path) -> tuple[SweepSpec, Layer]:
    """The sweep that a file describes, and the file as a layer that knows its lines.

    Raises `ConfigError` with every mistake in the file's own keys; those in the recipes come out by `expand`.
    """
    layer = read_yaml(path)
    try:
        return SweepSpec.model_validate(layer.values), layer
    except ValidationError as error:
        raise ConfigError(*(_problem(dict(item), layer) for item in error.errors())) from None


def _problem(item: Mapping[str, Any], layer: Layer) -> Problem:
    """One of pydantic's errors in our words."""
    path = tuple(str(part) for part in item["loc"])
    source = next((layer.origin(path[:n]) for n in range(len(path), 0, -1) if path[:n] in layer.lines), layer.source)
    if item["type"] == "extra_forbidden":
        # The file itself, `random`, or one of the random axes: these are all the sections there are.
        sections: dict[int, type[Section]] = {1: SweepSpec, 2: RandomAxes}
        fields = sections.get(len(path), Draw).model_fields
        allowed = [field.alias or name for name, field in fields.items()]
        hint = f"{did_you_mean(path[-1], allowed)} Allowed: {', '.join(allowed)}.".strip()
        return Problem(".".join(path), "unknown key.", source, hint)
    message = item["msg"].removeprefix("Value error, ").replace("Input should", "should")
    return Problem(".".join(path), f"{message[:1].lower()}{message[1:]}.", source)
