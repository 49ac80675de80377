"""The recipe: everything that decides a run, as pydantic models. A field's description is its help
text.

These are declarations only. What follows from other values is filled in by
`rpat_cli.recipe.defaults`, and what does not go together is found by `rpat_cli.recipe.mistakes`;
`rpat_cli.recipe.layers.resolve` does all three. Importing this module does not import torch.
"""

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    create_model,
    field_validator,
)

from rpat_cli.attacks import TRAINING_ATTACKS
from rpat_cli.attacks.threat import parse_threat, too_long
from rpat_cli.data import MIXINGS
from rpat_cli.engine import COLLABORATORS, OnCollapse
from rpat_cli.engine.schedules import SCHEDULES
from rpat_cli.errors import ConfigError
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.hardware import BF16_PAYS_FROM
from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.models import MODELS, is_model_name, model_names
from rpat_cli.recipe.components import (
    Component,
    Section,
    as_value_error,
    entry_of,
    names_in,
    one_of,
    switch,
)
from rpat_cli.recipe.data_section import DataSection
from rpat_cli.recipe.optimizer_section import OptimizerSection
from rpat_cli.recipe.start import check_init
from rpat_cli.text import Number

if TYPE_CHECKING:
    from rpat_cli.engine.averaging import WeightAveraging
    from rpat_cli.engine.awp import WeightPerturbation
    from rpat_cli.engine.sam import SharpnessAware
    from rpat_cli.methods.base import Part, Regularizer
    from rpat_cli.methods.consistency import Consistency
    from rpat_cli.methods.robust_perception import RobustPerception
else:  # these import torch: `switch` builds them through their registry, once a recipe has them on
    RobustPerception = Consistency = WeightAveraging = WeightPerturbation = Any
    SharpnessAware = Any

Norm = Literal["Linf", "L2", "L1"]

MOST_ATTACKS = 1000
"""In one list: what is wrong with each is looked for, which takes a while for thousands."""


def _check_model(name: str) -> None:
    if not is_model_name(name):
        raise ConfigError(MODELS.refusal(name, model_names()))


def _check_suite(entries: list[Any]) -> None:
    parse_suite(entries, source="")


def _check_entry(entry: Any) -> None:
    _check_suite([entry])


class ThreatSection(Section):
    norm: Norm = Field("Linf", description="norm of the perturbation")
    eps: Annotated[Number, Field(gt=0)] = Field(
        8 / 255, description="largest perturbation, for pixels in [0, 1]"
    )

    @field_validator("eps")
    @classmethod
    def _check_eps(cls, eps: float, info: ValidationInfo) -> float:
        problem = too_long(info.data.get("norm", ""), eps)
        if problem:
            raise ValueError(problem)
        return eps


class StrongSection(Section):
    """A stronger attack from some epoch on: ReBAT's option, after the first decay of the learning
    rate."""

    from_epoch: Annotated[int, Field(ge=0)] | None = Field(
        None, description="epochs before the stronger attack takes over (default: never)"
    )
    eps: Annotated[Number, Field(gt=0)] | None = Field(
        None,
        description="its largest perturbation (default: 5/4 of threat.eps, so 10/255 after 8/255)",
    )
    steps: Annotated[int, Field(ge=1)] | None = Field(
        None, description="its gradient steps (default: 6/5 of attack.steps, so 12 after 10)"
    )


