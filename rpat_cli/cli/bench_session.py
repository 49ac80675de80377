"""The body of `rpat bench`: call the benchmark, show the result. Imported when the command runs,
since it needs torch."""

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rpat_cli.benchmark.evaluation import EvaluationTimes, bench_evaluation
from rpat_cli.benchmark.results import Benchmark, machine, record, record_file
from rpat_cli.benchmark.show import page, tables
from rpat_cli.benchmark.training import bench_training
from rpat_cli.cli import console
from rpat_cli.errors import ConfigError
from rpat_cli.loading.named import run_or_path
from rpat_cli.recipe.layers import Layer, layers_of, resolve
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.files import new_file, write_new
from rpat_cli.runs.target import open_target
from rpat_cli.signals import stoppable
from rpat_cli.user_code import speaking_on_stderr

__all__ = ["Wanted", "bench", "layers_of"]

SECONDS, IMAGES, QUICK_IMAGES = 60.0, 500, 20


@dataclass(frozen=True)
class Wanted:
    """What the options of `rpat bench` ask for; see there."""

    training: bool = True
    evaluation: str | None = None
    limit: int | None = None
    attack_batch: int | None = None
    seconds: float | None = None
    quick: bool = False

    @property
    def rounds(self) -> tuple[float, int]:
        """Seconds in which rounds of the training begin, and how many there are at least."""
        if self.seconds is None:
            return (0.0, 1) if self.quick else (SECONDS, 3)
        return self.seconds, 1 if self.quick else 3

    @property
    def images(self) -> int:
        return self.limit or (QUICK_IMAGES if self.quick else IMAGES)


def bench(
    layers: Sequence[Layer],
    wanted: Wanted,
    *,
    record_as: Path | None,
    page_file: Path | None,
    as_json: bool,
) -> None:
    """Measure, print, and write what was asked for."""
    if not wanted.training and wanted.evaluation is None:
        raise ConfigError(
            "--no-training leaves nothing to measure. Add --evaluation RUN, or leave it out."
        )
    # Minutes before they are written.
    if page_file is not None:
        page_file = new_file(page_file, "--page")
    if record_as is not None:
        record_as = new_file(record_file(record_as), "--record")
    with (
        speaking_on_stderr(),
        stoppable("benchmark stopped; nothing was written."),
        console.err.status("getting ready") as status,
    ):
        recipe = resolve(layers)
        done = _measured(recipe, layers, wanted, status.update)
    if as_json:
        print(json.dumps(done.to_dict()))
    else:
        for part in tables(done):
            console.out.print(part)
    if record_as is not None:
        console.say(f"recorded: {record(done, record_as)}")
    if page_file is not None:
        text = page(done, shlex.join(["rpat", *sys.argv[1:]]))
        console.say(f"page: {write_new(page_file, text)}")


def _measured(
    recipe: Recipe, layers: Sequence[Layer], wanted: Wanted, on_turn: Callable[[str], None]
) -> Benchmark:
    here = machine()  # before: its load is that of others
    training = None
    if wanted.training:
        seconds, least = wanted.rounds
        training = bench_training(recipe, seconds=seconds, least=least, on_turn=on_turn)
    target, evaluation = None, None
    if wanted.evaluation is not None:
        target = run_or_path(wanted.evaluation)
        evaluation = _evaluation(target, layers, wanted, on_turn)
    return Benchmark(
        machine=here,
        recipe=recipe.model_dump(mode="json") if training else None,
        training=training,
        target=str(target) if target else None,
        evaluation=evaluation,
    )


def _evaluation(
    target: Path, layers: Sequence[Layer], wanted: Wanted, on_turn: Callable[[str], None]
) -> EvaluationTimes:
    opened = open_target(target, "best", [] if wanted.training else layers)
    images = opened.test_images(wanted.images)
    x, y = (part.to(opened.compute.device) for part in images.tensors())
    return bench_evaluation(
        opened.model,
        x,
        y,
        opened.threat,
        batch_size=wanted.attack_batch,
        seconds=wanted.seconds or 0.0,
        on_turn=on_turn,
    )
