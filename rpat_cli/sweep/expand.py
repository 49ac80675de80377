"""From a sweep to its trials: every combination of the axes as a checked recipe, once per seed."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rpat_cli.errors import ConfigError, Mistakes, Problem
from rpat_cli.loading.start_name import with_networks_named, with_start_named
from rpat_cli.recipe.layers import Layer, parse_assignments, read_all, resolve, with_plugins_in
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.shipped import find
from rpat_cli.records.metrics import AVERAGED
from rpat_cli.runs.target import with_located_eval
from rpat_cli.sweep.assignments import Layers, hidden_assignments
from rpat_cli.sweep.axes import (
    axis_problems,
    combinations_of,
    is_excluded,
    keys_of,
    line_of,
    samples_of,
)
from rpat_cli.sweep.labels import EXTENDS, label_of
from rpat_cli.sweep.spec import Axes, SearchSection, SweepSpec
from rpat_cli.sweep.starts import RunNames, for_seed, is_per_seed, misplaced
from rpat_cli.sweep.sweep_file import check_sweep, sweep_error
from rpat_cli.sweep.trial_name import trial_name


@dataclass(frozen=True)
class Variant:
    """One combination of the axes: a row of the table. `baseline` is the label of the row that it
    is compared with. `per_seed` are the recipes of its trials, where they differ in more than the
    seed; `recipe` is then the first of them."""

    label: str
    axes: Axes
    recipe: Recipe
    baseline: str | None = None
    per_seed: tuple[Recipe, ...] = ()

    def recipes(self, seeds: Sequence[int]) -> list[Recipe]:
        """Those of its trials."""
        if self.per_seed:
            return list(self.per_seed)
        # The spec has checked the seeds and nothing else follows from them: the recipe need not be
        # resolved again.
        return [self.recipe.model_copy(update={"seed": seed}) for seed in seeds]


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
        """The trial in words, for messages and tables."""
        return f"{self.label}, seed {self.seed}"


def checkpoints_of(recipe: Recipe) -> tuple[str, ...]:
    """The checkpoints that a training with this recipe is evaluated at: the averaged weights are
    models of their own."""
    plain = ("best", "last")
    averaged = (f"best{AVERAGED}", f"last{AVERAGED}")
    return (*plain, *averaged) if recipe.wa else plain


@dataclass(frozen=True)
class Plan:
    """All that a sweep has to run. `duplicates` counts the combinations left out because they
    resolve to the recipe of an earlier one."""

    source: Path
    variants: tuple[Variant, ...]
    trials: tuple[Trial, ...]
    expander: "Expander" = field(repr=False, compare=False)
    duplicates: int = 0

    @property
    def assignments(self) -> Sequence[str]:
        """What the command line has set in every recipe, as `key=value`."""
        return self.expander.assignments

    @property
    def search(self) -> SearchSection | None:
        return self.expander.spec.search


@dataclass
class Expander:
    """Makes variants out of axis values, and a plan out of variants, as one sweep file wants them.

    `base_layers` lie below the axes in every variant, the `assignments` of the command line
    (`key=value`) above the rest of them; raises `ConfigError` if one of them cannot be read. `runs`
    says which runs `last` and the like are.
    """

    source: Path
    spec: SweepSpec
    layer: Layer
    assignments: Sequence[str] = ()
    runs: RunNames = field(default_factory=RunNames)
    base_layers: Sequence[Layer] = field(init=False)

    def __post_init__(self) -> None:
        self.base_layers = [
            *_base_layers(self.spec, self.layer),
            *parse_assignments(self.assignments),
        ]
        self._extended: dict[str, list[Layer]] = {}

    def variant(self, axes: Axes) -> Variant:
        """Raises `ConfigError` with every mistake in the recipe that these values make, and
        `RunFolderError` if it begins with the `last` run and there is none."""
        below, above = self.layers(axes)
        layers = [*below, *above]
        mistakes = Mistakes()
        for problem in misplaced(layers):
            mistakes.add(problem)
        recipes: list[Recipe] = []
        with mistakes.gathered():
            if is_per_seed(layers):
                recipes += [self._recipe(for_seed(layers, seed)) for seed in self.spec.seeds]
            else:
                recipes.append(self._recipe(layers))
        mistakes.check()
        per_seed = tuple(recipes) if is_per_seed(layers) else ()
        return Variant(label_of(axes), axes, recipes[0], per_seed=per_seed)

    def _recipe(self, layers: Sequence[Layer]) -> Recipe:
        recipe = resolve(with_start_named(layers, self.runs))
        return with_located_eval(with_networks_named(recipe, self.runs), self.runs)

    def layers(self, axes: Axes) -> Layers:
        values = {key: value for key, value in axes.items() if key != EXTENDS}
        above = [_axis_layer(key, value, self.layer) for key, value in values.items()]
        return [*self._extended_by(axes), *self.base_layers], above

    def _extended_by(self, axes: Axes) -> list[Layer]:
        """The recipe that the combination extends. A file is read once, however many combinations
        extend it."""
        if EXTENDS not in axes:
            return []
        name = str(axes[EXTENDS])
        if name not in self._extended:
            line = line_of(EXTENDS, self.layer)
            self._extended[name] = _read_recipes([name], self.layer, line)
        return self._extended[name]

    def plan(self, variants: Sequence[Variant]) -> Plan:
        """Raises `ConfigError` as `check_shared` does, and if there is a `baseline` and no variant
        is the baseline of another one."""
        kept: dict[tuple[str, ...], tuple[Variant, list[Recipe]]] = {}
        for variant in variants:
            recipes = variant.recipes(self.spec.seeds)
            kept.setdefault(tuple(map(trial_name, recipes)), (variant, recipes))
        trials = []
        for names, (variant, recipes) in kept.items():
            for name, recipe in zip(names, recipes, strict=True):
                trials.append(Trial(name, variant.label, recipe.seed, recipe))
        self.check_shared(trials)
        if self.spec.order == "seeds":  # sorting keeps the combinations of a seed in their order
            trials.sort(key=lambda trial: self.spec.seeds.index(trial.seed))
        distinct = [variant for variant, _ in kept.values()]
        rows = tuple(_with_baselines(self.spec, distinct, self.layer))
        return Plan(self.source, rows, tuple(trials), self, len(variants) - len(kept))

    def check_shared(self, trials: Sequence[Trial]) -> None:
        """Raise `ConfigError` for rows that have some of their trials in common and not all, as
        `runs/a-0` and `runs/a-{seed}` have that of seed 0: it is one training, and no row's own."""
        first: dict[str, Trial] = {}
        shared: dict[tuple[str, str], list[int]] = {}
        for trial in trials:
            other = first.setdefault(trial.name, trial)
            if other is not trial:
                shared.setdefault((other.label, trial.label), []).append(trial.seed)
        problems = []
        for (one, another), seeds in shared.items():
            message = (
                f"the rows {one!r} and {another!r} are the same training for seed "
                f"{', '.join(map(str, seeds))}, and different ones for the other seeds."
            )
            hint = "Leave one of the rows out, or that seed."
            problems.append(Problem("", message, self.layer.source, hint))
        if problems:
            raise sweep_error(problems)


