"""How often a model errs on corrupted images, which nobody chose to fool it (Hendrycks &
Dietterich, ICLR 2019).

The error is measured corruption by corruption and severity by severity; its mean is over the 15
standard corruptions, and apart over the 4 extra ones. The corruption error CE sets a corruption's
errors in relation to those of a baseline
model: CE = sum_s E_s / sum_s E_s(baseline), and mCE is its mean over the 15 (arXiv 1903.12261,
section 3).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import torch
from torch import nn

from rpat_cli.attacks.side_effects import frozen, own_randomness
from rpat_cli.data.corrupted import EXTRA, SEVERITIES, STANDARD, CorruptedImages
from rpat_cli.data.splits import TensorSplit
from rpat_cli.errors import DataError
from rpat_cli.evaluation.verify import predict


@dataclass(frozen=True)
class Corruption:
    """One corruption: the error at severity 1 to 5, as fractions; `ce` only against a baseline that
    has it, too."""

    name: str
    errors: tuple[float, ...]
    ce: float | None = None

    @property
    def mean_error(self) -> float:
        """Over the severities."""
        return fmean(self.errors)


@dataclass(frozen=True)
class Corruptions:
    """What was found on the `n` images of each severity in `folder`. All means are fractions.

    `labels` is a checksum of the labels: only results that have it in common are of the same
    images. `baseline` is the name of the model that `ce` is against.
    """

    folder: str
    n: int
    labels: str
    corruptions: tuple[Corruption, ...]
    baseline: str | None = None

    @property
    def standard(self) -> tuple[Corruption, ...]:
        return tuple(each for each in self.corruptions if each.name in STANDARD)

    @property
    def extra(self) -> tuple[Corruption, ...]:
        return tuple(each for each in self.corruptions if each.name in EXTRA)

    @property
    def mean_error(self) -> float:
        """Over the 15 standard corruptions and all severities."""
        return fmean(each.mean_error for each in self.standard)

    @property
    def extra_mean_error(self) -> float | None:
        """Over the 4 extra corruptions and all severities; None unless all of them are there."""
        return (
            fmean(each.mean_error for each in self.extra) if len(self.extra) == len(EXTRA) else None
        )

    @property
    def mce(self) -> float | None:
        """Mean corruption error over the 15 standard corruptions, 1 being the baseline's own; None
        without one."""
        found = [each.ce for each in self.standard if each.ce is not None]
        return fmean(found) if found else None

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {
            "folder": self.folder,
            "n": self.n,
            "labels": self.labels,
            "mean_error": self.mean_error,
            "extra_mean_error": self.extra_mean_error,
            "baseline": self.baseline,
            "mce": self.mce,
            "corruptions": [
                {
                    "group": "standard" if each.name in STANDARD else "extra",
                    **asdict(each),
                    "errors": list(each.errors),
                    "mean_error": each.mean_error,
                }
                for each in self.corruptions
            ],
        }


@dataclass(frozen=True)
class Baseline:
    """Another model's errors by corruption, on the same images."""

    name: str
    labels: str
    errors: Mapping[str, tuple[float, ...]]

    @classmethod
    def from_dict(cls, name: str, found: Mapping[str, Any]) -> "Baseline":
        """From what `Corruptions.to_dict` gave. Raises `DataError` if it is something else, or
        nothing to divide by."""
        try:
            errors = {
                each["name"]: tuple(map(float, each["errors"])) for each in found["corruptions"]
            }
            labels = str(found["labels"])
        except (KeyError, TypeError, ValueError):
            raise DataError(
                f"the baseline {name} does not hold errors as rpat eval --corruptions writes them."
            ) from None
        lacking = [each for each in STANDARD if len(errors.get(each, ())) != SEVERITIES]
        if lacking:
            raise DataError(
                f"the baseline {name} lacks errors at five severities of: {', '.join(lacking)}."
            )
        perfect = [each for each, values in errors.items() if not sum(values) > 0]
        if perfect:
            raise DataError(
                f"the baseline {name} makes no error on {', '.join(perfect)}: CE, which divides "
                "by it, is not defined. "
                "Choose another baseline or more images."
            )
        return cls(name, labels, errors)

    def check(self, images: CorruptedImages) -> None:
        """Raises `DataError` unless it was measured on these very images."""
        if self.labels != images.fingerprint():
            raise DataError(
                f"the baseline {self.name} was measured on other images than the "
                f"{len(images.labels)} of each severity "
                f"in {images.root}. Measure both on the same corruptions and with the same --limit."
            )

    def ce(self, name: str, errors: Sequence[float]) -> float | None:
        return sum(errors) / sum(self.errors[name]) if name in self.errors else None


def measure_corruptions(
    model: nn.Module,
    images: CorruptedImages,
    *,
    baseline: Baseline | None = None,
    batch_size: int = 250,
    device: torch.device | None = None,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> Corruptions:
    """The errors of a model that takes (B, C, H, W) in [0, 1]; model and generators stay as they
    were.

    `say` is told of every corruption that is done. Raises `DataError` for a baseline of other
    images, `RpatError` for a model without finite logits (B, classes).
    """
    if baseline:
        baseline.check(images)
    device = device or torch.device("cpu")
    found = []
    with frozen(model) as model, own_randomness(device, seed):
        for done, name in enumerate(images.names, 1):
            severities = range(1, SEVERITIES + 1)
            errors = tuple(
                _error(model, images.read(name, severity), batch_size, device)
                for severity in severities
            )
            found.append(Corruption(name, errors, baseline.ce(name, errors) if baseline else None))
            if say:
                say(
                    f"{done}/{len(images.names)}  {name}  mean error "
                    f"{100 * found[-1].mean_error:.2f} %"
                )
    checksum, name_of = images.fingerprint(), baseline.name if baseline else None
    return Corruptions(str(images.root), len(images.labels), checksum, tuple(found), name_of)


def _error(model: nn.Module, split: TensorSplit, batch_size: int, device: torch.device) -> float:
    order = torch.arange(len(split))
    wrong = sum(
        int((predict(model, x) != y).sum()) for x, y in split.batches(order, batch_size, device)
    )
    return wrong / len(split)
