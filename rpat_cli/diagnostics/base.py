"""What a diagnostic is: how it is asked for, measured, saved, read back and shown.

A row of `DIAGNOSTICS` names its code as "module:attribute", so that `rpat --help` can list the
diagnostics without importing torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from rpat_cli.diagnostics.blocks import Section
from rpat_cli.records.eval_file import EPOCHS_DONE, ORDER, PENDING

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from rpat_cli.attacks.threat import Threat
    from rpat_cli.data.base import Dataset
    from rpat_cli.data.choice import Limit
    from rpat_cli.data.reading import AnyImages
    from rpat_cli.evaluation.suite import AttackSpec

T = TypeVar("T")

EVALUATION_KEYS = frozenset(
    {
        *("format", "key", "created", "environment", "device", "checkpoint", "epoch", "model"),
        *("data", "threat", "n", "limit", "seed", "batch_size", "classes", "y", "results"),
        *("clean_acc", "clean_interval_95", "robust_acc", "robust_interval_95", "strongest"),
        *("per_class", "worst_class", "clean_calibration", "remarks", "weights"),
        *("clean_predicted", "clean_margin", "clean_confidence", EPOCHS_DONE, ORDER),
        PENDING,
    }
)
"""Keys of an evaluation's JSON that are not diagnostics, and so no names for one."""


class Result(Protocol):
    """What a diagnostic measured."""

    @property
    def failed(self) -> bool:
        """The accuracies of the evaluation cannot be trusted: `rpat eval` exits with code 3."""
        return False

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON: what `Diagnostic.read` takes."""
        ...

    def section(self) -> Section:
        """What there is to see, for the terminal and for the report's page."""
        ...


def _ignore(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Subject:
    """What is examined: a model in eval mode on `device`, `images` (N, C, H, W) in [0, 1] and their
    labels `y` (N,).

    `images` are those of a data set, which are read where they are indexed or iterated over in
    `rpat_cli.evaluation.verify.batches`, or a tensor; `x` is always a tensor, of all of them.
    `sources` are other models on the device, by the label of the transfer attack that used them.
    `attacks`: those of the evaluation. `say` takes a line about the progress.
    """

    model: "nn.Module"
    images: "AnyImages"
    y: "Tensor"
    threat: "Threat"
    device: "torch.device"
    seed: int
    sources: "Mapping[str, nn.Module]" = field(default_factory=dict)
    say: Callable[[str], None] = _ignore
    attacks: "Sequence[AttackSpec]" = ()

    @cached_property
    def x(self) -> "Tensor":
        """All images at once, for code that looks at few, or at small ones."""
        return self.images[:]

    def with_at_most(self, images: int) -> "Subject":
        """The same with so many of the images, each class by its share, the same ones every
        time."""
        from rpat_cli.data.reading import chosen_of
        from rpat_cli.data.splits import limited_choice

        chosen = limited_choice(self.y, images)
        return replace(self, images=chosen_of(self.images, chosen), y=self.y[chosen])


Measure = Callable[[Subject], Result]


@dataclass(frozen=True)
class Option:
    """A flag of `rpat eval` that belongs to a diagnostic.

    Without a `metavar` it is a switch; otherwise it takes a path, which `prepare` gets as the
    keyword argument `setting`. Without a `help` it has the diagnostic's.
    """

    flag: str
    metavar: str = ""
    setting: str = ""
    help: str = ""


@dataclass(frozen=True)
class Diagnostic:
    """One row of `DIAGNOSTICS`; its name there is also its key in the evaluation's JSON.

    `measure` takes a `Subject` and returns a `Result`; `read` makes that `Result` again from what
    its `to_dict` gave, and raises `LookupError`, `TypeError`, `ValueError` or `AttributeError` for
    anything else. `help` is one sentence.

    `options`: flags of its own, the first of which asks for it; without any it is asked for with
    `--diagnostic NAME`. `prepare`, in place of `measure`, is called before the attacks, with the
    data set, the `--limit` and the values of the options: it raises an `RpatError` for what would
    fail after hours, and returns the function that measures.
    """

    read: "Callable[[Mapping[str, Any]], Result] | str"
    help: str
    measure: "Measure | str | None" = None
    prepare: "Callable[..., Measure] | str | None" = None
    options: tuple[Option, ...] = ()

    def prepared(
        self,
        data: "Dataset",
        limit: "Limit | None",
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> Measure:
        """The function that measures. Raises what `prepare` raises."""
        if self.prepare is not None:
            return resolved(self.prepare)(data, limit, **settings)
        assert self.measure is not None
        return resolved(self.measure)

    def result(self, saved: Mapping[str, Any]) -> Result:
        """From an evaluation's JSON; raises what `read` raises."""
        return resolved(self.read)(saved)


def resolved(code: T | str) -> T:
    """The object itself, or what "module:attribute.attribute" names."""
    if not isinstance(code, str):
        return code
    module, _, attributes = code.partition(":")
    found: Any = import_module(module)
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    return cast(T, found)
