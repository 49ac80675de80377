"""`metrics.jsonl`: one line of JSON for each epoch of a training, and which epoch is the best."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rpat_cli.records.files import write_whole

AVERAGED = "_wa"
"""The suffix of everything that belongs to the averaged model: metrics, checkpoints, best epoch."""


@dataclass
class EpochRecord:
    """One epoch of a training; epochs count from 1.

    `train` holds means over its images: loss terms by name, accuracies as fractions. `validation`
    holds fractions (`robust_acc`, `clean_acc`, and both again with `AVERAGED`) in epochs that were
    validated. `forward` and `backward` are the passes of batches through the model in training,
    attack included.
    """

    epoch: int
    lr: float
    train: dict[str, float]
    seconds: float
    images_per_second: float
    forward: int = 0
    backward: int = 0
    validation: dict[str, float] = field(default_factory=dict)


def append_metrics(path: Path, record: EpochRecord) -> None:
    """Add the line of one epoch."""
    with path.open("a", encoding="utf-8") as file:
        file.write(_line(asdict(record)))


def drop_metrics_after(path: Path, epoch: int) -> None:
    """Keep the lines of epochs up to `epoch`: a resumed run is going to repeat the others.

    Raises `RunFolderError` if the file cannot be written.
    """
    kept = [record for record in read_metrics(path) if record["epoch"] <= epoch]
    # Whole or not at all: a crash here must not cost the epochs that are recorded already.
    write_whole(path, "".join(map(_line, kept)))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of the epochs; empty if there is no file.

    A line that a crash cut short is left out. Keys are those of `EpochRecord`; early versions did
    not write all of them.
    """
    if not path.is_file():  # a pipe or a device would never end
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


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
