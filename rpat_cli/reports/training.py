"""What a run folder says of its training: the records of its epochs, and the last checkpoint where
records are lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rpat_cli.engine.collapse import Watched, collapse_in_words
from rpat_cli.errors import RunFolderError
from rpat_cli.loading.origins import origins_in_words
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.metrics import AVERAGED, best_record, inspect_metrics
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.records.segments import Segment, in_words, segments_in
from rpat_cli.reports.report import CheckpointRef


@dataclass(frozen=True)
class Training:
    """`records` are those of metrics.jsonl; the rest is from the last checkpoint, and empty without
    it.

    `saved_epochs`: how many epochs were done. `saved_best`: the best epoch, by suffix. `under_way`:
    it was stopped within an epoch. `segments`: there are several if the recipe was changed.
    `origins`: the weights that it began with, if they were not random, and the networks that it
    learns from, in words.
    """

    records: tuple[Mapping[str, Any], ...]
    class_names: tuple[str, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    under_way: bool = False
    saved_epochs: int = 0
    saved_best: Mapping[str, int] = field(default_factory=dict)
    segments: tuple[Segment, ...] = ()
    origins: tuple[str, ...] = ()

    @property
    def done(self) -> int:
        """How many epochs were done."""
        recorded = int(self.records[-1]["epoch"]) if self.records else 0
        return max(recorded, self.saved_epochs)

    def best_epoch(self, suffix: str = "") -> int | None:
        """By the records, and by the last checkpoint where that epoch's record is lost."""
        known = self.saved_best.get(suffix)
        if known is not None and known not in [record["epoch"] for record in self.records]:
            return known
        best = best_record(self.records, suffix)
        return None if best is None else int(best["epoch"])

    @property
    def checkpoints(self) -> tuple[CheckpointRef, ...]:
        """Best and last of the trained model, then of its average once validation has seen one."""
        if not self.done:
            return ()
        found = []
        for suffix in ("", AVERAGED):
            best = self.best_epoch(suffix)
            if best is not None:
                found.append(CheckpointRef(f"best{suffix}", best))
            # A run stopped within an epoch has moved on from its last whole epoch.
            same = best == self.done and not self.under_way
            if best is not None or not suffix:
                found.append(CheckpointRef(f"last{suffix}", self.done, same_weights=same))
        return tuple(found)

    def remarks(self, folder: RunFolder, recipe: Recipe) -> list[str]:
        """What is not as it should be, or cannot be seen from the recipe."""
        remarks = list(self.origins)
        if self.done < recipe.epochs:
            remarks.append(f"the training is not complete: {self.done} of {recipe.epochs} epochs")
        if len(self.segments) > 1:
            lines = "; ".join(in_words(self.segments))
            remarks.append(
                f"trained in {len(self.segments)} segments, so that the recipe alone does not "
                f"repeat this run ({lines}): the head of {folder.recipe.name} says what does"
            )
        remarks += _on_collapses(self.records)
        if self.saved_epochs:  # then there is a last checkpoint, and there should be the others
            remarks += [
                f"checkpoints/{each.name}.pt is missing; evaluations that were made of it remain"
                for each in self.checkpoints
                if not folder.checkpoint(each.name).exists()
            ]
        return remarks


def _on_collapses(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the collapse guard saw."""
    remarks = []
    watched = {record["epoch"]: record.get("watched", {}) for record in records}
    for epoch, seen in watched.items():
        if seen.get("rolled_back"):
            remarks.append(
                f"the training collapsed in epoch {epoch} (catastrophic overfitting) and was "
                "rolled back: from that epoch on its attack was PGD with many steps"
            )
    collapsed = [epoch for epoch, seen in watched.items() if seen.get("collapsed")]
    if collapsed:
        seen = watched[collapsed[0]]
        numbers = Watched(seen.get("single_acc", 0.0), seen.get("multi_acc", 0.0))
        remarks.append(collapse_in_words(collapsed[0], numbers))
    return remarks


def read_training(folder: RunFolder, epochs: int, remarks: list[str]) -> Training:
    """Read what there is of a training of so many epochs, and remark on what cannot be read."""
    facts = _facts_of_checkpoint(folder, remarks)
    try:
        records, said = inspect_metrics(folder.metrics, facts.get("saved_epochs"))
    except RunFolderError as error:
        records, said = [], [str(error)]
    remarks += said
    fitting = tuple(record for record in records if record["epoch"] <= epochs)
    if len(fitting) < len(records):
        remarks.append(
            f"{folder.metrics.name} has records of epochs after the last one, {epochs}, "
            "which were left out"
        )
    return Training(fitting, **facts)


def read_checkpoints(folder: RunFolder) -> tuple[CheckpointRef, ...]:
    """The checkpoints of a run, as far as its training is recorded."""
    facts = _facts_of_checkpoint(folder, [])
    try:
        records, _ = inspect_metrics(folder.metrics)
    except RunFolderError:
        records = []
    return Training(tuple(records), **facts).checkpoints


def _is_text(path: Path) -> bool:
    """Torch maps no files whose path holds bytes that are no text."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        return False
    return True


def _facts_of_checkpoint(folder: RunFolder, remarks: list[str]) -> dict[str, Any]:
    """What the last checkpoint says besides its weights, which stay on disk."""
    path = folder.checkpoint("last")
    if not path.is_file():  # reading a pipe would never end
        return {}
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_text(path))
        training = content["training"]
        best = content.get("best", {})
        return {
            "class_names": tuple(map(str, content["class_names"])),
            "environment": dict(content["environment"]),
            "under_way": training["step"] > 0,
            "saved_epochs": int(training.get("epoch", 0)),
            "saved_best": {str(suffix): int(each["epoch"]) for suffix, each in best.items()},
            "segments": tuple(segments_in(content)),
            "origins": tuple(origins_in_words(content)),
        }
    except Exception:  # torch raises a dozen kinds for a damaged file; the report can do without it
        remarks.append(
            f"checkpoints/{path.name} cannot be read, so the environment of the training is not "
            "known"
        )
        return {}
