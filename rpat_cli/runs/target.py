"""What is evaluated, opened once: the model, its recipe, its data and the device."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from torch import nn

from rpat_cli.attacks.threat import Threat, parse_threat
from rpat_cli.data.base import Dataset, Split
from rpat_cli.data.choice import Limit, choose
from rpat_cli.engine.compute import Compute, resolve_compute
from rpat_cli.errors import CheckpointError, ConfigError, Problem, RpatError
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.evaluation.words import absolute_source, from_source, with_sources
from rpat_cli.loading.architecture import Architecture
from rpat_cli.loading.by_name import in_order_of
from rpat_cli.loading.external import module_at_hand
from rpat_cli.loading.load import load_model
from rpat_cli.loading.missing import unanswered
from rpat_cli.loading.named import run_or_path
from rpat_cli.loading.saved_model import SavedModel, run_of, with_home
from rpat_cli.loading.start_name import Meaning
from rpat_cli.recipe.layers import Layer, read_recipe, resolve
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.files import user_path
from rpat_cli.records.run_folder import RunFolder, newest_run, open_run
from rpat_cli.runs.build import build_data, build_threat

Target: TypeAlias = Path | nn.Module | None
"""What is to be evaluated: a name or file that `load_model` takes, a model in memory, or (`None`)
the newest run."""

INDEPENDENT = {"threat", "eval_threats", "seed", "device"}
"""Keys of a recipe whose mistakes are mistakes under every other recipe, too."""


@dataclass(frozen=True)
class OpenedTarget:
    """A model with everything that an evaluation or a diagnostic of it needs.

    `recipe` is the model's with the user's changes. Evaluation is in float32.
    """

    saved: SavedModel
    recipe: Recipe
    data: Dataset

    @cached_property
    def compute(self) -> Compute:
        return resolve_compute(self.recipe.device, "fp32")

    @cached_property
    def model(self) -> nn.Module:
        """In eval mode, on the device. A model that exists already keeps its memory format."""
        if self.saved.at_hand:
            return self.saved.model.to(self.compute.device)
        return self.compute.place(self.saved.model)

    @property
    def threat(self) -> Threat:
        return build_threat(self.recipe)

    def test_images(self, limit: Limit | None) -> Split:
        """The test set, or some images of it. Raises `DataError` for a list of other images."""
        return limited(self.data.test, limit)

    def sources(self, specs: Sequence[AttackSpec]) -> dict[str, SavedModel]:
        """The models on which transfer attacks make their images; see `load_sources`."""
        return load_sources(specs, self.saved.architecture, self.recipe)


@contextmanager
def on_its_device(target: Target) -> Iterator[None]:
    """After this block a model in memory is on the device again that it was on before."""
    parameter = next(target.parameters(), None) if isinstance(target, nn.Module) else None
    device = None if parameter is None else parameter.device
    try:
        yield
    finally:
        if isinstance(target, nn.Module) and device is not None:
            target.to(device)


def open_target(
    target: Target, checkpoint: str, changes: Sequence[Layer], out: Path | None = None
) -> OpenedTarget:
    """Load the model of a target, resolve its recipe with the changes, and load its data; its
    results go to `out`, if that is given.

    Raises what `load_model` and `build_data` raise, and `CheckpointError` when model and data do
    not fit together.
    """
    if isinstance(target, nn.Module):
        saved = module_at_hand(target, changes)
    else:
        saved = load_model(target if target is not None else newest_run().path, checkpoint, changes)
    _check_normalization(saved, changes)
    saved = with_home(saved, out)
    recipe = _with_changes(saved.recipe, changes)
    data = build_data(recipe.data, recipe.seed, test_only=True)
    saved = _check_fit(saved, data)
    return OpenedTarget(saved, recipe, data)


def _with_changes(recipe: Recipe, changes: Sequence[Layer]) -> Recipe:
    """The run's recipe with changes; with another norm but no eps, eps follows the norm as it does
    in training."""
    values = recipe.model_dump(mode="json")
    threats = [layer.values.get("threat", {}) for layer in changes]
    norms = [threat["norm"] for threat in threats if "norm" in threat]
    if norms and norms[-1] != recipe.threat.norm:
        values["threat"] = {}
        values["attack"]["step_size"] = None
    if any(threats):  # one threat is asked for, not those of the run's report
        values["eval_threats"] = []
    return resolve([Layer("the run's recipe", values), *changes])


def check_changes(target: Path | None, changes: Sequence[Layer]) -> None:
    """Raises `ConfigError` for what is wrong with the changes, as far as that is known without
    opening the target: over the recipe of a run, and over defaults, where the settings of a method
    cannot be judged, for anything else."""
    try:
        run = newest_run() if target is None else _run_at(target)
        layers = [] if run is None else read_recipe(run.recipe)
        recipe = resolve(layers)
    except RpatError:  # said when the target is opened
        return
    known = changes if layers else [layer for layer in changes if set(layer.values) <= INDEPENDENT]
    _with_changes(recipe, known)


def _run_at(path: Path) -> RunFolder | None:
    """The run of a folder or a checkpoint."""
    return open_run(path) if path.is_dir() else run_of(path)


def under_each_threat(opened: OpenedTarget) -> list[OpenedTarget]:
    """The target under each threat of the recipe's `eval_threats`; under its own if it has none."""
    found = []
    for norm, eps in dict.fromkeys(map(parse_threat, opened.recipe.eval_threats)):
        section = opened.recipe.threat.model_copy(update={"norm": norm, "eps": eps})
        found.append(replace(opened, recipe=opened.recipe.model_copy(update={"threat": section})))
    return found or [opened]


