"""The sweep file: a base recipe, axes over any of its keys, seeds, and what the table compares
with.

    config: base.yaml                     # recipes: shipped ones by name, files (.yaml) relative to
    this file
    recipe: {data: fashion-mini}          # laid over them
    grid: {method: [pgd, trades], ra: [false, true]}      # every combination
                                          # the axis `extends` goes over whole recipes, named as in
                                          config
    zip: {model: [small-cnn, vgg16], batch_size: [50, 128]}      # first with first, second with
    second
    list: [{ra.weight: 1}, {ra.weight: 2, ra.mix: 0.7}]   # combinations written out
    random: {samples: 20, axes: {optimizer.lr: {log: [1e-3, 1e-1]}}}      # drawn, the same ones
    every time
    exclude: [{method: trades, ra: true}]
    seeds: 3                              # 0, 1, 2; or a list
    eval: [clean, pgd-20]
    baseline: {ra: false}                 # each row is compared with the row that differs from it
    in just this
    search: {asha: {min_epochs: 2, factor: 3}}            # stops the worse ones early; or, in place
    of other axes:
    search: {optuna: {trials: 40, axes: {optimizer.lr: {log: [1e-3, 1e-1]}}, objective: [clean_acc,
    robust_acc]}}
    engine: {name: slurm, partition: gpu, time: 120}      # or local (the default), or ray; --engine
    goes before it

Where several of grid, zip, list and random are given, they are multiplied with one another.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from rpat_cli.errors import ConfigError, Problem, did_you_mean, unknown
from rpat_cli.recipe.layers import Layer
from rpat_cli.recipe.schema import Section
from rpat_cli.recipe.yaml_lines import read_document
from rpat_cli.records.metrics import AVERAGED
from rpat_cli.sweep.engines import ENGINES
from rpat_cli.sweep.engines.base import EngineSection, engine_of
from rpat_cli.text import Number

Axes = dict[str, Any]
"""Dotted recipe keys and the values they take together: `{"method": "trades", "method.beta":
3}`."""

SHIPPED = Path(__file__).parent.parent / "recipe" / "shipped" / "sweeps"


def _seeds(value: Any) -> Any:
    return list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _distinct(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise ValueError("must be different from one another")
    return values


def _known(kind: str, allowed: Sequence[str]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in allowed:
            raise ValueError(unknown(kind, name, allowed))
        return name

    return AfterValidator(check)


class Draw(Section):
    """What one axis is drawn from; exactly one of these."""

    choice: list[Any] | None = Field(None, min_length=1, description="one of these, equally likely")
    uniform: tuple[Number, Number] | None = Field(None, description="a number between these")
    log: tuple[Number, Number] | None = Field(
        None, description="a number between these, uniform in its logarithm"
    )
    integer: tuple[int, int] | None = Field(
        None, description="a whole number between these, both included"
    )

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

    @property
    def ends(self) -> tuple[Any, Any]:
        """The least and the greatest value, or the first and the last choice."""
        values = self.choice or self.uniform or self.log or self.integer
        assert values is not None
        return values[0], values[-1]

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
    axes: dict[str, Draw] = Field(
        min_length=1, description="recipe keys and what each is drawn from"
    )
    samples: int = Field(
        ge=1, description="how many combinations to draw; more of them keep the first ones"
    )
    seed: int = Field(0, description="seed of the draws")

    def draw(self) -> list[Axes]:
        source = random.Random(self.seed)
        return [
            {key: axis.sample(source) for key, axis in self.axes.items()}
            for _ in range(self.samples)
        ]


FIGURES = ("robust_acc", "clean_acc")
"""What a search may judge by: figures of the validation images. The test set is for the final table
alone."""

SAMPLERS = ("tpe", "random", "nsga2")


class AshaSection(Section):
    """Successive halving of the sweep's own combinations."""

    min_epochs: int = Field(
        1, ge=1, description="epochs after which combinations are first compared"
    )
    factor: int = Field(3, ge=2, description="one in so many goes on, to so many times the epochs")
    metric: Annotated[str, _known("metric", FIGURES)] = Field(
        "robust_acc", description="what they are compared by"
    )


