"""The error on corrupted images: noise, blur, weather and compression, not made to fool a model.

Hendrycks & Dietterich, Benchmarking neural network robustness to common corruptions and
perturbations, ICLR 2019 (arXiv 1903.12261). The error is measured for each corruption and severity;
its mean is over the 15 standard corruptions, and separately over the 4 extra ones. The corruption
error CE relates a corruption's errors to those of a baseline model: CE = sum_s E_s / sum_s
E_s(baseline), and mCE is its mean over the 15 (section 3).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn

from rpat_cli.attacks.side_effects import frozen, own_randomness
from rpat_cli.data.base import Dataset
from rpat_cli.data.choice import Limit
from rpat_cli.data.corrupted import (
    EXTRA,
    SEVERITIES,
    STANDARD,
    CorruptedImages,
    open_corrupted,
)
from rpat_cli.data.splits import TensorSplit
from rpat_cli.diagnostics.base import Measure, Result, Subject
from rpat_cli.diagnostics.blocks import Cells, Section, Table, columns
from rpat_cli.errors import DataError, RunFolderError
from rpat_cli.evaluation.verify import predict
from rpat_cli.records import eval_file
from rpat_cli.records.run_folder import RunFolder, open_run
from rpat_cli.text import count, percent

KEY = "corruptions"
"""The name of this diagnostic, and its key in an evaluation's JSON."""