def _check_normalization(saved: SavedModel, changes: Sequence[Layer]) -> None:
    """Raise `ConfigError` where a normalization is given for a model that has its own."""
    sections = [layer.values.get("data") for layer in changes]
    given = [each for each in sections if isinstance(each, Mapping) and each.get("normalize_as")]
    if given and not saved.normalized:
        message = "has no effect: the model normalizes its images itself. Leave it out."
        raise ConfigError(Problem("", message, "--normalize"))


def _check_fit(saved: SavedModel, data: Dataset) -> SavedModel:
    """The model with its outputs in the order of the data set's classes, as far as names say, and a
    remark if it knows more classes. Raises `CheckpointError` if it takes other images, or knows
    fewer classes."""
    shape, outputs, classes = saved.architecture.shape, saved.architecture.classes, data.classes
    if data.shape != shape or classes > outputs:
        raise CheckpointError(
            f"{saved.file} takes images of shape {shape} in {outputs} classes; the data set has "
            f"{data.shape} in {classes}. Choose the data set that the model was trained on with "
            "--data."
        )
    named = in_order_of(saved, data.class_names)
    if named is not saved or classes == outputs:
        return named
    remark = (
        f"the model has {outputs} outputs, the data set {classes} classes: output 0 is taken for "
        f"{data.class_names[0]!r}, and so on to {data.class_names[-1]!r}; outputs from {classes} "
        "on are no class of it, and count as wrong"
    )
    return replace(saved, remarks=(*saved.remarks, remark))


def limited(split: Split, limit: Limit | None) -> Split:
    """The chosen images; the same ones every time. Raises as `choose` does."""
    chosen = choose(limit, split.labels, getattr(split, "files", None))
    return split if len(chosen) == len(split) else split.subset(chosen)


def check_sources(specs: Sequence[AttackSpec]) -> None:
    """Raise `ConfigError` for transfer attacks on models that nobody has answered for, since a
    suite or a recipe may have named them: of Python files, and of libraries that would have to be
    asked for the weights."""
    sources = {
        spec.label: str(spec.settings["source"]) for spec in specs if spec.name == "transfer"
    }
    found = [
        unanswered(source, f"--attack transfer:{source}@pgd", source=label)
        for label, source in sources.items()
    ]
    problems = [problem for problem in found if problem is not None]
    if problems:
        raise ConfigError(*problems)


def located(specs: Sequence[AttackSpec]) -> list[AttackSpec]:
    """The same attacks, where transfer attacks name the files of their models by absolute paths:
    records are read elsewhere, and later, when `transfer:last` would mean another run.

    Raises `ConfigError` where two of them then have one label.
    """
    found: dict[str, AttackSpec] = {}
    for spec in specs:
        source = spec.settings.get("source")
        each = from_source(spec, located_source(str(source))) if source else spec
        if found.setdefault(each.label, each) != each:
            message = f"two different attacks have the label {each.label!r}: leave one of them out."
            raise ConfigError(message)
    return list(found.values())


def located_source(source: str) -> str:
    """The absolute path of the model that `transfer:last`, `best`, a run's name or a path names;
    other names as they are."""
    try:
        path = str(run_or_path(source))
    except RpatError:  # said where the model is loaded
        return source
    return absolute_source(source if path == str(user_path(source)) else path)


def with_located_eval(recipe: Recipe, meaning: Meaning = str) -> Recipe:
    """The recipe with the models of transfer attacks in `eval` as in `located_source`, after
    `meaning` has had its say. Raises what that does."""
    attacks = [
        with_sources(entry, lambda source: located_source(meaning(source))) for entry in recipe.eval
    ]
    return recipe.model_copy(update={"eval": attacks})


def load_sources(
    specs: Sequence[AttackSpec], target: Architecture, recipe: Recipe
) -> dict[str, SavedModel]:
    """The models on which transfer attacks make their images, by the attack's label.

    Raises `ConfigError` for a model that cannot be loaded or takes other images than the target,
    and what `check_sources` raises.
    """
    data = [Layer("the target's recipe", {"data": recipe.data.model_dump(mode="json")})]
    sources: dict[str, SavedModel] = {}
    problems = []
    check_sources(specs)
    for spec in specs:
        if spec.name != "transfer":
            continue
        try:
            source = load_model(str(spec.settings["source"]), changes=data)
        except RpatError as error:
            problems.append(Problem("", str(error), spec.label))
            continue
        sources[spec.label] = source
        shape, classes = source.architecture.shape, source.architecture.classes
        if (shape, classes) != (target.shape, target.classes):
            message = (
                f"takes images of shape {shape} in {classes} classes, the model to be attacked "
                f"{target.shape} in {target.classes}."
            )
            problems.append(Problem("", message, spec.label, "Name a model of the same data set."))
    if problems:
        title = "these transfer attacks cannot be made" if len(problems) > 1 else ""
        raise ConfigError(*problems, title=title)
    return sources


def placed(compute: Compute, sources: Mapping[str, SavedModel]) -> dict[str, nn.Module]:
    """The models of transfer attacks, on the device, by the labels of the attacks."""
    return {label: compute.place(source.model) for label, source in sources.items()}
