"""The recipe: everything that decides a run, as pydantic models. A field's description is its help
text.

Importing this module does not import torch; checking a recipe does (a method's hyper-parameters are
the fields of the method itself, so that no second list of them can disagree).
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from rpat_cli.attacks import TRAINING_ATTACKS
from rpat_cli.data import DATASETS, MIXINGS
from rpat_cli.engine import COLLABORATORS
from rpat_cli.engine.schedules import SCHEDULES
from rpat_cli.errors import ConfigError, RpatError, unknown
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.methods import METHODS, REGULARISERS
from rpat_cli.models import is_model_name, model_names
from rpat_cli.registry import Registry
from rpat_cli.text import Number

Norm = Literal["Linf", "L2", "L1"]


class Section(BaseModel):
    """A part of the recipe. Unknown keys are mistakes, never ignored."""

    model_config = ConfigDict(extra="forbid", validate_default=True, use_attribute_docstrings=True)


class Component(BaseModel):
    """A named entry of a registry with its hyper-parameters: `{name: trades, beta: 6.0}` or just
    `trades`."""

    model_config = ConfigDict(extra="allow")
    name: str

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    def build(self, registry: Registry[Any]) -> Any:
        """The object that the registry holds under this name, with these hyper-parameters."""
        return registry[self.name](**self.options)


class BadOptionsError(ValueError):
    """Hyper-parameters that do not fit, with the names of those that there are."""

    def __init__(self, error: ValidationError, allowed: list[str]) -> None:
        super().__init__(str(error))
        self.error = error
        self.allowed = allowed


@cache
def _adapter(cls: type) -> TypeAdapter[Any]:
    """Built once for each class: that takes longer than many validations."""
    return TypeAdapter(cls)


def checked_options(cls: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Validate hyper-parameters against the fields of the frozen dataclass that takes them;
    defaults filled in."""
    try:
        return asdict(_adapter(cls).validate_python(dict(options)))
    except ValidationError as error:
        raise BadOptionsError(error, [field.name for field in fields(cls)]) from None


def component_of(registry: Registry[Any]) -> Any:
    """The type of a recipe field that names an entry of `registry`."""

    def by_name(value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    def complete(component: Component) -> Component:
        if component.name not in registry:
            raise ValueError(unknown(registry.kind, component.name, list(registry)))
        return Component(
            name=component.name, **checked_options(registry[component.name], component.options)
        )

    return Annotated[Component, BeforeValidator(by_name), AfterValidator(complete)]


def optional_component_of(registry: Registry[Any]) -> Any:
    """The same, where `none` is allowed too."""

    def without_none(value: Any) -> Any:
        name = value.get("name") if isinstance(value, Mapping) else value
        return None if name == "none" else value

    return Annotated[component_of(registry) | None, BeforeValidator(without_none)]


def switched(registry: Registry[Any], name: str, *, off: Literal[False] | None = None) -> Any:
    """The type of a recipe field that turns an entry of `registry` on: `true`, `false`, or its
    hyper-parameters.

    `off` is what `false` becomes, where it must be told from a field that nobody has set.
    """

    def options(value: Any) -> Any:
        if value is None or value is False:
            return value if value is None else off
        given = {} if value is True else value
        if not isinstance(given, Mapping):
            raise ValueError("must be true, false, or a mapping of its settings")
        checked = checked_options(registry[name], given)
        # The form of robust perception follows the method unless it is given: the recipe fills it
        # in.
        return {
            key: None if key == "form" and key not in given else value
            for key, value in checked.items()
        }

    return Annotated[dict[str, Any] | Literal[False] | None, BeforeValidator(options)]


def one_of(registry: Registry[Any]) -> Any:
    """The type of a recipe field that holds a bare name of `registry`."""

    def check(name: str) -> str:
        if name not in registry:
            raise ValueError(unknown(registry.kind, name, list(registry)))
        return name

    return Annotated[str, AfterValidator(check)]


def as_value_error(check: Callable[[Any], object]) -> AfterValidator:
    """A check that raises `RpatError` as a validator of a field, which keeps the value as it is."""

    def validate(value: Any) -> Any:
        try:
            check(value)
        except RpatError as error:
            raise ValueError(str(error)) from None
        return value

    return AfterValidator(validate)


def _check_model(name: str) -> None:
    if not is_model_name(name):
        raise ConfigError(unknown("model", name, model_names()))


def _check_augment(specs: list[Any]) -> None:
    from rpat_cli.data.augment import build_augment

    build_augment(specs, image_size=32)


def _check_suite(entries: list[Any]) -> None:
    parse_suite(entries, source="")


def _check_entry(entry: Any) -> None:
    _check_suite([entry])


def _names(value: Any) -> Any:
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


def _count_or_share(value: float) -> int | float:
    if value < 1:
        return value
    if value != int(value):
        raise ValueError("must be a whole number of images, or a share below 1")
    return int(value)


Augmentations = Annotated[
    list[str | dict[str, dict[str, Any] | None]],
    BeforeValidator(_names),
    as_value_error(_check_augment),
]


class AugmentFromSection(Section):
    """Other augmentations from the middle of the training on (AutoAugment, say, as Consistency-AT
    can do)."""

    epoch: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description=(
            "epochs before these augmentations take the place of data.augment (default: never)"
        ),
    )
    augment: Augmentations = Field(
        [], description="augmentations from then on, written like data.augment"
    )