@dataclass(frozen=True)
class Corruption:
    """One corruption: the errors at severity 1 to 5, as fractions, and `ce` if there is a baseline
    that has it too."""

    name: str
    errors: tuple[float, ...]
    ce: float | None = None

    @property
    def mean_error(self) -> float:
        """Over the severities."""
        return fmean(self.errors)

    def to_dict(self) -> dict[str, Any]:
        return {
            "group": "standard" if self.name in STANDARD else "extra",
            **asdict(self),
            "errors": list(self.errors),
            "mean_error": self.mean_error,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Corruption":
        return cls(values["name"], tuple(values["errors"]), values["ce"])


@dataclass(frozen=True)
class Corruptions(Result):
    """The errors on `n` images of each severity in `folder`. All means are fractions.

    `labels` and `pixels` are checksums: only results with equal ones are of the same images.
    Results of earlier versions have no `pixels`. `baseline` is the name of the model that `ce` is
    relative to.
    """

    folder: str
    n: int
    labels: str
    corruptions: tuple[Corruption, ...]
    baseline: str | None = None
    pixels: str = ""

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
        if len(self.extra) < len(EXTRA):
            return None
        return fmean(each.mean_error for each in self.extra)

    @property
    def mce(self) -> float | None:
        """Mean corruption error over the 15 standard corruptions, 1 being the baseline's own; None
        without one."""
        found = [each.ce for each in self.standard if each.ce is not None]
        return fmean(found) if found else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "folder": self.folder,
            "n": self.n,
            "labels": self.labels,
            "pixels": self.pixels,
            "mean_error": self.mean_error,
            "extra_mean_error": self.extra_mean_error,
            "baseline": self.baseline,
            "mce": self.mce,
            "corruptions": [each.to_dict() for each in self.corruptions],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Corruptions":
        """What `to_dict` gave. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        corruptions = tuple(map(Corruption.from_dict, values["corruptions"]))
        found = cls(
            values["folder"],
            values["n"],
            values["labels"],
            corruptions,
            values["baseline"],
            values.get("pixels", ""),
        )
        if len(found.standard) != len(STANDARD):
            raise ValueError(f"there are only {len(found.standard)} of the standard corruptions")
        return found

    def section(self) -> Section:
        source = "Hendrycks & Dietterich, ICLR 2019 (arXiv 1903.12261)"
        note = f"Error in percent by severity, on {count(self.n)} images each. {source}."
        names = [*map(str, range(1, SEVERITIES + 1)), "mean"]
        if self.baseline:
            names.append("CE")
            note += (
                f" CE: the errors as percent of those of {self.baseline}; its mean over the "
                f"{len(STANDARD)} is mCE."
            )
        rows = [
            *self._rows(self.standard, f"mean of the {len(STANDARD)}", self.mean_error, self.mce),
            *self._rows(self.extra, f"mean of the {len(EXTRA)} extra", self.extra_mean_error, None),
        ]
        table = Table(columns(["corruption"], names), tuple(rows), note)
        return Section("Corrupted images", self.n, (table,), detail=self.folder)

    def _rows(
        self, group: Sequence[Corruption], title: str, mean: float | None, mce: float | None
    ) -> list[Cells]:
        """Those of one group, and their mean, `title`, unless some of them are missing."""
        rows = [self._row(each.name, each.errors, each.mean_error, each.ce) for each in group]
        if mean is None:
            return rows
        by_severity = [fmean(errors) for errors in zip(*(c.errors for c in group), strict=True)]
        return [*rows, self._row(title, by_severity, mean, mce, strong=True)]

    def _row(
        self,
        name: str,
        errors: Sequence[float],
        mean: float,
        ce: float | None,
        *,
        strong: bool = False,
    ) -> Cells:
        relative = [percent(ce)] if self.baseline else []
        return Cells((name, *map(percent, errors), percent(mean), *relative), strong=strong)


@dataclass(frozen=True)
class Baseline:
    """Another model's errors by corruption, on the same images."""

    name: str
    labels: str
    errors: Mapping[str, tuple[float, ...]]
    pixels: str = ""

    @classmethod
    def from_dict(cls, name: str, found: Mapping[str, Any]) -> "Baseline":
        """From what `Corruptions.to_dict` gave. Raises `DataError` if it is something else, or has
        errors of 0, which nothing can be divided by."""
        try:
            errors = {}
            for each in found["corruptions"]:
                errors[each["name"]] = tuple(map(float, each["errors"]))
            labels, pixels = str(found["labels"]), str(found.get("pixels", ""))
        except (KeyError, TypeError, ValueError):
            raise DataError(
                f"the baseline {name} does not hold errors as rpat eval --corruptions writes them."
            ) from None
        lacking = [each for each in STANDARD if len(errors.get(each, ())) != SEVERITIES]
        if lacking:
            raise DataError(
                f"the baseline {name} has no errors at five severities of: {', '.join(lacking)}."
            )
        perfect = [each for each, values in errors.items() if not sum(values) > 0]
        if perfect:
            raise DataError(
                f"the baseline {name} makes no error on {', '.join(perfect)}: CE, which divides "
                "by it, is not defined. Choose another baseline or more images."
            )
        return cls(name, labels, errors, pixels)

    def check(self, images: CorruptedImages) -> None:
        """Raises `DataError` unless it was measured on the same images."""
        other_pixels = self.pixels and self.pixels != images.pixels()
        if self.labels != images.fingerprint() or other_pixels:
            raise DataError(
                f"the baseline {self.name} was measured on other images than the "
                f"{len(images.labels)} of each severity in {images.root}. Measure both on the same "
                "corruptions and with the same --limit."
            )

    def ce(self, name: str, errors: Sequence[float]) -> float | None:
        return sum(errors) / sum(self.errors[name]) if name in self.errors else None


def prepare(
    data: Dataset, limit: Limit | None, *, folder: Path, baseline: Path | None = None
) -> Measure:
    """The diagnostic: errors on the corrupted images in `folder`, of which `limit` are chosen.

    `baseline` is an evaluation that has this diagnostic in it, or a run, of which the newest such
    evaluation is taken. What is wrong with the files or the baseline is raised here already:
    `DataError` and `RunFolderError`.
    """
    labels, classes = data.test.labels, data.classes
    images = open_corrupted(
        folder, shape=data.shape, test_labels=labels, classes=classes, limit=limit
    )
    other = _read_baseline(baseline) if baseline else None
    if other:
        other.check(images)
    return partial(measure, images=images, baseline=other)


def measure(s: Subject, *, images: CorruptedImages, baseline: Baseline | None) -> Corruptions:
    return measure_corruptions(
        s.model, images, baseline=baseline, device=s.device, seed=s.seed, say=s.say
    )


def _read_baseline(path: Path) -> Baseline:
    if path.is_dir():
        folder = RunFolder(path)
        # The folder of a model that rpat has not trained has evaluations, but no recipe.
        evals = folder.evals if folder.evals.is_dir() else open_run(path).evals
        files, _ = eval_file.read_all(evals)
    else:
        files = [eval_file.read(path)]
    for file in reversed(files):
        if found := file.diagnostic(KEY):
            return Baseline.from_dict(str(path), found)
    raise RunFolderError(
        f"{path} holds no errors on corrupted images to compare with. Give the run, or the "
        "evaluation's JSON, of a model that was measured with rpat eval --corruptions."
    )


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

    `say` gets a line for every corruption that is done. Raises `DataError` for a baseline of other
    images, `RpatError` for a model without finite logits (B, classes).
    """
    if baseline:
        baseline.check(images)
    device = device or torch.device("cpu")
    severities = range(1, SEVERITIES + 1)
    found: list[Corruption] = []
    with frozen(model) as model, own_randomness(device, seed):
        for name in images.names:
            parts = (images.read(name, severity) for severity in severities)
            errors = tuple(_error(model, part, batch_size, device) for part in parts)
            ce = baseline.ce(name, errors) if baseline else None
            found.append(Corruption(name, errors, ce))
            if say:
                done = f"{len(found)}/{len(images.names)}"
                say(f"{done}  {name}  mean error {percent(found[-1].mean_error)} %")
    name_of = baseline.name if baseline else None
    return Corruptions(
        folder=str(images.root),
        n=len(images.labels),
        labels=images.fingerprint(),
        corruptions=tuple(found),
        baseline=name_of,
        pixels=images.pixels(),
    )


def _error(model: nn.Module, split: TensorSplit, batch_size: int, device: torch.device) -> float:
    order = torch.arange(len(split))
    wrong = sum(
        int((predict(model, x) != y).sum()) for x, y in split.batches(order, batch_size, device)
    )
    return wrong / len(split)
