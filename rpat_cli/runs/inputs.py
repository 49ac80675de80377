"""What a training needs besides its folder: recipe, device, images and ranks; and how epochs are
validated."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from rpat_cli.data.base import Dataset
from rpat_cli.data.parts import PartsSplit
from rpat_cli.data.reading import Images
from rpat_cli.engine.callback import Callback
from rpat_cli.engine.callbacks import Validation
from rpat_cli.engine.collapse import CollapseGuard, Watched
from rpat_cli.engine.compute import Compute, resolve_compute
from rpat_cli.engine.distributed import ALONE, Ranks, parts_of
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.parallel.group import own_gpu
from rpat_cli.evaluation.parallel.ranks import Together
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.loading.architecture import Architecture
from rpat_cli.loading.start import Start
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.metrics import EpochRecord
from rpat_cli.records.segments import Segment, segment_of, with_next
from rpat_cli.runs.build import (
    architecture_for,
    build_data,
    build_extra,
    build_stronger_attack,
    build_threat,
    compute_for,
)
from rpat_cli.runs.target import limited

VALIDATION_BATCH = 250
"""Images per pass in validation. It follows neither device nor `--jobs`, so that which epoch is the
best does not depend on them."""


WATCH = "clean,fgsm,pgd-10"
"""What the collapse guard compares: one step of eps, and many."""

WATCHED_IMAGES = 200
"""Validation images that it does so on."""


@dataclass(frozen=True)
class Inputs:
    """What a training needs besides its folder. `start` are the weights that it begins with, where
    they are not random."""

    recipe: Recipe
    compute: Compute
    data: Dataset
    extra: PartsSplit | None
    ranks: Ranks = ALONE
    start: Start | None = None

    @classmethod
    def of(cls, recipe: Recipe, ranks: Ranks = ALONE, start: Start | None = None) -> "Inputs":
        """Choose the device and read the data. Raises `ConfigError` and `DataError`; the former
        also for batches that the ranks cannot share."""
        # What this machine lacks is found before the data are read.
        device = resolve_compute(recipe.device, recipe.precision).device
        _check_sync_bn(recipe, device)
        if ranks.size > 1 and device.type == "cuda":
            torch.cuda.set_device(own_gpu())  # from here on "cuda" means this one
        data = build_data(recipe.data, recipe.seed)
        compute = compute_for(recipe, architecture_for(recipe, data))
        inputs = cls(recipe, compute, data, build_extra(recipe.data, data), ranks, start)
        inputs.smallest_slice  # noqa: B018  (raises)
        return inputs

    @property
    def smallest_slice(self) -> int:
        """The fewest images that a forward pass of the training gets. Raises `ConfigError` if that
        is none."""
        images = min(self.recipe.batch_size, len(self.data.train))
        return parts_of(images, self.recipe.accumulate, self.ranks)[-1] // self.ranks.size

    @cached_property
    def architecture(self) -> Architecture:
        return architecture_for(self.recipe, self.data)

    @cached_property
    def images(self) -> dict[str, str]:
        """The fingerprints of all images that the training sees, by where they come from."""
        extra = {} if self.extra is None else {"data.extra": self.extra.fingerprint()}
        return {"data": self.data.train_fingerprint, **extra}

    def segments(
        self, state: Mapping[str, Any] | None = None, before: Sequence[Segment] = ()
    ) -> list[Segment]:
        """Those of the run once it goes on here: those before, and one from where the content of
        its last checkpoint ends."""
        epoch, step = (state["training"][key] for key in ("epoch", "step")) if state else (0, 0)
        device = self.compute.device.type
        threads = torch.get_num_threads() if device == "cpu" else None
        recipe = self.recipe.model_dump(mode="json")
        new = segment_of(
            recipe,
            epoch,
            step,
            device=device,
            threads=threads,
            ranks=self.ranks.size,
            precision=self.compute.precision,
        )
        return with_next(before, new)


def _check_sync_bn(recipe: Recipe, device: torch.device) -> None:
    if recipe.sync_bn and device.type != "cuda":
        message = (
            "torch synchronizes BatchNorm on CUDA devices only, and this training is on "
            f"{device.type}."
        )
        hint = "Leave it out: each rank then takes the statistics of its slice of the batch."
        raise ConfigError(Problem("sync_bn", message, hint=hint))


def validating(
    inputs: Inputs, on_best: Callable[[str, nn.Module, EpochRecord], None]
) -> Validation:
    """The validations of a training, which all ranks share."""
    validate = _validator(inputs.recipe, inputs.data, inputs.compute, inputs.ranks)
    return Validation(validate, inputs.recipe.validation.every, on_best)


def _validator(
    recipe: Recipe, data: Dataset, compute: Compute, ranks: Ranks = ALONE
) -> Callable[[nn.Module], dict[str, float]]:
    """From a model to its clean and robust accuracy (fractions) on the validation images."""
    suite = f"clean,pgd-{recipe.validation.steps}"
    accuracies = _accuracies(recipe, data, compute, ranks, suite, recipe.validation.limit)

    def validate(model: nn.Module) -> dict[str, float]:
        clean, robust = accuracies(model)
        return {"clean_acc": clean, "robust_acc": robust}

    return validate


def guarding(inputs: Inputs, say: Callable[[str], None]) -> list[Callback]:
    """The collapse guard of a training, which all ranks share, unless it is off."""
    recipe, ranks = inputs.recipe, inputs.ranks
    if (action := recipe.action_on_collapse()) == "off":
        return []
    accuracies = _accuracies(recipe, inputs.data, inputs.compute, ranks, WATCH, WATCHED_IMAGES)
    stronger = build_stronger_attack(recipe)
    guard = CollapseGuard(lambda model: Watched(*accuracies(model)[1:]), action, stronger, say)
    return [guard]


def _accuracies(
    recipe: Recipe, data: Dataset, compute: Compute, ranks: Ranks, suite: str, limit: int | None
) -> Callable[[nn.Module], list[float]]:
    """From a model to its accuracies (fractions) under each attack of the suite, `clean` among
    them, on the validation images, or the first of them."""
    images = data.val if limit is None else limited(data.val, limit)
    images = images.to("cpu")  # small sets are read from disk once, not after every epoch
    specs = parse_suite(suite)
    threat = build_threat(recipe)

    def measure(model: nn.Module) -> list[float]:
        result = evaluate(
            model,
            Images(images),
            images.labels,
            specs,
            threat,
            batch_size=VALIDATION_BATCH,
            device=compute.device,
            seed=recipe.seed,
            workers=Together() if ranks.size > 1 else None,
        )
        return [each.accuracy.value for each in result.results]

    return measure
