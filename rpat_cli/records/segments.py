"""The segments of a training: stretches of it under one recipe.

A run may be resumed with more epochs, other validation, or on another device. Its recipe then says
how it ended, not how it came about; the segments do. They are in the last checkpoint, and from
there in the head of recipe.yaml, in the report and in the log.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rpat_cli.errors import CheckpointError
from rpat_cli.text import counted

WATCHED = ("epochs", "validation", "device")
"""The recipe's keys that may change on resume and that weights, or the choice of the best, depend
on."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a training, which ends where the next one begins.

    It began when `epoch` epochs, and `step` steps of the next one, were done. `recipe` has the
    values of the watched keys, `schedule` is that of the learning rate. `device` is what it was
    computed on, `threads` on how many on a CPU, `precision` in which arithmetic (fp32, tf32, bf16
    or fp16, whatever "auto" was); None in segments of versions that did not record them. `ranks` is
    the number of processes that shared it.
    """

    epoch: int
    step: int
    recipe: Mapping[str, Any]
    schedule: str
    device: str | None = None
    threads: int | None = None
    ranks: int = 1
    precision: str | None = None

    @property
    def epochs(self) -> int:
        """How many epochs it meant to have in the end."""
        return int(self.recipe["epochs"])

    def follows_from(self, before: "Segment") -> bool:
        """Is it the same stretch, as far as is known?"""
        same_recipe = self.recipe == before.recipe
        machines = (
            (self.device, before.device),
            (self.threads, before.threads),
            (self.precision, before.precision),
        )
        same_machine = all(None in pair or pair[0] == pair[1] for pair in machines)
        return same_recipe and same_machine and self.ranks == before.ranks

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins."""
        return asdict(self)


def segment_of(
    recipe: Mapping[str, Any],
    epoch: int = 0,
    step: int = 0,
    *,
    device: str | None = None,
    threads: int | None = None,
    ranks: int = 1,
    precision: str | None = None,
) -> Segment:
    """The segment that begins there under a recipe, given as plain builtins."""
    watched: dict[str, Any] = {}
    for key in WATCHED:
        value = recipe[key]
        if isinstance(value, Mapping):
            watched |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            watched[key] = value
    schedule = str(recipe["schedule"]["name"])
    return Segment(epoch, step, watched, schedule, device, threads, ranks, precision)


def segments_in(checkpoint: Mapping[str, Any]) -> list[Segment]:
    """The segments of a run, from the content of its last checkpoint; none in checkpoints of
    versions that did not record them.

    Raises `CheckpointError` for something else in their place.
    """
    if "segments" not in checkpoint:
        return []
    try:
        return [Segment(**segment) for segment in checkpoint["segments"]]
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"the last checkpoint does not say how the run was trained ({error})."
        ) from None


def with_next(before: Sequence[Segment], new: Segment) -> list[Segment]:
    """The segments of a run that goes on with `new`."""
    if before and new.follows_from(before[-1]):
        return list(before)
    # Of a segment in which nothing was done nothing remains.
    real = [each for each in before if (each.epoch, each.step) < (new.epoch, new.step)]
    return [*real, new]


def in_words(segments: Sequence[Segment]) -> list[str]:
    """One line for each segment: its epochs, from 1, and what was in force."""
    lines = []
    for number, segment in enumerate(segments):
        after = segments[number + 1] if number + 1 < len(segments) else None
        text = f"{_stretch(segment, after)}: schedule {segment.schedule!r} over "
        text += counted(segment.epochs, "epoch")
        others = _differing(segments, without=("epochs",))
        text += "".join(f", {key} {segment.recipe.get(key)}" for key in others)
        if len({each.device for each in segments} - {None}) > 1:
            text += f", on {segment.device}"
        if len({each.threads for each in segments} - {None}) > 1:
            text += f", threads: {segment.threads}"
        if len({each.precision for each in segments} - {None}) > 1:
            text += f", in {segment.precision}"
        if any(each.ranks > 1 for each in segments):
            text += f", ranks: {segment.ranks}"
        lines.append(text)
    return lines


def how_to_repeat(
    segments: Sequence[Segment], run: Path, recipe: Path, flags: str = ""
) -> list[str]:
    """What repeats the run: commands with these flags, each on a line; or why none does."""
    first = f"rpat train --config {shlex.quote(str(recipe))}{flags}"
    if len(segments) < 2:
        return [f"Repeat this run: {first}", *_threads(segments)]
    lines = [f"Trained in {len(segments)} segments:"]
    lines += [f"  {line}" for line in in_words(segments)]
    if reason := _unrepeatable(segments):
        return [*lines, f"No command repeats this run exactly: {reason}."]
    again = shlex.quote(f"{run}-again")
    lines.append("Repeat this run:")
    for number, segment in enumerate(segments):
        command = f"{first} --out {again}" if number == 0 else f"rpat train --resume {again}{flags}"
        for key in _differing(segments):
            value = "null" if segment.recipe.get(key) is None else str(segment.recipe[key])
            command += f" --set {shlex.quote(f'{key}={value}')}"
        if number + 1 < len(segments) and segments[number + 1].epoch < segment.epochs:
            command += f" --stop-after {segments[number + 1].epoch}"
        lines.append(f"  {command}")
    return [*lines, *_threads(segments)]


def _threads(segments: Sequence[Segment]) -> list[str]:
    """On a CPU sums are rounded by how they are divided among threads, and everywhere by how they
    are divided among ranks."""
    last = segments[-1] if segments else None
    shared = f"--ranks {last.ranks}" if last and last.ranks > 1 else ""
    if last is None or last.device != "cpu" or not last.threads:
        return [f"As it was shared: with {shared}"] if shared else []
    with_ranks = f" and {shared}" if shared else ""
    return [f"To the same bits on this machine: with OMP_NUM_THREADS={last.threads}{with_ranks}"]


def _unrepeatable(segments: Sequence[Segment]) -> str:
    for segment in segments[1:]:
        if segment.step:
            return f"it was changed within epoch {segment.epoch + 1}, after step {segment.step}"
    names = {
        "device": "devices",
        "threads": "threads",
        "ranks": "ranks",
        "precision": "precisions",
    }
    for name, plural in names.items():
        values = {getattr(each, name) for each in segments} - {None}
        if len(values) > 1:
            return f"its segments had different {plural}"
    return ""


def _differing(segments: Sequence[Segment], without: Sequence[str] = ()) -> list[str]:
    """The watched keys whose value is not the same in all segments."""
    keys = dict.fromkeys(key for segment in segments for key in segment.recipe)
    return [
        key
        for key in keys
        if key not in without and len({repr(each.recipe.get(key)) for each in segments}) > 1
    ]


def _stretch(segment: Segment, after: Segment | None) -> str:
    """`epochs 1 to 3`, `epoch 2`, `epochs 2 (from step 5) to 4`."""
    first, last = segment.epoch + 1, segment.epochs
    if after is not None:
        last = after.epoch + bool(after.step)
    begin = f"{first} (from step {segment.step + 1})" if segment.step else f"{first}"
    end = f"{last} (to step {after.step})" if after is not None and after.step else f"{last}"
    if first == last and begin == end:
        return f"epoch {first}"
    return f"epochs {begin} to {end}"
