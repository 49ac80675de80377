"""What a sweep file may say: a base recipe, axes over any of its keys, seeds, and a baseline.

    # Recipes: shipped ones by name, and files (.yaml), relative to this file.
    config: base.yaml
    # Laid over them.
    recipe: {data: fashion-mini}
    # Every combination. The axis `extends` goes over whole recipes, named as in config.
    grid: {method: [pgd, trades], ra: [false, true]}
    # First with first, second with second.
    zip: {model: [small-cnn, vgg16], batch_size: [50, 128]}
    # Combinations written out.
    list: [{ra.weight: 1}, {ra.weight: 2, ra.mix: 0.7}]
    # Drawn at random; the same ones every time.
    random: {samples: 20, axes: {optimizer.lr: {log: [1e-3, 1e-1]}}}
    exclude: [{method: trades, ra: true}]
    # 0, 1, 2; or a list.
    seeds: 3
    # Every combination of the first seed, then of the next; or by combination, which is usual.
    order: seeds
    eval: [clean, pgd-20]
    # Each row is compared with the row that differs from it in just this.
    baseline: {ra: false}
    # Stops the worse combinations early ...
    search: {asha: {min_epochs: 2, factor: 3}}
    # ... or chooses them, in place of all other axes:
    search: {optuna: {trials: 40, axes: {optimizer.lr: {log: [1e-3, 1e-1]}}, objective: clean_acc}}
    # Or local (the default), or ray; --engine overrides it.
    engine: {name: slurm, partition: gpu, time: 120}

Where several of grid, zip, list and random are given, they are multiplied with one another.
"""

import math
import random
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from rpat_cli.errors import unknown
from rpat_cli.recipe.components import Section
from rpat_cli.records.metrics import AVERAGED
from rpat_cli.sweep.engines import ENGINES
from rpat_cli.sweep.engines.base import engine_of
from rpat_cli.text import Number

Axes = dict[str, Any]
"""Dotted recipe keys and the values they take together:
`{"method": "trades", "method.beta": 3}`."""


MOST_TRIALS = 10_000
"""More combinations, or seeds, than anybody trains: a file with more would only fill the memory."""


def _seeds(value: Any) -> Any:
    """`3` as `[0, 1, 2]`. A bool is an int for Python, but not a number of seeds."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value > MOST_TRIALS:
            raise ValueError(f"must be at most {MOST_TRIALS:,}")
        return list(range(value))
    return value


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _distinct(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise ValueError("must all be different")
    return values


def _known(kind: str, allowed: Sequence[str]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in allowed:
            raise ValueError(unknown(kind, name, allowed))
        return name

    return AfterValidator(check)


class Draw(Section):
    """The distribution that one axis is drawn from; exactly one of these."""

    choice: list[Any] | None = Field(
        None, min_length=1, description="one of these values, equally likely"
    )
    uniform: tuple[Number, Number] | None = Field(None, description="a number between these bounds")
    log: tuple[Number, Number] | None = Field(
        None, description="a number between these bounds, uniform in its logarithm"
    )
    integer: tuple[int, int] | None = Field(
        None, description="an integer between these bounds, both included"
    )

    @model_validator(mode="after")
    def _check(self) -> "Draw":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"must be exactly one of {', '.join(type(self).model_fields)}")
        bounds = self.uniform or self.log or self.integer
        if bounds and bounds[0] >= bounds[1]:
            raise ValueError("the lower bound must be below the upper bound")
        if self.log and self.log[0] <= 0:
            raise ValueError("a logarithmic axis needs bounds above 0")
        return self

    @property
    def extremes(self) -> tuple[Any, Any]:
        """The lowest and the highest value, or the first and the last choice."""
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
        min_length=1, description="recipe keys and the distribution of each"
    )
    samples: int = Field(
        ge=1,
        le=MOST_TRIALS,
        description="how many combinations to draw; raising it keeps the ones drawn before",
    )
    seed: int = Field(0, description="seed of the draws")

    def draw(self) -> list[Axes]:
        source = random.Random(self.seed)
        drawn = []
        for _ in range(self.samples):
            drawn.append({key: axis.sample(source) for key, axis in self.axes.items()})
        return drawn


METRICS = ("robust_acc", "clean_acc")
"""What a search may select by: accuracies on validation images. The test set is for the final table
only."""

OBJECTIVES = (*METRICS, *(f"{name}{AVERAGED}" for name in METRICS))
"""The same, and those of the averaged weights."""

SAMPLERS = ("tpe", "random", "nsga2")


class AshaSection(Section):
    """Successive halving of the sweep's own combinations."""

    min_epochs: int = Field(
        1, ge=1, description="epochs after which combinations are compared for the first time"
    )
    factor: int = Field(3, ge=2, description="one in so many goes on, to so many times the epochs")
    metric: Annotated[str, _known("metric", METRICS)] = Field(
        "robust_acc", description="validation metric to compare them by"
    )