class AttackSection(Section):
    """The attack that makes training examples.

    What is left out follows the threat model, the method and, where it has a start, steps or step
    size of its own, the attack.
    """

    name: Annotated[str, one_of(TRAINING_ATTACKS)] = Field(
        "pgd", description="attack used in training"
    )
    steps: Annotated[int, Field(ge=0)] | None = Field(
        None, description="gradient steps (default: 10; 1 for fgsm)"
    )
    step_size: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="length of one step (default: follows eps and the norm, eps/4 for Linf)"
    )
    start: Literal["uniform", "gaussian", "positive", "sign", "zero", "boundary"] | None = Field(
        None, description="where the attack starts (default: as in the method's paper)"
    )
    start_scale: Annotated[Number, Field(ge=0)] | None = Field(
        None, description="radius of a uniform or sign start, as a multiple of eps (default: 1)"
    )
    restarts: int = Field(1, ge=1, description="random restarts")
    bn_mode: Literal["eval", "train", "batch"] | None = Field(
        None,
        description=(
            "mode of BatchNorm during the attack; batch: batch statistics, running ones stay "
            "(default: as in the method's paper)"
        ),
    )
    projection: Literal["exact", "box-first", "ball-first"] | None = Field(
        None, description="how a step is brought back in L2 and L1 (default: exact, nearest point)"
    )
    reach: Annotated[Number, Field(gt=0)] | Literal["box"] | None = Field(
        None,
        description=(
            "radius that the attack stays in, as a multiple of eps, or box (pixels alone), for "
            "methods that leave the ball (default: as in the method's paper)"
        ),
    )
    eps_warmup_epochs: Annotated[Number, Field(ge=0)] = Field(
        0.0, description="epochs over which eps and step size rise linearly from 0"
    )
    eps_warmup_per: Literal["step", "epoch"] = Field(
        "step", description="when they rise: at every step, or at every epoch"
    )
    strong: StrongSection = Field(default_factory=StrongSection)

    def settings(self) -> dict[str, Any]:
        """What the attack is made with, as far as it is known."""
        others = {"name", "strong", "eps_warmup_epochs", "eps_warmup_per"}
        return self.model_dump(exclude=others, exclude_none=True)


class ValidationSection(Section):
    """Robust accuracy on the held-out split, which picks the best epoch."""

    every: int = Field(
        1, ge=1, description="epochs between two validations (the last epoch is always validated)"
    )
    steps: int = Field(10, ge=1, description="steps of the PGD attack used for validation")
    limit: Annotated[int, Field(ge=1)] | None = Field(
        None, description="validate on this many images at most"
    )