class OptunaSection(Section):
    """Combinations that Optuna asks for, in the light of those before."""

    trials: int = Field(ge=1, description="how many combinations to ask for")
    axes: dict[str, Draw] = Field(
        min_length=1, description="recipe keys and what each is drawn from"
    )
    objective: Annotated[
        list[
            Annotated[
                str, _known("objective", [*FIGURES, *(f"{name}{AVERAGED}" for name in FIGURES)])
            ]
        ],
        BeforeValidator(_one_or_more),
        Field(min_length=1),
        AfterValidator(_distinct),
    ] = Field(["robust_acc"], description="what to raise; several give a Pareto front")
    sampler: Annotated[str, _known("sampler", SAMPLERS)] = Field(
        "tpe", description="how to choose: tpe, random, nsga2"
    )
    seed: int = Field(0, ge=0, description="seed of the choices")


class SearchSection(Section):
    """How a sweep decides what to train, and for how long; exactly one of these."""

    asha: AshaSection | None = Field(
        None, description="stop the worse combinations early (successive halving)"
    )
    optuna: OptunaSection | None = Field(None, description="let Optuna choose the combinations")

    @property
    def name(self) -> str:
        return "asha" if self.asha else "optuna"

    @model_validator(mode="after")
    def _check(self) -> "SearchSection":
        if (self.asha is None) == (self.optuna is None):
            raise ValueError("must be exactly one of asha, optuna")
        return self


Values = Annotated[list[Any], Field(min_length=1)]


BY_HAND = ("grid", "zip", "list", "random", "exclude", "baseline")
"""Keys that speak of combinations which are known beforehand."""


class SweepSpec(Section):
    """What a sweep file says; unknown keys are mistakes."""

    config: Annotated[list[str], BeforeValidator(_one_or_more)] = Field(
        [], description="recipes below the axes"
    )
    recipe: dict[str, Any] = Field({}, description="recipe keys that all trials share")
    grid: dict[str, Values] = Field({}, description="axes of which every combination is tried")
    zip: dict[str, Values] = Field({}, description="axes that go forward together")
    rows: list[Axes] = Field([], alias="list", description="combinations written out")
    random: RandomAxes | None = Field(None, description="combinations drawn at random")
    exclude: list[Annotated[Axes, Field(min_length=1)]] = Field(
        [], description="combinations to leave out"
    )
    seeds: Annotated[
        list[Annotated[int, Field(ge=0, lt=2**32)]],
        BeforeValidator(_seeds),
        Field(min_length=1),
        AfterValidator(_distinct),
    ] = Field([0], description="seeds of every combination: a list, or how many from 0")
    eval: str | list[Any] | None = Field(None, description="attacks of every trial's final report")
    baseline: Axes | None = Field(
        None, description="axis values of the row that each row is compared with"
    )
    search: SearchSection | None = Field(
        None, description="what decides which combinations are trained, and how far"
    )
    engine: engine_of(ENGINES) = Field("local", description="where the trials run")  # type: ignore[valid-type]

    @property
    def is_asked(self) -> bool:
        """Whether the combinations are asked for one by one, so that none is known beforehand."""
        return self.search is not None and self.search.optuna is not None

    @model_validator(mode="after")
    def _check_zip(self) -> "SweepSpec":
        lengths = {key: len(values) for key, values in self.zip.items()}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{key} {length}" for key, length in lengths.items())
            raise ValueError(f"zip: the axes must be equally long (they have {shown} values)")
        return self

    @model_validator(mode="after")
    def _check_asked(self) -> "SweepSpec":
        beside = [name for name in BY_HAND if getattr(self, "rows" if name == "list" else name)]
        if self.is_asked and beside:
            raise ValueError(
                f"search: optuna chooses the combinations itself; leave out {', '.join(beside)}"
            )
        return self


