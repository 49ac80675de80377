"""Calls to trackers as a training makes them, and what they should have led to."""

import csv
from pathlib import Path
from types import SimpleNamespace

import torch

from rpat_cli.records.metrics import EpochRecord, append_metrics, drop_metrics_after, read_metrics
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.tracking import chosen
from rpat_cli.tracking.base import Tracked
from rpat_cli.tracking.following import Following, scalars

RECIPE = {"method": {"name": "trades", "beta": 6.0}, "seed": 0, "mix": None, "plugins": []}


def record(epoch: int, **validation: float) -> EpochRecord:
    train = {"loss": 2 / epoch, "robust_acc": 0.1 * epoch}
    return EpochRecord(epoch, 0.1, train, 1.0, 100.0, 4, 2, validation)


def following(path: Path, names: str, said: list[str] | None = None) -> Following:
    path.mkdir(exist_ok=True)
    about = Tracked("a run", "", path / "tracking", recipe=RECIPE)
    write = [] if said is None else said
    return Following(chosen(names), RunFolder(path), about, write.append)


def loop_at(epoch: int) -> SimpleNamespace:
    return SimpleNamespace(epoch=epoch, compute=SimpleNamespace(device=torch.device("cpu")))


def train(
    path: Path, names: str, first: int, last: int, said: list[str] | None = None
) -> Following:
    """The calls of a training of the epochs after `first`, up to `last`, as the loop makes them; it
    is then killed."""
    follower = following(path, names, said)
    drop_metrics_after(path / "metrics.jsonl", first)
    follower.on_start(loop_at(first))
    for epoch in range(first + 1, last + 1):
        each = record(epoch, **({"robust_acc": 0.25} if epoch % 2 == 0 else {}))
        append_metrics(path / "metrics.jsonl", each)
        follower.on_epoch_end(loop_at(epoch), each)
    return follower


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def as_recorded(path: Path) -> dict[int, dict[str, float]]:
    return {each["epoch"]: scalars(each) for each in read_metrics(path / "metrics.jsonl")}