class ExtraSection(Section):
    """Further training images, generated ones for example."""

    path: str | None = Field(
        None, description=".npz file with more training images: uint8 images, integer labels"
    )
    share: Annotated[Number, Field(gt=0, lt=1)] = Field(
        0.7, description="share of them in every batch"
    )


class DataSection(Section):
    name: Annotated[one_of(DATASETS), Field(description="data set")] = "fashion-mini"  # type: ignore[valid-type]
    root: str = Field("data", description="folder that holds the data sets")
    download: bool = Field(False, description="download the data set if it is missing")
    val_size: Annotated[Number, Field(gt=0), AfterValidator(_count_or_share)] = Field(
        1000,
        description=(
            "images held out of the training set for validation: a count, or a share below 1"
        ),
    )
    augment: Augmentations = Field(
        [], description="augmentations, in order; `cutout:size=8` sets one up, `none` is none"
    )
    augment_from: AugmentFromSection = Field(default_factory=AugmentFromSection)
    extra: ExtraSection = Field(default_factory=ExtraSection)
    normalise_as: one_of(DATASETS) | None = Field(  # type: ignore[valid-type]
        None, description="normalise with mean and deviation of this data set instead of its own"
    )
    image_size: Annotated[int, Field(ge=8)] | None = Field(
        None, description="edge in pixels, for imagefolder only"
    )
    workers: int = Field(
        2, ge=0, description="worker processes for data sets that stream from disk"
    )
    memory_budget_gb: float = Field(
        2.0, ge=0, description="data sets larger than this stream from disk"
    )


def _in_units_of_pixels(norm: str, length: float, key: str = "") -> None:
    """Raise `ValueError` for a length that no difference of two images has in Linf."""
    if norm == "Linf" and length > 1:
        raise ValueError(
            f"{key}pixels lie in [0, 1], so in Linf at most 1. Did you mean {length:g}/255?"
        )


class ThreatSection(Section):
    norm: Norm = Field("Linf", description="norm of the perturbation")
    eps: Annotated[Number, Field(gt=0)] = Field(
        8 / 255, description="largest perturbation, for pixels in [0, 1]"
    )

    @field_validator("eps")
    @classmethod
    def _check_eps(cls, eps: float, info: ValidationInfo) -> float:
        _in_units_of_pixels(info.data.get("norm", ""), eps)
        return eps


