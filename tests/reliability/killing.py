"""Train or evaluate in child processes that are killed, resume what they leave, and compare it with
what an undisturbed child leaves.

Run as a script, `killing.py FOLDER WHAT CONFIG WHERE...`: WHAT is `train`, `eval` or `audit`;
CONFIG is one of those below, or recipe keys as JSON; each WHERE is the number of the write at which
to kill (`w5`), or a share of the undisturbed time (`t0.35`). Several in a row, `t0.1+t0.2`: what
was killed once goes on, and is killed again. Prints one JSON object for each WHERE.
`killing.py FOLDER many FILE`: trainings, as pairs of CONFIG and WHERE in a JSON list. A process of
its own, since it forks. All children are forked from it and compute with its one thread: so their
results can be compared bit for bit.
"""

import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyautoattack
import torch
from toys import Quick

from rpat_cli.attacks import cascade
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records import files
from rpat_cli.records.checkpoint import checksum, load_checkpoint
from rpat_cli.runs.evaluate import EvalOptions, eval_run
from rpat_cli.runs.resume import resume_run
from rpat_cli.runs.train import train_run

BASE: dict[str, Any] = {
    "model": "small-cnn",
    "epochs": 2,
    "batch_size": 500,
    "attack": {"steps": 1},
    "validation": {"steps": 1, "limit": 50},
    "eval": ["clean"],
    "device": "cpu",
}
CONFIGS: dict[str, dict[str, Any]] = {
    "pgd": {"method": "pgd"},
    "averaged": {"method": "trades", "ra": True, "wa": {"decay": 0.9, "start_epoch": 0}},
    "perturbed": {"method": "rebat", "wa": {"decay": 0.9, "start_epoch": 1}, "awp": True},
    "two-views": {"method": "consistency", "schedule": "cosine"},
    "mixed": {"method": "mart", "accumulate": 2, "optimizer": {"nesterov": True}},
}

TIMES = {"seconds", "images_per_second", "time", "created", "elapsed"}
"""What may differ between two runs that are otherwise the same."""


def recipe_of(config: str) -> Recipe:
    keys = CONFIGS[config] if config in CONFIGS else json.loads(config)
    return resolve([Layer("test", {**BASE, **keys})])


def train(config: str, run: Path) -> None:
    """Begin a run, or go on with what is there: as somebody who calls again would."""
    if (run / "recipe.yaml").exists():
        resume_run(run)
    elif run.exists():  # killed before there was anything
        shutil.rmtree(run)
        train_run(recipe_of(config), out=run)
    else:
        train_run(recipe_of(config), out=run)


def evaluate(config: str, run: Path) -> None:
    eval_run(run, parse_suite("clean,pgd-3,noise"), options=EvalOptions(batch_size=25, limit=200))


def audit(config: str, run: Path) -> None:
    """`best`, so weak that the audit of it takes several looks, with small budgets."""
    pyautoattack.AutoAttack = Quick
    cascade.BEST = ("noise", "fgsm")
    smaller = Layer("test", {"threat": {"eps": 0.04}})
    options = EvalOptions(batch_size=10, limit=200)
    eval_run(run, parse_suite("best,audit:8"), changes=[smaller], options=options)


def forked(work: Callable[[], None]) -> int:
    process = os.fork()
    if process == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return process


def killed_at_write(number: int, work: Callable[[], None]) -> bool:
    """Kill the child before the effect of its n-th sync, rename or link; False if it ended."""

    def child() -> None:
        writes = 0

        def counted(really: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal writes
                writes += 1
                if writes == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return really(*arguments, **options)

            return call

        files.os.fsync = counted(os.fsync)  # type: ignore[attr-defined]
        files.os.link = counted(os.link)  # type: ignore[attr-defined]
        Path.replace = counted(Path.replace)  # type: ignore[method-assign]
        work()

    return os.WIFSIGNALED(os.waitpid(forked(child), 0)[1])


def killed_after(seconds: float, work: Callable[[], None]) -> bool:
    process = forked(work)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


def killed_at(moment: str, undisturbed: float, work: Callable[[], None]) -> bool:
    """`w5` or `t0.35`; False if the child had ended before."""
    if moment[0] == "w":
        return killed_at_write(int(moment[1:]), work)
    return killed_after(float(moment[1:]) * undisturbed, work)


def contents(run: Path) -> dict[str, Any]:
    """All that a run holds but times: the same for two that have the same result."""
    found: dict[str, Any] = {
        path.relative_to(run).as_posix(): _of_checkpoint(path)
        for path in sorted((run / "checkpoints").glob("*.pt"))
        if ".prev" not in path.name
    }
    lines = (run / "metrics.jsonl").read_text().splitlines()
    found["metrics"] = [_without_times(json.loads(line)) for line in lines]
    for path in (run / "evals").glob("*.json"):
        record = json.loads(path.read_text())
        labels = ",".join(result["label"] for result in record["results"])
        kept = {key: record[key] for key in ("epoch", "results", "y", "clean_predicted")}
        found[f"{record['checkpoint']} {labels}"] = _without_times(kept)
    return found


def _of_checkpoint(path: Path) -> tuple[int, str]:
    content = load_checkpoint(path)
    return content["epoch"], checksum(content["model"])


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(inner) for key, inner in value.items() if key not in TIMES}
    return [_without_times(inner) for inner in value] if isinstance(value, list) else value


def leftovers(run: Path) -> list[str]:
    """Temporary files, and JSON files that do not parse."""
    found = [path.name for path in run.rglob("*.tmp")]
    for path in run.rglob("*.json"):
        try:
            json.loads(path.read_text())
        except ValueError:
            found.append(path.name)
    return found


def main(folder: Path, what: str, config: str, places: list[str]) -> None:
    torch.set_num_threads(1)  # no threads, so that forking is safe
    work = {"train": train, "eval": evaluate, "audit": audit}[what]
    whole = folder / "whole"
    began = time.perf_counter()
    assert os.waitpid(forked(lambda: train(config, whole)), 0)[1] == 0
    start = folder / "start"
    if what != "train":
        shutil.copytree(whole, start)
        began = time.perf_counter()
        assert os.waitpid(forked(lambda: work(config, whole)), 0)[1] == 0
    undisturbed = time.perf_counter() - began
    wanted = contents(whole)
    for number, place in enumerate(places):
        run = folder / f"run{number}"
        if start.exists():
            shutil.copytree(start, run)
        again = partial(work, config, run)
        killed = sum(killed_at(moment, undisturbed, again) for moment in place.split("+"))
        end = os.waitpid(forked(again), 0)[1] if killed else 0
        found = contents(run)
        differing = [name for name in {*wanted, *found} if wanted.get(name) != found.get(name)]
        answer = {"at": place, "killed": killed, "end": end, "differing": differing}
        print(json.dumps({**answer, "leftovers": leftovers(run)}), flush=True)


def many(folder: Path, trainings: Path) -> None:
    for number, (config, place) in enumerate(json.loads(trainings.read_text())):
        main(folder / str(number), "train", config, [place])


if __name__ == "__main__":
    if sys.argv[2] == "many":
        many(Path(sys.argv[1]), Path(sys.argv[3]))
    else:
        main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
