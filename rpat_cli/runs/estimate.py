"""What a training would cost on this device, measured by running a few of its steps. Nothing is
kept or written."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

import torch
from torch import nn

from rpat_cli.data import DATASETS
from rpat_cli.data.base import Dataset, DatasetSpec, Shape
from rpat_cli.data.splits import TensorSplit
from rpat_cli.engine.callback import Callback, StepRecord
from rpat_cli.engine.compute import Compute, seed_everything
from rpat_cli.engine.distributed import parts_of
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.errors import DataError
from rpat_cli.passes import count_passes
from rpat_cli.recipe.schema import Recipe
from rpat_cli.runs.build import (
    architecture_for,
    build_data,
    build_extra,
    build_loop,
    compute_for,
)
from rpat_cli.runs.first_pass import try_network
from rpat_cli.runs.new_run import plan_run
from rpat_cli.text import duration
from rpat_cli.user_code import ascribed

STEPS = 4
"""Steps to run; the first one warms up and is not timed."""

TIME_LIMIT = 20.0
"""Seconds after which no further step is begun."""


@dataclass(frozen=True)
class Estimate:
    """The cost of a training on one device, with everything that the recipe turns on at some epoch.

    `forward` and `backward` are passes per step, of `images_per_pass` images each, including those
    of the attack and of the averaged model. Times are in seconds, memory in bytes. `seconds` is for
    the whole training with its validations, without the final evaluation. `real_data` is false if
    random images were used in place of a data set that is not on this machine.
    """

    forward: int
    backward: int
    images_per_pass: int
    steps_per_epoch: int
    steps: int
    seconds_per_step: float
    seconds: float
    peak_memory: int
    parameters: int
    device: str
    precision: str
    real_data: bool
    run_dir: Path


def dry_run(recipe: Recipe, out: Path | None = None) -> Estimate:
    """Run a few steps of the last epoch, on the data set or on random images of its shape, and
    estimate the cost of the training from them.

    Nothing is downloaded. Raises what `train_run` would: `RunFolderError` if `out` is taken,
    `ConfigError`, `DivergenceError`; and `DataError` for a missing data set whose shape and size
    only its files define.
    """
    folder = plan_run(recipe, out)
    data, images, real = data_or_random(recipe)
    architecture = architecture_for(recipe, data)
    compute = compute_for(recipe, architecture)
    smallest = parts_of(min(recipe.batch_size, len(data.train)), recipe.accumulate)[-1]
    try_network(architecture.build(), architecture, recipe, smallest)
    seed_everything(recipe.seed)
    model = compute.place(architecture.build())
    watch = _Stopwatch()
    extra = build_extra(recipe.data, data)
    loop = build_loop(recipe, data, model, compute, [watch], lambda _: watch.is_done, extra)
    loop.epoch = recipe.epochs - 1  # everything that starts at some epoch has started
    with ascribed(model):
        forward, backward = _counted_run(loop, watch)
    steps_per_epoch = max(1, loop.steps_per_epoch * images // len(data.train))
    steps = steps_per_epoch * recipe.epochs
    images_per_pass = loop.batch_size * loop.views // loop.accumulate
    per_image_and_pass = watch.seconds_per_step / (images_per_pass * (forward + backward))
    validation = _passes_in_validation(recipe, data) * per_image_and_pass
    return Estimate(
        forward=forward,
        backward=backward,
        images_per_pass=images_per_pass,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        seconds_per_step=watch.seconds_per_step,
        seconds=steps * watch.seconds_per_step + validation,
        peak_memory=_peak_memory(compute),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        device=str(compute.device),
        precision=compute.precision,
        real_data=real,
        run_dir=folder.path,
    )


def _counted_run(loop: TrainLoop, watch: "_Stopwatch") -> tuple[int, int]:
    """Run the loop until the watch is done; returns the forward and backward passes per step."""
    device = loop.compute.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    averaged = loop.averaging.model if loop.averaging else nn.Identity()
    with count_passes(loop.model) as passes, count_passes(averaged) as teacher:
        loop.run()
    return (passes.forward + teacher.forward) // watch.steps, passes.backward // watch.steps


@dataclass
class _Stopwatch(Callback):
    """Times the steps after the first; the first only if there is no other."""

    ends: list[float] = field(default_factory=list)

    def on_start(self, loop: TrainLoop) -> None:  # noqa: ARG002
        self.ends.append(time.perf_counter())

    def on_step(self, loop: TrainLoop, record: StepRecord) -> None:  # noqa: ARG002
        self.ends.append(time.perf_counter())

    @property
    def steps(self) -> int:
        return len(self.ends) - 1

    @property
    def is_done(self) -> bool:
        return self.steps >= STEPS or self.ends[-1] - self.ends[0] > TIME_LIMIT

    @property
    def seconds_per_step(self) -> float:
        first = 1 if self.steps > 1 else 0
        return (self.ends[-1] - self.ends[first]) / (self.steps - first)


def data_or_random(recipe: Recipe) -> tuple[Dataset, int, bool]:
    """The data set, or random images in its place; the number of training images; and whether it is
    the data set. Nothing is downloaded."""
    try:
        data = build_data(recipe.data.model_copy(update={"download": False}), recipe.seed)
    except DataError:
        spec = DATASETS[recipe.data.name]
        if spec.train_images is None or spec.shape is None or spec.classes is None:
            raise
        left = spec.train_images - round(_held_out(recipe, spec.train_images))
        return _random(spec, spec.shape, spec.classes, STEPS * recipe.batch_size), left, False
    return data, len(data.train), True


def _held_out(recipe: Recipe, total: int) -> float:
    """How many of `total` training images are validation images."""
    val_size = recipe.data.val_size
    return val_size * total if val_size < 1 else val_size


def _random(spec: DatasetSpec, shape: Shape, classes: int, count: int) -> Dataset:
    """`count` random images, as every split of a data set."""
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8)
    split = TensorSplit(images, torch.arange(count) % classes)
    return Dataset(spec, split, split, split, tuple(map(str, range(classes))), fingerprint="")


def _passes_in_validation(recipe: Recipe, data: Dataset) -> float:
    """Images times passes of all validations: a clean pass, a forward and a backward pass for each
    step of PGD, and a pass on its result."""
    section = recipe.validation
    images: float = len(data.val)
    if data.spec.train_images is not None:  # `data` may be random images, and fewer
        images = _held_out(recipe, data.spec.train_images)
    if section.limit:
        images = min(images, section.limit)
    models = 2 if recipe.wa else 1
    validations = ceil(recipe.epochs / section.every) * models
    return images * validations * (2 * section.steps + 2)


def _peak_memory(compute: Compute) -> int:
    """Peak memory in bytes: the GPU's on CUDA, elsewhere that of this process since it started."""
    if compute.device.type == "cuda":
        return torch.cuda.max_memory_allocated(compute.device)
    import resource  # Windows has no such module

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kibibytes on Linux, bytes on macOS


def lines(estimate: Estimate) -> Iterator[tuple[str, str]]:
    """The estimate for the screen, as pairs of label and text."""
    passes = f"{estimate.forward} forward and {estimate.backward} backward"
    source = "the data set itself"
    if not estimate.real_data:
        source = "random images, since the data set is not on this machine yet"
    yield "network", f"{estimate.parameters / 1e6:.2f} M parameters"
    yield "passes", f"{passes} per step, of {estimate.images_per_pass} images each"
    yield "steps", f"{estimate.steps:,} ({estimate.steps_per_epoch:,} per epoch)"
    yield (
        "speed",
        f"{estimate.seconds_per_step:.3g} s per step on {estimate.device}, {estimate.precision}, "
        f"with {source}",
    )
    whole = duration(estimate.seconds)
    yield "time", f"about {whole} with validation, without the final evaluation"
    yield "memory", f"{estimate.peak_memory / 2**30:.2f} GiB at most"
    yield "run", str(estimate.run_dir)