class StrongSection(Section):
    """A stronger attack from some epoch on: ReBAT's option, once the learning rate has fallen for
    the first time."""

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

    What is left out follows the threat, the method and, where it goes another way than PGD, the
    attack.
    """

    name: Annotated[one_of(TRAINING_ATTACKS), Field(description="attack used in training")] = "pgd"  # type: ignore[valid-type]
    steps: Annotated[int, Field(ge=0)] | None = Field(
        None, description="gradient steps (default: 10, of fgsm 1)"
    )
    step_size: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="length of one step (default: follows eps and the norm, eps/4 for Linf)"
    )
    start: Literal["uniform", "gaussian", "zero"] | None = Field(
        None, description="where the attack starts (default: as the method's paper has it)"
    )
    restarts: int = Field(1, ge=1, description="random restarts")
    bn_mode: Literal["eval", "train"] | None = Field(
        None,
        description="mode of BatchNorm while attacking (default: as the method's paper has it)",
    )
    strong: StrongSection = Field(default_factory=StrongSection)

    def settings(self) -> dict[str, Any]:
        """What the attack is made with, as far as it is known."""
        return self.model_dump(exclude={"name", "strong"}, exclude_none=True)


class OptimizerSection(Section):
    lr: Annotated[Number, Field(gt=0)] = Field(0.1, description="largest learning rate")
    momentum: Annotated[Number, Field(ge=0, lt=1)] = Field(0.9, description="momentum of SGD")
    weight_decay: Annotated[Number, Field(ge=0)] = Field(5e-4, description="weight decay")
    nesterov: bool = Field(False, description="Nesterov momentum")
    warmup_epochs: Annotated[Number, Field(ge=0)] = Field(
        0.0, description="epochs over which the rate rises from 0"
    )
    clip_norm: Annotated[Number, Field(gt=0)] | None = Field(
        None,
        description=(
            "largest L2 norm of the whole gradient; a longer one is shortened (default: no limit)"
        ),
    )


class ValidationSection(Section):
    """Robust accuracy on the held-out split, which picks the best epoch."""

    every: int = Field(1, ge=1, description="validate every so many epochs (and after the last)")
    steps: int = Field(10, ge=1, description="steps of the PGD attack used for validation")
    limit: Annotated[int, Field(ge=1)] | None = Field(
        None, description="validate on this many images at most"
    )


class Recipe(Section):
    data: DataSection = Field(default_factory=DataSection)
    model: Annotated[str, as_value_error(_check_model)] = Field(
        "preact-resnet18", description="network"
    )
    threat: ThreatSection = Field(default_factory=ThreatSection)
    attack: AttackSection = Field(default_factory=AttackSection)
    method: component_of(METHODS) = Field("pgd", description="training method")  # type: ignore[valid-type]
    ra: switched(REGULARISERS, "ra") = Field(  # type: ignore[valid-type]
        False, description="robust perception (RPAT), on top of any method"
    )
    consistency: switched(REGULARISERS, "consistency") = Field(  # type: ignore[valid-type]
        False,
        description="consistency regularisation over two augmented views, on top of any method",
    )
    wa: switched(COLLABORATORS, "wa", off=False) = Field(  # type: ignore[valid-type]
        None,
        description="average the weights; methods that need a teacher turn it on by themselves",
    )
    awp: switched(COLLABORATORS, "awp") = Field(  # type: ignore[valid-type]
        False, description="adversarial weight perturbation, on top of any method"
    )
    mix: optional_component_of(MIXINGS) = Field(  # type: ignore[valid-type]
        None, description="mix images and their labels, `none` is none"
    )
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.0, description="share of every label that is spread evenly over the classes"
    )
    optimizer: OptimizerSection = Field(default_factory=OptimizerSection)
    schedule: component_of(SCHEDULES) = Field("multistep", description="learning-rate schedule")  # type: ignore[valid-type]
    epochs: int = Field(110, ge=1, description="passes over the training images")
    batch_size: int = Field(128, ge=1, description="images per step")
    accumulate: int = Field(
        1,
        ge=1,
        description=(
            "compute every batch in so many parts, one after the other, to need less memory"
        ),
    )
    validation: ValidationSection = Field(default_factory=ValidationSection)
    eval: Annotated[
        list[Annotated[Any, as_value_error(_check_entry)]],
        BeforeValidator(_names),
        as_value_error(_check_suite),
    ] = Field(["clean", "pgd-20"], description="attacks of the final report, on the test set")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="arithmetic of training; evaluation is always fp32"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where to compute")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of everything random")
    plugins: list[str] = Field(
        [], description="files with a user's own methods, attacks, models and data sets"
    )

    @model_validator(mode="after")
    def _fill_what_follows(self) -> Self:
        """What is left open of the attack follows attack, method and threat; the form of RPAT
        follows the method."""
        method = METHODS[self.method.name]
        for key, value in self._usual_attack(method.attack_defaults).items():
            if getattr(self.attack, key) is None:
                setattr(self.attack, key, value)
        if method.attack_defaults.get("steps") == 0 and self.attack.steps:
            raise ValueError(
                f"the method {self.method.name!r} makes no attack steps; leave out attack.steps "
                "and .name"
            )
        if self.ra is not None and self.ra["form"] is None:
            self.ra["form"] = method.ra_form
        return self

    def _usual_attack(self, of_method: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that a method's paper has; those of an attack that goes another way than PGD
        come above them."""
        from rpat_cli.attacks.threat import Threat

        threat = Threat(self.threat.norm, self.threat.eps)
        step_size = threat.default_step_size()
        usual = {
            "start": "uniform",
            "steps": 10,
            "bn_mode": "eval",
            "step_size": step_size,
            **of_method,
        }
        given = {
            key: value
            for key, value in self.attack.settings().items()
            if key in ("start", "steps", "step_size")
        }
        plain, own = (TRAINING_ATTACKS[name](threat, **given) for name in ("pgd", self.attack.name))
        way = {key: getattr(own, key, usual[key]) for key in ("start", "steps", "step_size")}
        if all(value == getattr(plain, key) for key, value in way.items()):
            return usual
        if usual["start"] == "gaussian" and way["start"] == "zero":
            # at x itself the loss of TRADES has no slope that an attack could follow
            way["start"] = "gaussian"
        way["step_size"] = way["step_size"] or step_size  # of an attack without steps
        return usual | way

    @model_validator(mode="after")
    def _fill_strong_attack(self) -> Self:
        strong = self.attack.strong
        if strong.from_epoch is not None:
            strong.eps = strong.eps or 1.25 * self.threat.eps
            strong.steps = strong.steps or round(1.2 * (self.attack.steps or 0))
        elif strong.eps or strong.steps:
            raise ValueError("attack.strong: from which epoch on? Give attack.strong.from_epoch.")
        return self

    @model_validator(mode="after")
    def _check_attack(self) -> Self:
        """Better a mistake now than once the data are read."""
        from rpat_cli.attacks.threat import Threat

        _in_units_of_pixels(self.threat.norm, self.attack.step_size or 0, "attack.step_size: ")
        try:
            threat = Threat(self.threat.norm, self.threat.eps)
            TRAINING_ATTACKS[self.attack.name].for_training(threat, self.attack.settings())
        except ConfigError as error:
            raise ValueError(f"attack.{error}") from None
        return self

    @model_validator(mode="after")
    def _fill_averaging(self) -> Self:
        """A method that learns from the averaged model turns averaging on; its start follows the
        epochs."""
        if any(part.needs_teacher for part in self.parts()):
            if self.wa is False:
                raise ValueError(
                    "wa is false, but the method learns from the averaged weights "
                    f"({self.method.name}{', ra.form teacher-kl' if self.ra else ''}). Leave wa "
                    "out."
                )
            self.wa = checked_options(COLLABORATORS["wa"], self.wa or {})
        if self.wa:
            self.wa["start_epoch"] = COLLABORATORS["wa"](**self.wa).start_at(self.epochs)
            if self.wa["start_epoch"] >= self.epochs:
                raise ValueError(
                    f"wa.start_epoch: averaging would start after {self.wa['start_epoch']} "
                    "epochs, but there are only "
                    f"{self.epochs}. Leave it out (it follows the epochs) or choose one below."
                )
        return self

    @model_validator(mode="after")
    def _check_what_goes_together(self) -> Self:
        if self.mix is not None:
            one_class = "needs the one class of every image, and mixed images have two"
            if any(part.needs_class for part in self.parts()):
                raise ValueError(
                    f"mix: {self.mix.name} is not defined with {self.method.name}, which "
                    f"{one_class}."
                )
            if self.attack.name == "cw-pgd":
                raise ValueError(
                    f"mix: {self.mix.name} is not defined with the attack cw-pgd: its margin "
                    f"{one_class}."
                )
        if self.optimizer.nesterov and not self.optimizer.momentum:
            raise ValueError("optimizer.nesterov: needs a momentum above 0.")
        later = self.data.augment_from
        if later.augment and later.epoch is None:
            raise ValueError(
                "data.augment_from: from which epoch on? Give data.augment_from.epoch."
            )
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate: a batch of {self.batch_size} images cannot be computed in "
                f"{self.accumulate} parts."
            )
        extra = self.data.extra
        if extra.path and not 1 <= round(extra.share * self.batch_size) < self.batch_size:
            raise ValueError(
                f"data.extra.share: {extra.share} of a batch of {self.batch_size} leaves no "
                "image of one kind."
            )
        return self

    def parts(self) -> list[Any]:
        """The method, then the regularisers that are turned on."""
        switched_on = {name: getattr(self, name) for name in REGULARISERS}
        return [
            self.method.build(METHODS),
            *(
                REGULARISERS[name](**options)
                for name, options in switched_on.items()
                if options is not None
            ),
        ]
