"""How long a step of a recipe's training takes here: the published order of work, ours exact, ours
fast, and the floors of both."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from rpat_cli.attacks.pgd import PGD
from rpat_cli.benchmark.floor import Floor, recorded
from rpat_cli.benchmark.pipeline import InBatches, OneByOne
from rpat_cli.benchmark.published import ORDERS, PublishedOrder, WholeBackward
from rpat_cli.benchmark.race import Contestant, OnTurn, Spread, Times, busy, race, silent
from rpat_cli.data.base import Dataset
from rpat_cli.engine.callback import Callback, StepRecord
from rpat_cli.engine.compute import Compute, seed_everything
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.loading.architecture import Architecture
from rpat_cli.recipe.schema import Recipe
from rpat_cli.runs.build import (
    architecture_for,
    build_attack,
    build_extra,
    build_loop,
    build_method,
    build_optimizer,
    build_threat,
    compute_for,
)
from rpat_cli.runs.estimate import data_or_random

FLOOR = "floor of "
PUBLISHED, EXACT, FAST = "published", "exact", "fast"

TORCH_ROUNDS = (
    "the published order computes its convolutions in TF32, as torch does on this GPU unless it is "
    "told not to; --precision tf32 lets exact do the same."
)


@dataclass(frozen=True)
class Row:
    """One contestant. Times are for one step, in seconds; memory is in bytes.

    `to_floor`: the time in units of the bare passes at the same precision and memory format, by the
    clock and by the processor; `speedup`: that of the published order in units of this one's. Both
    are medians of rounds. `shares`: of the step's time (on a CPU the processor's) in passes, data
    and bookkeeping.
    """

    name: str
    precision: str
    seconds: Spread
    cpu_seconds: Spread
    images_per_second: float
    seconds_per_epoch: float
    peak_memory: int | None
    to_floor: Spread | None = None
    to_floor_cpu: Spread | None = None
    speedup: Spread | None = None
    speedup_cpu: Spread | None = None
    shares: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            key: value.to_dict() if isinstance(value, Spread) else value
            for key, value in self.__dict__.items()
        }


@dataclass(frozen=True)
class TrainingTimes:
    """What was measured: a row for each contestant, seconds per batch of both data paths and their
    ratio, and the passes of a step by kind."""

    rows: tuple[Row, ...]
    data: Mapping[str, Spread]
    data_ratio: Spread
    passes: Mapping[str, int]
    batch: tuple[int, ...]
    steps_per_epoch: int
    real_data: bool
    remarks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "rows": [row.to_dict() for row in self.rows],
            "data": {name: spread.to_dict() for name, spread in self.data.items()},
            "data_ratio": self.data_ratio.to_dict(),
            "batch": list(self.batch),
            "remarks": list(self.remarks),
        }


@dataclass
class OurSteps(Callback):
    """Steps of our loop, in the last epoch: whatever starts at some epoch has started; a
    contestant."""

    name: str
    recipe: Recipe
    data: Dataset
    compute: Compute
    architecture: Architecture

    def __post_init__(self) -> None:
        model = self.compute.place(self.architecture.build())
        extra = build_extra(self.recipe.data, self.data)
        self._left = 0
        self.loop = build_loop(
            self.recipe, self.data, model, self.compute, [self], lambda _: self._left <= 0, extra
        )

    @property
    def device(self) -> torch.device:
        return self.compute.device

    @property
    def networks(self) -> dict[str, nn.Module]:
        loop = self.loop
        averaged = {"teacher": loop.averaging.model} if loop.averaging else {}
        return {"model": loop.model, **averaged, **loop.networks.by_name()}

    def on_step(self, loop: TrainLoop, record: StepRecord) -> None:  # noqa: ARG002
        self._left -= 1

    def run(self, steps: int) -> None:
        while steps > 0:
            self._left = min(steps, self.loop.steps_per_epoch)
            steps -= self._left
            self.loop.epoch, self.loop.step = self.recipe.epochs - 1, 0
            self.loop.run()

    def floor(self) -> Floor:
        """The bare passes of one of its steps, on the same networks."""
        with recorded(self.networks) as passes:
            self.run(1)
        return Floor(f"{FLOOR}{self.name}", passes, self.networks, self.compute)


def fast_precision(recipe: Recipe) -> str:
    """The recipe's own, where that is reduced; otherwise bfloat16."""
    return recipe.precision if recipe.precision in ("bf16", "fp16") else "bf16"


def exact_precision(recipe: Recipe) -> str:
    """The recipe's own, where that is TF32; otherwise float32."""
    return recipe.precision if recipe.precision == "tf32" else "fp32"