class Recipe(Section):
    data: DataSection = Field(default_factory=DataSection)
    model: Annotated[str, as_value_error(_check_model)] = Field(
        "preact-resnet18", description="network"
    )
    init: Annotated[str | None, as_value_error(check_init)] = Field(
        None,
        description=(
            "begin with the weights of RUN (or last, best), FILE, torchvision:NAME@WEIGHTS, "
            "timm:NAME@pretrained, robustbench:NAME or hf:OWNER/REPO; what does not fit, such as "
            "a head of other classes, is new"
        ),
    )
    threat: ThreatSection = Field(default_factory=ThreatSection)
    attack: AttackSection = Field(default_factory=AttackSection)
    method: Annotated[Component, entry_of(METHODS)] = Field(
        Component(name="pgd"), description="training method"
    )
    ra: Annotated[RobustPerception | None, switch(REGULARIZERS, "ra")] = Field(
        None, description="robust perception (RPAT), on top of any method"
    )
    consistency: Annotated[Consistency | None, switch(REGULARIZERS, "consistency")] = Field(
        None,
        description="consistency regularization over two augmented views, on top of any method",
    )
    wa: Annotated[
        WeightAveraging | Literal[False] | None, switch(COLLABORATORS, "wa", off=False)
    ] = Field(
        None,
        description="average the weights (EMA); methods that need a teacher turn it on themselves",
    )
    awp: Annotated[WeightPerturbation | None, switch(COLLABORATORS, "awp")] = Field(
        None, description="adversarial weight perturbation, on top of any method"
    )
    sam: Annotated[SharpnessAware | None, switch(COLLABORATORS, "sam")] = Field(
        None, description="sharpness-aware minimization (SAM, ASAM), around any optimizer"
    )
    mix: Annotated[Component | None, entry_of(MIXINGS, none_allowed=True)] = Field(
        None, description="mix images and their labels; `none` turns it off"
    )
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.0, description="share of every label that is spread evenly over the classes"
    )
    optimizer: OptimizerSection = Field(default_factory=OptimizerSection)
    schedule: Annotated[Component, entry_of(SCHEDULES)] = Field(
        Component(name="multistep"), description="learning-rate schedule"
    )
    epochs: int = Field(110, ge=1, description="passes over the training images")
    batch_size: int = Field(128, ge=1, description="images per step")
    accumulate: int = Field(
        1,
        ge=1,
        description=(
            "gradient accumulation: compute every batch in this many parts, one after the other, "
            "to save memory"
        ),
    )
    sync_bn: bool = Field(
        False,
        description="BatchNorm over the whole batch where several processes share it (CUDA only)",
    )
    validation: ValidationSection = Field(default_factory=ValidationSection)
    eval: Annotated[
        list[Annotated[Any, as_value_error(_check_entry)]],
        BeforeValidator(names_in),
        as_value_error(_check_suite),
    ] = Field(
        ["clean", "pgd-20"],
        max_length=MOST_ATTACKS,
        description="attacks of the final report, on the test set",
    )
    eval_threats: list[Annotated[str, as_value_error(parse_threat)]] = Field(
        [],
        description=(
            "threats of the final report, such as Linf:8/255 and L2:0.5 (default: the recipe's own)"
        ),
    )
    on_collapse: OnCollapse | None = Field(
        None,
        description=(
            "watch for catastrophic overfitting to a weak attack after every epoch, and warn, stop "
            "the training, or roll back an epoch and go on with a stronger attack (default: warn "
            "where the attack has one step, else off)"
        ),
    )
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = Field(
        "auto",
        description=(
            "arithmetic of training (auto: bf16 where it is native, on CPUs only for networks of "
            f"{BF16_PAYS_FROM:,} parameters or more, else fp32); evaluation is always fp32"
        ),
    )
    fast: bool = Field(
        False,
        description=(
            "attacks in training fold BatchNorm into convolutions: faster, equal up to rounding; "
            "networks that are replayed as CUDA graphs, which is faster still, are left as they are"
        ),
    )
    compile: bool = Field(
        False,
        description="attacks in training compile the network (torch.compile; CUDA graphs on a GPU)",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where to compute")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of everything random")
    plugins: list[str] = Field(
        [],
        description=(
            "Python files with your own methods, regularizers, attacks, models and data sets"
        ),
    )

    def regularizers(self) -> "dict[str, Regularizer]":
        """The regularizers that are turned on, by name, in the order in which they are applied."""
        return _turned_on(self, REGULARIZERS)

    def collaborators(self) -> dict[str, Any]:
        """Weight averaging and weight perturbation, where they are turned on."""
        return _turned_on(self, COLLABORATORS)

    def action_on_collapse(self) -> OnCollapse:
        """What the collapse guard does."""
        single = self.attack.steps == 1 and METHODS[self.method.name].uses_attack
        return self.on_collapse or ("warn" if single else "off")

    def parts(self) -> "list[Part]":
        """The method, then the regularizers that are turned on."""
        return [self.method.build(METHODS), *self.regularizers().values()]


def _turned_on(recipe: Recipe, names: Iterable[str]) -> dict[str, Any]:
    switches = {name: getattr(recipe, name, None) for name in names}
    return {name: part for name, part in switches.items() if part not in (None, False)}


def switches() -> tuple[str, ...]:
    """The keys that may be written as `true` or `false`: what any method can be trained with."""
    return (*REGULARIZERS, *COLLABORATORS)


def recipe_class() -> type[Recipe]:
    """The recipe as it is now: with a key for each row added to `REGULARIZERS`."""
    added = added_regularizers()
    return _recipe_with(added) if added else Recipe


def added_regularizers() -> tuple[str, ...]:
    """The regularizers that are not fields of `Recipe`, such as those of plugins."""
    return tuple(name for name in REGULARIZERS if name not in Recipe.model_fields)


@cache  # so that two recipes with the same keys can be compared
def _recipe_with(names: tuple[str, ...]) -> type[Recipe]:
    keys: dict[str, Any] = {}
    for name in names:
        description = f"the regularizer {name}, on top of any method"
        keys[name] = (
            Annotated[Any, switch(REGULARIZERS, name)],
            Field(None, description=description),
        )
    return create_model("Recipe", __base__=Recipe, **keys)
