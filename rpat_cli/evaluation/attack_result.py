"""What one attack of a suite did to every sample, and its form as JSON."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation.audit import Audit
from rpat_cli.evaluation.calibration import Calibration
from rpat_cli.evaluation.samples_json import (
    bits_to_text,
    floats_to_list,
    list_to_floats,
    text_to_bits,
)
from rpat_cli.evaluation.statistics import Accuracy


@dataclass(frozen=True)
class StageResult:
    """One attack within an attack (AutoAttack has four): how many samples it was given and how many
    it broke.

    `forward` and `backward` are passes of single images, including the prediction that checks the
    result; `None` in files of versions that did not count them by stage.
    """

    name: str
    attacked: int
    broken: int
    seconds: float
    forward: int | None = None
    backward: int | None = None

    @property
    def steps(self) -> dict[str, float] | None:
        """Mean forward and backward passes per attacked sample, comparable between attacks; `None`
        where they are not known."""
        if self.forward is None or self.backward is None or not self.attacked:
            return None
        return {"forward": self.forward / self.attacked, "backward": self.backward / self.attacked}

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {**asdict(self), "steps": self.steps}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "StageResult":
        """The inverse of `to_dict`."""
        return cls(**{name: value for name, value in data.items() if name != "steps"})


@dataclass(frozen=True)
class AttackResult:
    """What one attack of the suite did. Tensors are (N,), on the CPU, in the order of the data.

    - `correct_after` (bool): still right after the attack. `predicted` (int64): the class then.
    - `broken_by` (int64): index into `stages` of the one that broke the sample; -1 where none did.
    - `distance` (float32): of the adversarial image from the clean one, in the threat's norm; NaN
      where the sample was not broken.
    - `margin` (logit of the true class minus the largest other one: positive means right) and
      `confidence` (the largest softmax probability): of the image that broke the sample. Where none
      did: of the one with the smallest margin among the clean image and those that the stages
      returned (AutoAttack's return the clean image where they fail). `None` in files of versions
      that did not record them.
    - `seconds` of wall-clock time; `forward` and `backward` passes of single images.
    - `flags` are warnings, `notes` are remarks.
    - `audit`: where it attacked a random sample of what the other attacks left, and says how many
      of the rest it may break. Its accuracy is then that of the worst case over all of them.
    """

    name: str
    label: str
    threat: Threat
    settings: Mapping[str, Any]
    correct_after: Tensor
    predicted: Tensor
    broken_by: Tensor
    distance: Tensor
    margin: Tensor | None = None
    confidence: Tensor | None = None
    stages: tuple[StageResult, ...] = ()
    seconds: float = 0.0
    forward: int = 0
    backward: int = 0
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    audit: Audit | None = None

    @property
    def accuracy(self) -> Accuracy:
        """The accuracy after the attack, with its interval."""
        return Accuracy.of(self.correct_after)

    @property
    def robust_acc(self) -> float:
        """The fraction of all samples that is still right after the attack."""
        return self.accuracy.value

    @property
    def calibration(self) -> Calibration | None:
        """Of the predictions after the attack; `None` where confidences were not recorded."""
        return (
            None if self.confidence is None else Calibration.of(self.confidence, self.correct_after)
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        low, high = self.accuracy.interval
        return {
            "name": self.name,
            "label": self.label,
            "threat": asdict(self.threat),
            "settings": dict(self.settings),
            "robust_acc": self.robust_acc,
            "interval_95": [low, high],
            "n": self.accuracy.n,
            "stages": [stage.to_dict() for stage in self.stages],
            "seconds": self.seconds,
            "forward": self.forward,
            "backward": self.backward,
            "flags": list(self.flags),
            "notes": list(self.notes),
            "correct_after": bits_to_text(self.correct_after),
            "predicted": self.predicted.tolist(),
            "broken_by": self.broken_by.tolist(),
            "distance": [None if math.isnan(value) else value for value in self.distance.tolist()],
            "margin": floats_to_list(self.margin),
            "confidence": floats_to_list(self.confidence),
            **({"audit": self.audit.to_dict()} if self.audit else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "AttackResult":
        """The inverse of `to_dict`; accuracies are not read but computed from the flags."""
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
            margin=list_to_floats(data.get("margin")),
            confidence=list_to_floats(data.get("confidence")),
            stages=tuple(map(StageResult.from_dict, data["stages"])),
            seconds=data["seconds"],
            forward=data["forward"],
            backward=data["backward"],
            flags=tuple(data["flags"]),
            notes=tuple(data["notes"]),
            audit=Audit.from_dict(data["audit"]) if data.get("audit") else None,
        )