def find_sweep(name: str) -> Path:
    """A sweep file, or a shipped sweep by its name. Raises `ConfigError` with the names there
    are."""
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

    Raises `ConfigError` with every mistake in the file's own keys; those in the recipes come out by
    `expand`.
    """
    spec, layer, problems = check_sweep(path)
    if problems:
        raise mistakes(problems)
    return spec, layer


def check_sweep(path: Path) -> tuple[SweepSpec, Layer, list[Problem]]:
    """The same, of what is right in the file, and the mistakes: so those in the recipes can be told
    with them.

    Raises `ConfigError` if nothing can be made of the file.
    """
    try:
        values, lines = read_document(path, "sweep")
    except ConfigError as error:
        raise mistakes(error.problems) from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        message, example = "a sweep is a mapping of keys to values.", EXAMPLES["grid"]
        raise ConfigError(Problem("", message, str(path), example))
    layer = Layer(str(path), values, lines)
    problems: list[Problem] = []
    while True:
        try:
            return SweepSpec.model_validate(values), layer, problems
        except ValidationError as error:
            found = error.errors()
            problems += [_problem(dict(item), layer) for item in found]
            wrong = values.keys() & {part for item in found for part in item["loc"][:1]}
            if not wrong:  # no single key is at fault
                raise mistakes(problems) from None
            values = {key: value for key, value in values.items() if key not in wrong}


def mistakes(problems: Sequence[Problem]) -> ConfigError:
    """All of them as one error."""
    return ConfigError(
        *problems, title=f"{len(problems)} mistakes in the sweep" if len(problems) > 1 else ""
    )


SHAPES = {
    "dict_type": "must be a mapping of keys to values.",
    "model_type": "must be a mapping of keys to values.",
    "model_attributes_type": "must be a mapping of keys to values.",
    "list_type": "must be a list.",
    "too_short": "must not be empty.",
    "missing": "is missing.",
}
"""In our words, by pydantic's, what is wrong with something that is quite another thing than it
should be."""

EXAMPLES = {
    "config": "Example: config: [quickstart, mine.yaml].",
    "recipe": "Example: recipe: {epochs: 10}. Recipes by name and files of them go under config:.",
    "grid": "Example: grid: {method: [pgd, trades], ra: [false, true]}.",
    "zip": "Example: zip: {model: [small-cnn, vgg16], batch_size: [50, 128]}.",
    "list": "Example: list: [{ra.weight: 1}, {ra.weight: 2, ra.mix: 0.7}].",
    "random": "Example: random: {samples: 20, axes: {optimizer.lr: {log: [1e-3, 1e-1]}}}.",
    "exclude": "Example: exclude: [{method: trades, ra: true}].",
    "seeds": "Example: seeds: 3, or seeds: [0, 1, 5].",
    "baseline": "Example: baseline: {ra: false}.",
    "search": "Example: search: {asha: {min_epochs: 2, factor: 3}}.",
}


def _problem(item: Mapping[str, Any], layer: Layer) -> Problem:
    """One of pydantic's errors in our words."""
    place = tuple(str(part) for part in item["loc"])
    path = (
        place[:1] + place[2:] if place[:1] == ("engine",) else place
    )  # after it, pydantic puts the engine's name
    source = next(
        (layer.origin(path[:n]) for n in range(len(path), 0, -1) if path[:n] in layer.lines),
        layer.source,
    )
    if item["type"] == "extra_forbidden":
        allowed = [
            field.alias or name for name, field in _section_at(place[:-1]).model_fields.items()
        ]
        hint = f"{did_you_mean(path[-1], allowed)} Allowed: {', '.join(allowed)}.".strip()
        return Problem(".".join(path), "unknown key.", source, hint)
    if item["type"] in SHAPES:
        return Problem(".".join(path), SHAPES[item["type"]], source, EXAMPLES.get(place[0], ""))
    message = (
        item["msg"]
        .removeprefix("Value error, ")
        .replace("Input should", "should")
        .removesuffix(".")
    )
    return Problem(".".join(path), f"{message[:1].lower()}{message[1:]}.", source)


def _section_at(path: Sequence[str]) -> type[Section]:
    """The section of the sweep file that the keys of `path` lead to."""
    section: type[Section] = SweepSpec
    for part in path:
        if part in section.model_fields:  # otherwise an axis, whose name is its own choice
            section = next(_sections_in(section.model_fields[part].annotation), section)
        elif issubclass(section, EngineSection):
            section = ENGINES[part]
    return section


def _sections_in(annotation: Any) -> Iterator[type[Section]]:
    """The sections in a type such as `dict[str, Draw] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from _sections_in(part)
