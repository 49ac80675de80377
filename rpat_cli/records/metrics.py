"""`metrics.jsonl`: one line of JSON for each epoch of a training, and which epoch is the best."""

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rpat_cli.errors import RunFolderError
from rpat_cli.records.files import append_durably, write_whole
from rpat_cli.records.regular import read_regular

AVERAGED = "_wa"
"""The suffix of everything that belongs to the averaged model: metrics, checkpoints, best epoch."""


@dataclass
class EpochRecord:
    """One epoch of a training; epochs count from 1.

    `train` holds means over its images: loss terms by name, accuracies as fractions. `validation`
    holds fractions (`robust_acc`, `clean_acc`, and both again with `AVERAGED`) in epochs that were
    validated. `forward` and `backward` are the passes of batches through the model in training,
    attack included; those of all `ranks`, the processes that shared it, each on its slice.
    `watched` is what the collapse guard saw: `single_acc` and `multi_acc`, fractions; `collapsed`
    and `rolled_back` are 1 where that holds.
    """

    epoch: int
    lr: float
    train: dict[str, float]
    seconds: float
    images_per_second: float
    forward: int = 0
    backward: int = 0
    validation: dict[str, float] = field(default_factory=dict)
    ranks: int = 1
    watched: dict[str, float] = field(default_factory=dict)


def append_metrics(path: Path, record: EpochRecord) -> None:
    """Add the line of one epoch, through to the disk, as the checkpoint of the epoch is.

    Raises `RunFolderError` if the file cannot be written.
    """
    append_durably(path, _line(asdict(record)))


def drop_metrics_after(path: Path, epoch: int) -> None:
    """Keep the lines of epochs up to `epoch`: a resumed run is going to repeat the others.

    Raises `RunFolderError` if the file cannot be written.
    """
    kept = [record for record in read_metrics(path) if record["epoch"] <= epoch]
    # Whole or not at all: a crash here must not cost the epochs that are recorded already.
    write_whole(path, "".join(map(_line, kept)))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of the epochs, in their order; empty if there is no file.

    Keys are those of `EpochRecord`; early versions did not write all of them. What is no record is
    left out; `inspect_metrics` says what.
    """
    return inspect_metrics(path)[0]


def inspect_metrics(path: Path, done: int | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """The records of the epochs, and remarks on what is wrong with the file.

    A line that a crash cut short, or that is of something else, is left out; of several lines on
    one epoch the last counts. `done`: the epochs that there should be (default: up to the last one
    recorded). Raises `RunFolderError` if there is a file and it cannot be read.
    """
    records: dict[int, dict[str, Any]] = {}
    odd, repeated = 0, set()
    for line in _lines_of(path):
        record = _record(line)
        if record is None:
            odd += 1
            continue
        epoch = record["epoch"]
        if epoch in records:
            repeated.add(epoch)
        records[epoch] = record
    found = sorted(records)
    last = max(found, default=0) if done is None else done
    # Not a set of all numbers to the last: one odd line may name epoch 10^12.
    missing = _gaps(found, last)
    remarks = []
    if odd:
        lines = "1 line that is" if odd == 1 else f"{odd} lines that are"
        remarks.append(f"{path.name} has {lines} no record of an epoch and left out")
    if repeated:
        remarks.append(
            f"{path.name} has several lines on epoch {_listed(sorted(repeated))}: the last counts"
        )
    if missing:
        remarks.append(f"{path.name} has no record of epoch {', '.join(missing)}")
    return [records[epoch] for epoch in found], remarks


def _lines_of(path: Path) -> list[bytes]:
    try:
        return [line for line in read_regular(path).split(b"\n") if line.strip()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror}.") from error


def _record(line: bytes) -> dict[str, Any] | None:
    """The record in a line; None if it holds none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # of the encoding, of JSON, of numbers too long, of depth
        return None
    return record if _is_record(record) else None


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or not is_count(record.get("epoch")) or record["epoch"] < 1:
        return False
    return (
        all(is_number(record.get(key)) for key in ("lr", "seconds", "images_per_second"))
        and all(_are_numbers(record.get(key, {})) for key in ("train", "validation", "watched"))
        and all(is_count(record.get(key, 0)) for key in ("forward", "backward"))
        and "train" in record
    )


def is_number(value: Any) -> bool:
    """Whether what a file holds is a finite number, and no truth value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < sys.float_info.max  # neither infinite nor NaN, and not of 400 digits


def is_count(value: Any) -> bool:
    """Whether what a file holds is an integer from 0, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _are_numbers(values: Any) -> bool:
    return isinstance(values, dict) and all(map(is_number, values.values()))


def _gaps(found: list[int], last: int) -> list[str]:
    """The epochs from 1 to `last` that were not found, each stretch as one text: "2", "5 to 7"."""
    gaps = []
    before = 0
    for epoch in [*(epoch for epoch in found if epoch <= last), last + 1]:
        first, end = before + 1, epoch - 1
        if first <= end:
            gaps.append(str(first) if first == end else f"{first} to {end}")
        before = epoch
    return gaps


def _listed(epochs: list[int]) -> str:
    return ", ".join(map(str, epochs))


def rank(validation: Mapping[str, float], suffix: str = "") -> tuple[float, float]:
    """Sorts validations by quality: robust accuracy decides, and clean accuracy among equals."""
    return validation[f"robust_acc{suffix}"], validation.get(f"clean_acc{suffix}", 0.0)


def best_record(records: Iterable[Mapping[str, Any]], suffix: str = "") -> Mapping[str, Any] | None:
    """The record of the best epoch by `rank`, the earliest of equals; None if none was validated.

    `suffix`: `AVERAGED` for the averaged model, which has a best epoch of its own.
    """
    validated = [
        record for record in records if f"robust_acc{suffix}" in record.get("validation", {})
    ]
    return max(validated, key=lambda record: rank(record["validation"], suffix), default=None)


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record) + "\n"