def bench_training(
    recipe: Recipe,
    *,
    seconds: float = 60.0,
    least: int = 3,
    on_turn: OnTurn = silent,
) -> TrainingTimes:
    """Race the contestants for some `seconds`, at least `least` rounds.

    Nothing is downloaded: random images stand in for a data set that is not on this machine. Raises
    what `rpat train` would raise for the recipe.
    """
    data, images, real = data_or_random(recipe)
    architecture = architecture_for(recipe, data)
    seed_everything(recipe.seed)
    exact = _ours(EXACT, recipe, exact_precision(recipe), data, architecture)
    fast = _ours(FAST, recipe, fast_precision(recipe), data, architecture)
    floors = [each.floor() for each in (exact, fast)]
    one_by_one = _one_by_one(recipe, exact)
    published, remarks = _published(recipe, exact, one_by_one)
    contestants: list[Contestant] = [*published, exact, floors[0], fast, floors[1]]
    times = race(contestants, seconds=seconds, least=least, on_turn=on_turn)
    ours = InBatches(
        exact.data.train.to(exact.device),
        exact.loop.augment,
        recipe.batch_size,
        exact.loop.views,
        exact.device,
    )
    paths = race([ours, one_by_one], seconds=seconds / 10, least=least, on_turn=on_turn)
    on_cpu = exact.device.type == "cpu"
    torchs = _precision_of_torch(exact.device)
    if published and torchs != "fp32" and exact.compute.precision == "fp32":
        remarks.append(TORCH_ROUNDS)
    if on_cpu and (remark := busy(times[EXACT], torch.get_num_threads())):
        remarks.append(remark)
    steps_per_epoch = max(1, exact.loop.steps_per_epoch * images // len(data.train))
    table = _Table(
        times,
        {EXACT: exact.compute.precision, FAST: fast.compute.precision, PUBLISHED: torchs},
        {EXACT: paths[ours.name], FAST: paths[ours.name], PUBLISHED: paths[one_by_one.name]},
        recipe.batch_size,
        steps_per_epoch,
        on_cpu,
    )
    return TrainingTimes(
        rows=tuple(map(table.row, times)),
        data={name: Spread.of(found.seconds) for name, found in paths.items()},
        data_ratio=paths[one_by_one.name].over(paths[ours.name]),
        passes=Counter(each.kind for each in floors[0].passes),
        batch=(recipe.batch_size, *data.shape),
        steps_per_epoch=steps_per_epoch,
        real_data=real,
        remarks=tuple(remarks),
    )


def _precision_of_torch(device: torch.device) -> str:
    """That of convolutions in float32, unless torch is told otherwise."""
    if device.type != "cuda" or torch.version.hip or not torch.backends.cudnn.allow_tf32:
        return "fp32"
    return "tf32" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"


def _ours(
    name: str, recipe: Recipe, precision: str, data: Dataset, architecture: Architecture
) -> OurSteps:
    recipe = recipe.model_copy(update={"precision": precision, "fast": name == FAST})
    compute = compute_for(recipe, architecture)
    return OurSteps(name, recipe, data, compute, architecture)


def _one_by_one(recipe: Recipe, exact: OurSteps) -> OneByOne:
    # On a GPU the processor is free to prepare batches; on a CPU every process would take from the
    # training what it gives to the data.
    workers = 4 if exact.device.type == "cuda" else 0
    names = [name for spec in recipe.data.augment for name in _names(spec)]
    return OneByOne(
        exact.data.train, names, recipe.batch_size, exact.loop.views, exact.device, workers
    )


def _names(spec: Any) -> list[str]:
    """Of an augmentation as a recipe writes it."""
    return [spec.partition(":")[0]] if isinstance(spec, str) else list(spec)


def _published(
    recipe: Recipe, exact: OurSteps, batches: OneByOne
) -> tuple[list[PublishedOrder], list[str]]:
    """The published code's order of work, or a remark why there is none for this recipe."""
    attack = build_attack(recipe.attack, build_threat(recipe))
    if recipe.method.name not in ORDERS or not isinstance(attack, PGD):
        return [], [
            f"there is no published order of work of {recipe.method.name} with {recipe.attack.name}"
            f" here; there is of {', '.join(ORDERS)}, with pgd."
        ]
    model = exact.architecture.build().to(exact.device)
    method = build_method(recipe)
    base: Any = method.method
    as_published = replace(base, **ORDERS[recipe.method.name])
    return [
        PublishedOrder(
            model=model,
            method=replace(method, method=as_published),
            attack=WholeBackward(attack),
            optimizer=build_optimizer(recipe.optimizer, model.parameters()),
            batches=batches,
            averaging=recipe.wa.of(model, recipe.epochs) if recipe.wa else None,
            epoch=recipe.epochs - 1,
        )
    ], []


@dataclass(frozen=True)
class _Table:
    """What the rows are made of: times by contestant, precisions, the times of the data paths."""

    times: Mapping[str, Times]
    precisions: Mapping[str, str]
    data: Mapping[str, Times]
    batch_size: int
    steps_per_epoch: int
    on_cpu: bool

    def row(self, name: str) -> Row:
        own, contestant = self.times[name], name.removeprefix(FLOOR)
        floor, published = self.times.get(f"{FLOOR}{name}"), self.times.get(PUBLISHED)
        seconds = Spread.of(own.seconds)
        return Row(
            name=name,
            precision=self.precisions[contestant],
            seconds=seconds,
            cpu_seconds=Spread.of(own.cpu_seconds),
            images_per_second=self.batch_size / seconds.median,
            seconds_per_epoch=self.steps_per_epoch * seconds.median,
            peak_memory=own.peak_memory,
            to_floor=own.over(floor) if floor else None,
            to_floor_cpu=own.cpu_over(floor) if floor else None,
            speedup=published.over(own) if published else None,
            speedup_cpu=published.cpu_over(own) if published else None,
            shares=self._shares(name),
        )

    def _shares(self, name: str) -> dict[str, float]:
        if name not in self.data:
            return {}
        step = self._median(self.times[name])
        shares = {"data": self._median(self.data[name]) / step}
        if floor := self.times.get(f"{FLOOR}{name}"):
            shares["passes"] = self._median(floor) / step
            shares["bookkeeping"] = 1 - sum(shares.values())
        return shares

    def _median(self, times: Times) -> float:
        """Of processor time on a CPU, which other programs hardly change."""
        return Spread.of(times.cpu_seconds if self.on_cpu else times.seconds).median
