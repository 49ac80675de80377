"""The keywords of `rpat.train` and `rpat.evaluate` that set a key of the recipe: the command line's
options, under the same names.

Which key each of them sets is in the command's own table; here are their types, for editors and
notebooks. A test holds the two together.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, ForwardRef, Literal, TypedDict, TypeVar

from rpat_cli.engine import OnCollapse
from rpat_cli.errors import ConfigError, Problem, did_you_mean
from rpat_cli.recipe.layers import Layer, nested
from rpat_cli.recipe.yaml_lines import KeyPath

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from torch import Tensor
    from torch.utils.data import DataLoader, Dataset

    from rpat_cli.attacks.threat import Threat
    from rpat_cli.cli.options import RecipeOption

    Pair: TypeAlias = tuple[Any, Any]
    """Images (N, C, H, W), uint8 or floats in [0, 1], and classes (N,): tensors or arrays."""

    Images: TypeAlias = "Pair | Dataset[Any] | DataLoader[Any]"
    Data: TypeAlias = "str | Images | Mapping[str, Any]"
    """The name of a data set, images, or `{"train": ..., "test": ..., "class_names": ...}`."""

Number = float | str
"""A number, or text such as "8/255"."""

PathLike = str | os.PathLike[str]
F = TypeVar("F", bound="Callable[..., Any]")

Norm = Literal["Linf", "L2", "L1"]
Device = Literal["auto", "cpu", "cuda", "mps"]


class TrainOptions(TypedDict, total=False):
    """The keywords of `rpat.train` that set a key of the recipe, as the options of `rpat train` do;
    `rpat train --help` explains them. With a mapping, a name takes its settings along:
    `method={"name": "trades", "beta": 3}`."""

    method: "str | Mapping[str, Any]"
    beta: Number
    ra: "bool | Mapping[str, Any]"
    ra_weight: Number
    ra_mix: Number
    ra_start_epoch: int
    ra_form: str
    consistency: "bool | Mapping[str, Any]"
    wa: "bool | Mapping[str, Any]"
    wa_decay: Number
    wa_start_epoch: int
    awp: "bool | Mapping[str, Any]"
    awp_gamma: Number
    sam: "bool | Mapping[str, Any]"
    model: str
    init: PathLike
    norm: Norm
    eps: Number
    attack: "str | Mapping[str, Any]"
    steps: int
    step_size: Number
    epochs: int
    batch_size: int
    accumulate: int
    optimizer: "str | Mapping[str, Any]"
    clip_norm: Number
    lr: Number
    weight_decay: Number
    warmup_epochs: Number
    schedule: "str | Mapping[str, Any]"
    on_collapse: OnCollapse
    data: "Data"
    data_root: PathLike
    download: bool
    augment: "str | Sequence[Any]"
    mix: "str | Mapping[str, Any]"
    label_smoothing: Number
    extra_data: "PathLike | Sequence[PathLike]"
    extra_share: Number
    val_size: "int | float | str"
    image_size: "int | str | Sequence[int]"
    eval: "str | Sequence[Any]"
    seed: int
    device: Device
    sync_bn: bool
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"]
    fast: bool
    compile: bool


class EvalKeys(TypedDict, total=False):
    """The keywords of `rpat.evaluate` that change a key of the run's recipe."""

    data: "Data"
    test_data: PathLike
    norm: Norm
    eps: Number
    threat: "str | Threat | Sequence[str | Threat]"
    model: str
    normalize: str
    data_root: PathLike
    download: bool
    seed: int
    device: Device


class HowKeywords(TypedDict, total=False):
    """The other options of `rpat eval`: of the attacks, and how they are run."""

    steps: int
    step_size: Number
    restarts: int
    audit: Number
    surrogate: "Mapping[str, str | Callable[..., Tensor]]"
    limit: "int | str"
    images: "PathLike | Sequence[int | str]"
    batch_size: int
    jobs: 'int | Literal["auto"]'
    fast: bool
    out: PathLike
    save_adv: PathLike


class EvaluateOptions(EvalKeys, HowKeywords, total=False):
    """The keywords of `rpat.evaluate` that are options of `rpat eval`, which explains them."""


def several(given: "PathLike | Sequence[PathLike] | None") -> list[PathLike]:
    """One path, several or none, as a list."""
    if given is None:
        return []
    if isinstance(given, str | os.PathLike):
        return [given]
    return list(given)


def with_options(options: type) -> "Callable[[F], F]":
    """Decorate a function whose `**options` are those of a `TypedDict`: its signature lists them
    one by one, for `help()` and for completion in notebooks."""

    def decorate(function: F) -> F:
        whole = signature(function)
        own = [each for each in whole.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
        keywords = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=_written(annotation))
            for name, annotation in options.__annotations__.items()
        ]
        function.__signature__ = whole.replace(parameters=[*own, *keywords])  # type: ignore[attr-defined]
        return function

    return decorate


def _written(annotation: Any) -> Any:
    return annotation.__forward_arg__ if isinstance(annotation, ForwardRef) else annotation


def layers_from(
    options: Mapping[str, Any],
    keys: Mapping[str, KeyPath],
    assigned: Mapping[str, Any] | None,
    call: str,
) -> list[Layer]:
    """A layer for each entry of `set=...` and for each keyword that is not None, which come over
    them; `keys` has the recipe key of each keyword.

    Raises `ConfigError` for keywords that there are not.
    """
    check_names(options, keys, call)
    layers = []
    for key, value in (assigned or {}).items():
        values = nested(tuple(key.split(".")), value)
        layers.append(Layer(f"{call}(set={{{key!r}: ...}})", values, by_user=True))
    for name, value in options.items():
        if value is not None:
            values = nested(*_placed(keys[name], value))
            layers.append(Layer(f"{call}({name}=...)", values, by_user=True))
    return layers


def check_names(given: Collection[str], known: Collection[str], call: str) -> None:
    """Raises `ConfigError` for keywords that are not known."""
    every = "Any key of the recipe is set by set={'optimizer.nesterov': True}."
    problems = [
        Problem(name, "unknown keyword.", f"{call}()", did_you_mean(name, known) or every)
        for name in given
        if name not in known
    ]
    if problems:
        raise ConfigError(*problems)


def _placed(path: KeyPath, value: Any) -> tuple[KeyPath, Any]:
    """A mapping in place of a name is the whole section: `method={"name": ..., "beta": ...}`."""
    if isinstance(value, Mapping) and path[-1] == "name":
        return path[:-1], value
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return path, value


def check_switches(table: "Sequence[RecipeOption]", options: Mapping[str, Any]) -> None:
    """Raises `ConfigError` where something is turned off and set up at once: `ra=False,
    ra_weight=2`."""
    from rpat_cli.cli.options import contradictions

    problems = [
        Problem(each.parameter, f"cannot be combined with {off.parameter}=False.", "train()")
        for off, each in contradictions(table, options)
    ]
    if problems:
        raise ConfigError(*problems)