class OptunaSection(Section):
    """Combinations that Optuna chooses, each given the results of those before."""

    trials: int = Field(ge=1, le=MOST_TRIALS, description="how many combinations to try")
    axes: dict[str, Draw] = Field(
        min_length=1, description="recipe keys and the distribution of each"
    )
    objective: Annotated[
        list[Annotated[str, _known("objective", OBJECTIVES)]],
        BeforeValidator(_one_or_more),
        Field(min_length=1),
        AfterValidator(_distinct),
    ] = Field(["robust_acc"], description="what to maximize; several give a Pareto front")
    sampler: Annotated[str, _known("sampler", SAMPLERS)] = Field(
        "tpe", description="the sampler: tpe, random, nsga2"
    )
    seed: int = Field(0, ge=0, description="seed of the sampler")


class SearchSection(Section):
    """The search: what a sweep trains, and for how long. Exactly one of these."""

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

FIXED_BEFOREHAND = ("grid", "zip", "list", "random", "exclude", "baseline", "order")
"""Keys about combinations that are known before the sweep runs; with Optuna none is."""


class SweepSpec(Section):
    """A sweep file, checked; unknown keys are mistakes."""

    config: Annotated[list[str], BeforeValidator(_one_or_more)] = Field(
        [], description="recipes that the axes are laid over"
    )
    recipe: dict[str, Any] = Field({}, description="recipe keys shared by all trials")
    grid: dict[str, Values] = Field({}, description="axes; every combination is tried")
    zip: dict[str, Values] = Field({}, description="axes that advance together")
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
    order: Literal["combinations", "seeds"] | None = Field(
        None,
        description=(
            "seeds: all combinations of the first seed come first, so that a sweep that is stopped "
            "has compared like with like (default: combinations, each with all its seeds)"
        ),
    )
    eval: str | list[Any] | None = Field(None, description="attacks of every trial's final report")
    baseline: Axes | None = Field(
        None, description="axis values of the row that each row is compared with"
    )
    search: SearchSection | None = Field(
        None, description="what decides which combinations are trained, and for how long"
    )
    engine: engine_of(ENGINES) = Field("local", description="where the trials run")  # type: ignore[valid-type]

    @property
    def is_adaptive(self) -> bool:
        """Whether Optuna chooses the combinations one by one, so that none is known beforehand."""
        return self.search is not None and self.search.optuna is not None

    @model_validator(mode="after")
    def _check_zip(self) -> "SweepSpec":
        lengths = {key: len(values) for key, values in self.zip.items()}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{key} {length}" for key, length in lengths.items())
            raise ValueError(f"zip: all axes need equally many values (given: {shown})")
        return self

    @model_validator(mode="after")
    def _check_adaptive(self) -> "SweepSpec":
        # `list` is the name of a builtin, so the field is called `rows`.
        fields = {name: "rows" if name == "list" else name for name in FIXED_BEFOREHAND}
        given = [name for name, field in fields.items() if getattr(self, field)]
        if self.is_adaptive and given:
            raise ValueError(
                f"search: optuna cannot be combined with {', '.join(given)}: it chooses the "
                "combinations itself"
            )
        return self
