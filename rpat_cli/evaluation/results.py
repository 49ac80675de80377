"""What an evaluation found, per attack and per sample, and its form as JSON."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation.statistics import Accuracy


@dataclass(frozen=True)
class StageResult:
    """One attack within an attack (AutoAttack has four): how many samples it faced, how many it broke."""

    name: str
    attacked: int
    broken: int
    seconds: float


@dataclass(frozen=True)
class AttackResult:
    """What one attack of the suite did. Tensors are (N,), on the CPU, in the order of the data.

    `correct_after`: still right after the attack. `predicted`: the class afterwards. `broken_by`: index into `stages`
    of what broke the sample, -1 where nothing did. `distance`: of the adversarial image that broke it, in the threat's
    norm; NaN where none did. `forward`, `backward`: passes of single images. `flags` are warnings, `notes` what else to
    know.
    """

    name: str
    label: str
    threat: Threat
    settings: Mapping[str, Any]
    correct_after: Tensor
    predicted: Tensor
    broken_by: Tensor
    distance: Tensor
    stages: tuple[StageResult, ...] = ()
    seconds: float = 0.0
    forward: int = 0
    backward: int = 0
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def accuracy(self) -> Accuracy:
        """What is still right after the attack, with its interval."""
        return Accuracy.of(self.correct_after)

    @property
    def robust_acc(self) -> float:
        """The fraction of all samples that is still right after the attack."""
        return self.accuracy.value

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins; flags are text of 0 and 1, one per sample."""
        low, high = self.accuracy.interval
        return {
            "name": self.name,
            "label": self.label,
            "threat": asdict(self.threat),
            "settings": dict(self.settings),
            "robust_acc": self.robust_acc,
            "interval_95": [low, high],
            "n": self.accuracy.n,
            "stages": [asdict(stage) for stage in self.stages],
            "seconds": self.seconds,
            "forward": self.forward,
            "backward": self.backward,
            "flags": list(self.flags),
            "notes": list(self.notes),
            "correct_after": bits_to_text(self.correct_after),
            "predicted": self.predicted.tolist(),
            "broken_by": self.broken_by.tolist(),
            "distance": [None if math.isnan(value) else value for value in self.distance.tolist()],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "AttackResult":
        """The inverse of `to_dict`; what can be computed is computed, not read."""
        distances = [math.nan if value is None else value for value in data["distance"]]
        return cls(
            name=data["name"],
            label=data["label"],
            threat=Threat(**data["threat"]),
            settings=data["settings"],
            correct_after=text_to_bits(data["correct_after"]),
            predicted=torch.tensor(data["predicted"], dtype=torch.int64),
            broken_by=torch.tensor(data["broken_by"], dtype=torch.int64),
            distance=torch.tensor(distances, dtype=torch.float32),
            stages=tuple(StageResult(**stage) for stage in data["stages"]),
            seconds=data["seconds"],
            forward=data["forward"],
            backward=data["backward"],
            flags=tuple(data["flags"]),
            notes=tuple(data["notes"]),
        )


@dataclass(frozen=True)
class Evaluation:
    """A model's results against a suite. `y`, `clean_predicted` are (N,), on the CPU.

    `limit`: the images are a fixed, stratified subset of this size; `None`: they are all that there are.
    """

    threat: Threat
    y: Tensor
    clean_predicted: Tensor
    results: tuple[AttackResult, ...]
    seed: int
    batch_size: int
    limit: int | None = None

    @property
    def n(self) -> int:
        """The number of samples."""
        return len(self.y)

    @property
    def clean(self) -> Accuracy:
        """Accuracy on the images as they are."""
        return Accuracy.of(self.clean_predicted == self.y)

    @property
    def worst_case(self) -> Tensor:
        """(N,) bool: right, and still right after every attack of the suite."""
        flags = self.clean_predicted == self.y
        for result in self.results:
            flags = flags & result.correct_after
        return flags

    @property
    def robust(self) -> Accuracy:
        """Accuracy in the worst case over all attacks of the suite."""
        return Accuracy.of(self.worst_case)

    def __getitem__(self, label: str) -> AttackResult:
        """The result with that label. Raises `KeyError`, naming those there are."""
        for result in self.results:
            if result.label == label:
                return result
        raise KeyError(f"{label!r} is none of {', '.join(result.label for result in self.results)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {
            "threat": asdict(self.threat),
            "n": self.n,
            "limit": self.limit,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "clean_acc": self.clean.value,
            "clean_interval_95": list(self.clean.interval),
            "robust_acc": self.robust.value,
            "robust_interval_95": list(self.robust.interval),
            "results": [result.to_dict() for result in self.results],
            "y": self.y.tolist(),
            "clean_predicted": self.clean_predicted.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Evaluation":
        """The inverse of `to_dict`."""
        return cls(
            threat=Threat(**data["threat"]),
            y=torch.tensor(data["y"], dtype=torch.int64),
            clean_predicted=torch.tensor(data["clean_predicted"], dtype=torch.int64),
            results=tuple(AttackResult.from_dict(result) for result in data["results"]),
            seed=data["seed"],
            batch_size=data["batch_size"],
            limit=data.get("limit"),
        )


def bits_to_text(flags: Tensor) -> str:
    """(N,) bool as "0110...": short, and still readable in the file."""
    return "".join("1" if flag else "0" for flag in flags.tolist())


def text_to_bits(text: str) -> Tensor:
    """The inverse of `bits_to_text`."""
    return torch.tensor([character == "1" for character in text], dtype=torch.bool)
