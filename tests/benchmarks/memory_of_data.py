"""Does memory grow with the data? Peak resident memory of what rpat does on folders of image files
and on extra data in parts, each in a process of its own.

    python tests/benchmarks/memory_of_data.py folders --images 20000
    python tests/benchmarks/memory_of_data.py extra --gigabytes 5
    python tests/benchmarks/memory_of_data.py epochs

`folders` makes that many JPEG files, and once more as many, and compares both with a run on 100:
a step of training, validation, evaluation with PGD, and the verdict of --check. `extra` trains for
some steps without and with generated images in parts. `epochs` looks for what 200 epochs leave
behind. Nothing that is made stays.
"""

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

PIXELS = 64
CLASSES = 10
EMPTY = 100
"""Images of the run that all others are compared with."""

STEPS = 20
PARTS = 4


def peak_mb() -> float:
    """The most that this process has had in memory. Not `getrusage`, whose figure begins with that
    of the process which started this one."""
    return _status_mb("VmHWM")


def now_mb() -> float:
    return _status_mb("VmRSS")


def _status_mb(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this needs Linux")


def level(number: int) -> float:
    """The mean of the pixels of a class."""
    return (number + 0.5) / CLASSES


def write_jpegs(root: Path, images: int) -> Path:
    """They are the training images and the test images, too."""
    from PIL import Image

    random = np.random.RandomState(images)
    for index in range(images):
        path = root / "train" / f"class{index % CLASSES}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = random.randint(-4, 5, (8, 8, 3))
        coarse = Image.fromarray((255 * level(index % CLASSES) + noise).astype(np.uint8))
        coarse.resize((PIXELS, PIXELS)).save(path, quality=85)
    (root / "test").symlink_to("train")
    return root


def write_parts(root: Path, gigabytes: float) -> list[Path]:
    """Images of CIFAR's shape, in stored .npz files: a block of noise, over and over."""
    random = np.random.RandomState(0)
    count = int(gigabytes * 1e9 / PARTS / 3072)
    block = random.randint(0, 256, (10_000, 32, 32, 3), dtype=np.uint8)
    paths = []
    for part in range(PARTS):
        folder = root / f"part{part}"
        folder.mkdir(parents=True)
        images = np.lib.format.open_memmap(folder / "image.npy", "w+", np.uint8, (count, 32, 32, 3))
        for start in range(0, count, len(block)):
            images[start : start + len(block)] = block[: count - start]
        del images
        np.save(folder / "label.npy", random.randint(0, CLASSES, count))
        paths.append(folder)
    return paths


def recipe_for(root: Path, data: Mapping[str, Any], **keys: Any) -> Any:
    from rpat_cli.recipe.layers import Layer, resolve

    images = {"name": "imagefolder", "root": str(root), "image_size": PIXELS, **data}
    return resolve([Layer("benchmark", {"data": images, "model": "small-cnn", **keys})])


def train_one_step(root: Path, **data: Any) -> None:
    """`data`: keys of that section of the recipe."""
    from rpat_cli.runs.build import build_loop
    from rpat_cli.runs.inputs import Inputs

    inputs = Inputs.of(recipe_for(root, data, batch_size=64, attack={"steps": 1}))
    model = inputs.compute.place(inputs.architecture.build())
    build_loop(inputs.recipe, inputs.data, model, inputs.compute, [], lambda _: True).run()


def validate(root: Path, **data: Any) -> None:
    from rpat_cli.runs.inputs import Inputs, validating

    keys = {"val_size": 0.25, **data}
    inputs = Inputs.of(recipe_for(root, keys, validation={"steps": 1}))
    validating(inputs, lambda *_: None).validate(linear_model())


def linear_model() -> Any:
    """Tells the classes apart by their mean, robustly: so that every batch of an attack is full,
    however many images there are. It leaves most of the memory to the images."""
    import torch
    from torch import nn

    levels = torch.tensor([level(number) for number in range(CLASSES)])
    linear = nn.Linear(3, CLASSES)
    # (mean - level)^2 is least where 2 level mean - level^2 is largest.
    linear.weight = nn.Parameter((2 * levels / 3).repeat(3, 1).T.contiguous())
    linear.bias = nn.Parameter(-levels.square())
    return nn.Sequential(nn.AvgPool2d(PIXELS), nn.Flatten(), linear)


def evaluate(root: Path, attacks: str = "pgd-1", check: bool = False, **data: Any) -> None:
    from rpat_cli.evaluation.suite import parse_suite
    from rpat_cli.recipe.layers import Layer
    from rpat_cli.runs.evaluate import EvalOptions, measure_run

    images = {"name": "imagefolder", "root": str(root), "image_size": PIXELS, **data}
    measure_run(
        linear_model(),
        parse_suite(attacks),
        diagnostics={"verdict": {}} if check else {},
        changes=[Layer("benchmark", {"data": images})],
        options=EvalOptions(out=root / "out"),
    )


def check(root: Path, **data: Any) -> None:
    evaluate(root, "clean", check=True, **data)


TASKS: dict[str, Callable[..., None]] = {
    "train one step": train_one_step,
    "validate": validate,
    "evaluate with PGD": evaluate,
    "check": check,
}


def peaks_of_all(root: Path) -> dict[str, float]:
    """Of each task by itself, all in this process, which alone decodes, on images that stay on
    disk."""
    from rpat_cli.diagnostics.verdict.probe import gather

    gather.__kwdefaults__.update(images=50, square_queries=20, substitute_queries=100)
    peaks = {}
    for name, task in TASKS.items():
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins at what is in use now
        task(root, memory_budget_gb=0, workers=0)
        peaks[name] = peak_mb()
        print(f"{name}: {peaks[name]:.0f} MB", file=sys.stderr)
    return peaks


def train_on_extra(paths: list[str]) -> float:
    """Seconds of processor time per step of small-cnn on random images of CIFAR's shape, median:
    unlike the clock's, they do not depend on what else the machine does."""
    import torch

    from rpat_cli.data.base import Dataset
    from rpat_cli.data.cifar import CIFAR10
    from rpat_cli.data.splits import TensorSplit
    from rpat_cli.engine.compute import resolve_compute
    from rpat_cli.recipe.layers import Layer, resolve
    from rpat_cli.runs.build import architecture_for, build_extra, build_loop

    extra = {"path": paths or None}
    data = {"name": "cifar10", "extra": extra}
    recipe = resolve([Layer("benchmark", {"data": data, "model": "small-cnn", "epochs": 1})])
    pixels = torch.randint(0, 256, (20_000, 3, 32, 32), dtype=torch.uint8)
    split = TensorSplit(pixels, torch.arange(20_000) % CLASSES)
    dataset = Dataset(CIFAR10, split, split, split, tuple("abcdefghij"), "")
    compute = resolve_compute("cpu", "fp32")
    model = compute.place(architecture_for(recipe, dataset).build())
    times = [time.process_time()]

    def should_stop(loop: Any) -> bool:
        times.append(time.process_time())
        return bool(loop.step >= STEPS)

    images = build_extra(recipe.data, dataset)
    build_loop(recipe, dataset, model, compute, [], should_stop, images).run()
    return float(np.median(np.diff(times)))


def memory_by_epoch(folder: Path, epochs: int = 200) -> list[float]:
    """MB in use after each epoch of a training of one short step per epoch, with validation and
    checkpoints: whatever stays behind after an epoch adds up."""
    import rpat_cli as rpat

    found = []

    def note(line: str) -> None:
        if line.startswith("epoch"):
            gc.collect()
            found.append(now_mb())

    rpat.train(
        data={"name": "fashion-mini", "val_size": 1900},
        **{"epochs": epochs, "batch_size": 100, "attack": {"steps": 1}, "eval": "clean"},
        validation={"limit": 50, "steps": 1},
        out=folder / "run",
        say=note,
    )
    return found


def measured(task: str, argument: str) -> Any:
    """Runs this file for one task, in a process of its own."""
    command = [sys.executable, __file__, "run", task, argument]
    # With glibc's own, changing threshold some of what is freed stays, and the peak is of chance.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def folders(images: int) -> dict[str, dict[str, float]]:
    """Peak MB by task: of a run on few images, and what more of them add."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"empty": EMPTY, "once": images, "twice": 2 * images}
        roots = {name: write_jpegs(Path(folder, name), size) for name, size in sizes.items()}
        for task in TASKS:
            found[task] = {
                name: measured(task, str(root))["peak_mb"] for name, root in roots.items()
            }
    return found


def extra(gigabytes: float, where: Path | None) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory(dir=where) as folder:
        paths = ",".join(map(str, write_parts(Path(folder), gigabytes)))
        return {
            name: measured("extra", argument)
            for name, argument in (("without", ""), ("with", paths))
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("folders").add_argument("--images", type=int, default=20_000)
    with_parts = commands.add_parser("extra")
    with_parts.add_argument("--gigabytes", type=float, default=5)
    with_parts.add_argument("--where", type=Path, help="a folder with enough space")
    commands.add_parser("epochs")
    run = commands.add_parser("run")
    run.add_argument("task")
    run.add_argument("argument")
    given = parser.parse_args()
    if given.command == "folders":
        for task, peaks in folders(given.images).items():
            more = {name: f"{peak - peaks['empty']:+.0f}" for name, peak in peaks.items()}
            print(f"{task:>20}  empty {peaks['empty']:.0f} MB, then {more['once']} {more['twice']}")
    elif given.command == "extra":
        for name, figures in extra(given.gigabytes, given.where).items():
            print(f"{name:>15}  peak {figures['peak_mb']:.0f} MB, {figures['step']:.4f} s a step")
    elif given.command == "epochs":
        with tempfile.TemporaryDirectory() as folder:
            found = measured("epochs", folder)
        print(" ".join(f"{found[epoch - 1]:.0f}" for epoch in (1, 20, 50, 100, 150, 200)), "MB")
    elif given.task == "epochs":
        print(json.dumps(memory_by_epoch(Path(given.argument))))
    elif given.task == "all":
        print(json.dumps(peaks_of_all(Path(given.argument))))
    elif given.task == "extra":
        step = train_on_extra([path for path in given.argument.split(",") if path])
        print(json.dumps({"peak_mb": peak_mb(), "step": step}))
    else:
        TASKS[given.task](Path(given.argument))
        shutil.rmtree(Path(given.argument) / "out", ignore_errors=True)
        print(json.dumps({"peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