def plan_sweep(path: Path, assignments: Sequence[str] = (), runs: RunNames | None = None) -> Plan:
    """Read a sweep file and expand it; `assignments` (`key=value`) lie over the recipe of every
    trial and below the axes; `runs` are those that the sweep has begun with.

    Raises `ConfigError` with every mistake in the file and its recipes at once, `RunFolderError` if
    trials begin with the `last` run and there is none.

    Where Optuna chooses the combinations one by one the plan is empty, and the search fills it.
    """
    spec, layer, problems = check_sweep(path)
    try:
        combinations = [] if spec.is_adaptive else list(combinations_of(spec))
    except ConfigError as error:
        raise sweep_error(
            [*problems, *(_in_file(problem, path) for problem in error.problems)]
        ) from None
    is_whole = not problems  # otherwise some of the axes may be missing
    if is_whole:
        problems += axis_problems(spec, combinations, layer)
    try:
        expander = Expander(path, spec, layer, assignments, runs or RunNames())
        kept = [axes for axes in combinations if not is_excluded(spec, axes)]
        try:
            variants = list(_resolve_all(expander, kept))
        finally:  # its plugins are loaded now, which may add keys
            if is_whole and assignments:
                loaded = not spec.is_adaptive  # of which nothing was resolved
                seen = [expander.layers(axes) for axes in (kept if loaded else samples_of(spec))]
                problems += hidden_assignments(assignments, keys_of(spec), seen, loaded=loaded)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise sweep_error(problems)
    return expander.plan(variants)


