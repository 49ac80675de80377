"""From a sweep to its trials: every combination of the axes, checked as a recipe, once for each
seed."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rpat_cli.errors import ConfigError, Problem, did_you_mean
from rpat_cli.recipe.layers import NAMED, Layer, read_all, resolve
from rpat_cli.recipe.schema import Recipe, switches
from rpat_cli.recipe.shipped import find
from rpat_cli.records.metrics import AVERAGED
from rpat_cli.sweep.spec import EXAMPLES, Axes, SearchSection, SweepSpec, check_sweep, mistakes
from rpat_cli.text import show_number

UNTRAINED = ("eval",)
"""Recipe keys that a trained model does not depend on: with others, a finished trial is evaluated
anew, not trained."""

UNTRAINED_DATA = ("root", "download", "workers", "memory_budget_gb")
"""The same within `data`."""


EXTENDS = "extends"
"""The axis over whole recipes: each value is one that lies below everything else."""


@dataclass(frozen=True)
class Variant:
    """One combination of the axes: a row of the table. `baseline` is the label of the row that it
    is compared with."""

    label: str
    axes: Axes
    recipe: Recipe
    baseline: str | None = None


@dataclass(frozen=True)
class Trial:
    """One training. `name` is a short hash of all that its weights depend on, and the name of its
    folder."""

    name: str
    label: str
    seed: int
    recipe: Recipe

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{self.label}, seed {self.seed}"


def checkpoints_of(recipe: Recipe) -> tuple[str, ...]:
    """What a training with this recipe is measured at, in the end: the averaged weights are models
    of their own."""
    return ("best", "last", *((f"best{AVERAGED}", f"last{AVERAGED}") if recipe.wa else ()))


@dataclass(frozen=True)
class Plan:
    """All that a sweep has to do. `doubles`: combinations that came to the same recipe as one
    before, and were left."""

    source: Path
    variants: tuple[Variant, ...]
    trials: tuple[Trial, ...]
    maker: "Maker" = field(repr=False, compare=False)
    doubles: int = 0

    @property
    def search(self) -> SearchSection | None:
        return self.maker.spec.search


@dataclass
class Maker:
    """Makes variants out of axis values, and a plan out of variants, as one sweep file wants them.

    `below` lies below the axes in every variant; raises `ConfigError` if it cannot be read.
    """

    source: Path
    spec: SweepSpec
    layer: Layer
    below: Sequence[Layer] = field(init=False)

    def __post_init__(self) -> None:
        self.below = _base_layers(self.spec, self.layer)
        self._read: dict[str, list[Layer]] = {}

    def variant(self, axes: Axes) -> Variant:
        """Raises `ConfigError` with every mistake in the recipe that comes of these values."""
        values = [
            _axis_layer(key, value, self.layer) for key, value in axes.items() if key != EXTENDS
        ]
        return Variant(label_of(axes), axes, resolve([*self._extended(axes), *self.below, *values]))

    def _extended(self, axes: Axes) -> list[Layer]:
        """The recipe that the combination extends. A file is read once, however many combinations
        it is in."""
        if EXTENDS not in axes:
            return []
        name = str(axes[EXTENDS])
        if name not in self._read:
            self._read[name] = _read_recipes([name], self.layer, _axis_line(EXTENDS, self.layer))
        return self._read[name]

    def plan(self, variants: Sequence[Variant]) -> Plan:
        """Raises `ConfigError` if no variant is another one's baseline, though one is asked for."""
        trained = {
            recipe_name(variant.recipe): variant for variant in reversed(variants)
        }  # the first of equals stays
        kept = [variant for variant in variants if trained[recipe_name(variant.recipe)] is variant]
        trials = tuple(
            Trial(recipe_name(recipe), variant.label, seed, recipe)
            for variant in kept
            for seed in self.spec.seeds
            # The seed is checked by the sweep and nothing follows from it: no need to resolve the
            # recipe again.
            for recipe in [variant.recipe.model_copy(update={"seed": seed})]
        )
        whole = tuple(_with_baselines(self.spec, kept, self.layer))
        return Plan(self.source, whole, trials, self, len(variants) - len(kept))