def _in_file(problem: Problem, path: Path) -> Problem:
    return replace(problem, source=str(path))


# ---- recipes


def _base_layers(spec: SweepSpec, layer: Layer) -> list[Layer]:
    """The recipes under `config`, the keys under `recipe` and the attacks under `eval`, in this
    order."""
    layers = _read_recipes(spec.config, layer, layer.lines.get(("config",), 0))
    in_recipe = [path for path in layer.lines if path[0] == "recipe" and len(path) > 1]
    lines = {path[1:]: layer.lines[path] for path in in_recipe}
    own = Layer(layer.source, spec.recipe, lines)
    layers.append(with_plugins_in(own, Path(layer.source).parent))
    if spec.eval is not None:
        layers.append(Layer(layer.source, {"eval": spec.eval}, {("eval",): layer.lines["eval",]}))
    return layers


def _read_recipes(names: Sequence[str], layer: Layer, line: int) -> list[Layer]:
    """Recipes as layers: files (.yaml) relative to the sweep file, and shipped ones by name. `line`
    is where the sweep file names them."""
    folder = Path(layer.source).parent
    origin = f"{layer.source}:{line}"
    files = []
    for name in names:
        is_file = name.endswith((".yaml", ".yml"))
        files.append(folder / name if is_file else find(name, origin))
    return read_all(configs=files)


def _axis_layer(key: str, value: Any, layer: Layer) -> Layer:
    """One axis value as a recipe layer that knows its line in the sweep file."""
    path = tuple(key.split("."))
    for part in reversed(path):
        value = {part: value}
    return Layer(layer.source, value, {path: line_of(key, layer)})


def _resolve_all(expander: Expander, combinations: Iterable[Axes]) -> Iterator[Variant]:
    """Every combination as a recipe. A mistake shared by many is reported once, with the
    combinations that have it."""
    found: dict[Problem, list[str]] = {}
    for axes in combinations:
        try:
            yield expander.variant(axes)
        except ConfigError as error:
            for problem in error.problems:
                found.setdefault(problem, []).append(label_of(axes))
    if found:
        raise ConfigError(*(with_labels(problem, labels) for problem, labels in found.items()))


def with_labels(problem: Problem, labels: Sequence[str]) -> Problem:
    """The same with where it is: the first of the combinations or trials, and how many more."""
    more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
    hint = f"{problem.hint} (In: {labels[0]}{more}.)".strip()
    return Problem(problem.key, problem.message, problem.source, hint)


def _with_baselines(
    spec: SweepSpec, variants: Sequence[Variant], layer: Layer
) -> Iterator[Variant]:
    """Each variant with the label of the one that differs from it in the baseline's axis values
    only."""
    if spec.baseline is None:
        yield from variants
        return
    by_axes = {_key(variant.axes): variant.label for variant in variants}
    found = False
    for variant in variants:
        label = by_axes.get(_key({**variant.axes, **spec.baseline}))
        baseline = label if label != variant.label else None
        found = found or baseline is not None
        yield replace(variant, baseline=baseline)
    if not found:
        rows = "; ".join(variant.label for variant in variants)
        message = "no row has another row as its baseline."
        origin = layer.origin(("baseline",))
        raise ConfigError(Problem("baseline", message, origin, f"The rows are: {rows}."))


def _key(axes: Axes) -> str:
    return json.dumps(axes, sort_keys=True, default=str)