def plan_sweep(path: Path) -> Plan:
    """Read a sweep file and expand it. Raises `ConfigError` with every mistake in the file and its
    recipes at once.

    Where the combinations are asked for one by one, the plan is empty: the search makes it.
    """
    spec, layer, problems = check_sweep(path)
    combinations = [] if spec.is_asked else list(_combinations(spec))
    axes = [
        axes
        for axes in combinations
        if not any(_matches(axes, pattern) for pattern in spec.exclude)
    ]
    if not problems:  # otherwise some of the axes may be missing
        problems += [*_wrong_axes(spec, layer), *_wrongly_excluded(spec, combinations, layer)]
    try:
        maker = Maker(path, spec, layer)
        variants = list(_resolve_all(maker, axes))
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise mistakes(problems)
    return maker.plan(variants)


def _combinations(spec: SweepSpec) -> Iterator[Axes]:
    """list x zip x grid x random, the last going fastest."""
    factors: list[list[Axes]] = [spec.rows] if spec.rows else []
    if spec.zip:
        factors.append(
            [dict(zip(spec.zip, row, strict=True)) for row in zip(*spec.zip.values(), strict=True)]
        )
    factors += [[{key: value} for value in values] for key, values in spec.grid.items()]
    if spec.random:
        factors.append(spec.random.draw())
    for parts in itertools.product(*factors):
        yield {key: value for part in parts for key, value in part.items()}


def _matches(axes: Axes, pattern: Axes) -> bool:
    return all(key in axes and axes[key] == value for key, value in pattern.items())


def _wrong_axes(spec: SweepSpec, layer: Layer) -> Iterator[Problem]:
    """What can be no axis, or is none though `exclude` and `baseline` speak of it."""
    drawn = spec.random.axes if spec.random else {}
    asked = spec.search.optuna.axes if spec.search and spec.search.optuna else {}
    known = dict.fromkeys(
        [*spec.grid, *spec.zip, *drawn, *asked, *(key for row in spec.rows for key in row)]
    )
    for key in known:
        origin = f"{layer.source}:{_axis_line(key, layer)}"
        if key == "seed":
            yield Problem(
                key,
                "is no axis: the seeds of all trials stand under seeds:.",
                origin,
                EXAMPLES["seeds"],
            )
        elif key in UNTRAINED and not any(key in row for row in spec.rows):
            hint = "List all attacks under eval: at the top; each has its column in the table."
            yield Problem(key, "is no axis: nothing else would be trained.", origin, hint)
    if "seed" in spec.recipe:
        message = "has no effect here: the seeds of all trials stand under seeds:."
        yield Problem("recipe.seed", message, layer.origin(("recipe", "seed")), EXAMPLES["seeds"])
    named = [("exclude", pattern) for pattern in spec.exclude] + [("baseline", spec.baseline or {})]
    for section, pattern in named:
        for key in pattern:
            if key not in known:
                axes = f"The axes are: {', '.join(known) or 'none'}."
                hint = f"{did_you_mean(key, known)} {axes}".strip()
                yield Problem(
                    f"{section}.{key}", "is no axis of this sweep.", layer.origin((section,)), hint
                )


def _wrongly_excluded(
    spec: SweepSpec, combinations: Sequence[Axes], layer: Layer
) -> Iterator[Problem]:
    """Everything, or nothing though something is meant; what is drawn at random may miss it by
    chance."""
    if combinations and all(
        any(_matches(axes, pattern) for pattern in spec.exclude) for axes in combinations
    ):
        yield Problem("exclude", "nothing is left to do.", layer.origin(("exclude",)))
    known = {key for axes in combinations for key in axes} - set(
        spec.random.axes if spec.random else ()
    )
    for number, pattern in enumerate(spec.exclude):
        if pattern.keys() <= known and not any(_matches(axes, pattern) for axes in combinations):
            message = f"excludes nothing: no combination has {_shown_settings(pattern)}."
            origin = layer.origin(("exclude", str(number)))
            yield Problem(f"exclude.{number}", message, origin, "Write the values as in the axes.")


# ---- recipes


def _base_layers(spec: SweepSpec, layer: Layer) -> list[Layer]:
    lines = {
        path[1:]: line
        for path, line in layer.lines.items()
        if path[0] == "recipe" and len(path) > 1
    }
    layers = [
        *_read_recipes(spec.config, layer, layer.lines.get(("config",), 0)),
        Layer(layer.source, spec.recipe, lines),
    ]
    if spec.eval is not None:
        layers.append(Layer(layer.source, {"eval": spec.eval}, {("eval",): layer.lines["eval",]}))
    return layers


def _read_recipes(names: Sequence[str], layer: Layer, line: int) -> list[Layer]:
    """Recipes as layers: files (.yaml) relative to the sweep file, and shipped ones by name, which
    stand on `line`."""
    folder = Path(layer.source).parent
    origin = f"{layer.source}:{line}"
    is_file = [name.endswith((".yaml", ".yml")) for name in names]
    files = [
        folder / name if own else find(name, origin)
        for name, own in zip(names, is_file, strict=True)
    ]
    return read_all(configs=files)


def _axis_layer(key: str, value: Any, layer: Layer) -> Layer:
    """One axis value as a recipe layer that knows where in the sweep file it stands."""
    path = tuple(key.split("."))
    line = _axis_line(key, layer)
    for part in reversed(path):
        value = {part: value}
    return Layer(layer.source, value, {path: line})


def _axis_line(key: str, layer: Layer) -> int:
    """Where in the sweep file an axis stands; 0 if nowhere."""
    places = [
        ("grid", key),
        ("zip", key),
        ("random", "axes", key),
        ("search", "optuna", "axes", key),
        ("list",),
    ]
    return next((layer.lines[place] for place in places if place in layer.lines), 0)


def _resolve_all(maker: Maker, combinations: Iterable[Axes]) -> Iterator[Variant]:
    """Every combination as a recipe. A mistake that many share is told once, with the combinations
    that have it."""
    mistakes: dict[Problem, list[str]] = {}
    for axes in combinations:
        try:
            yield maker.variant(axes)
        except ConfigError as error:
            for problem in error.problems:
                mistakes.setdefault(problem, []).append(label_of(axes))
    if mistakes:
        raise ConfigError(*(_in_trials(problem, labels) for problem, labels in mistakes.items()))


def _in_trials(problem: Problem, labels: Sequence[str]) -> Problem:
    more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
    return Problem(
        problem.key,
        problem.message,
        problem.source,
        f"{problem.hint} (In: {labels[0]}{more}.)".strip(),
    )


def label_of(axes: Axes) -> str:
    """`trades + ra, optimizer.lr=0.05`: names speak for themselves, other values say what they are
    of."""
    names = [
        Path(str(value)).name.removesuffix(".yaml") for key, value in axes.items() if key == EXTENDS
    ]
    names += [_shown(value) for key, value in axes.items() if key in NAMED and value]
    turned_on = [
        key + _shown_settings(value) for key, value in axes.items() if key in switches() and value
    ]
    others = [
        f"{key}={_shown(value)}"
        for key, value in axes.items()
        if key not in (*NAMED, *switches(), EXTENDS)
    ]
    head = " + ".join(filter(None, [" ".join(names), *turned_on]))
    without = [
        f"no {key}" for key, value in axes.items() if key in switches() and not value and not names
    ]
    return ", ".join(filter(None, [head, *without, *others])) or "base"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return show_number(value)
    if isinstance(value, Mapping):
        return str(value.get("name", "")) + _shown_settings(
            {key: v for key, v in value.items() if key != "name"}
        )
    return "+".join(map(_shown, value)) if isinstance(value, list) else str(value)


def _shown_settings(value: Any) -> str:
    if not isinstance(value, Mapping) or not value:
        return ""
    return f"({', '.join(f'{key}={_shown(setting)}' for key, setting in value.items())})"


def recipe_name(recipe: Recipe) -> str:
    """A short hash of all that the trained weights depend on."""
    values = recipe.model_dump(mode="json", exclude=set(UNTRAINED))
    for key in UNTRAINED_DATA:
        values["data"].pop(key)
    # The name that this key had when the first sweep folders were written: theirs stay valid.
    values["data"]["normalise_as"] = values["data"].pop("normalize_as")
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _with_baselines(
    spec: SweepSpec, variants: Sequence[Variant], layer: Layer
) -> Iterator[Variant]:
    """Each variant with the label of the one that equals it but for the baseline's axis values."""
    if spec.baseline is None:
        yield from variants
        return
    by_axes = {_key(variant.axes): variant.label for variant in variants}
    found = False
    for variant in variants:
        label = by_axes.get(_key({**variant.axes, **spec.baseline}))
        other = label if label != variant.label else None
        found = found or other is not None
        yield Variant(variant.label, variant.axes, variant.recipe, other)
    if not found:
        hint = f"The rows are: {'; '.join(variant.label for variant in variants)}."
        raise ConfigError(
            Problem(
                "baseline",
                "no row has another row as its baseline.",
                layer.origin(("baseline",)),
                hint,
            )
        )


def _key(axes: Axes) -> str:
    return json.dumps(axes, sort_keys=True, default=str)
