"""A run folder made of the real dataclasses, so that a report is built from what runs really
write."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch

from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation.attack_result import AttackResult, StageResult
from rpat_cli.evaluation.results import Evaluation
from rpat_cli.recipe.layers import Layer, resolve, to_yaml
from rpat_cli.records.checkpoint import save_checkpoint
from rpat_cli.records.eval_file import write_new
from rpat_cli.records.metrics import EpochRecord, append_metrics
from rpat_cli.records.run_folder import RunFolder

NAMES = (
    "T-shirt",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

ENVIRONMENT = {
    "rpat": "0.1.0",
    "torch": "2.9.1",
    "python": "3.12.3",
    "platform": "Linux",
    "commit": "3f2c9aa",
}


def an_attack(
    label: str,
    clean: torch.Tensor,
    right: torch.Tensor,
    predicted: torch.Tensor,
    threat: Threat,
    stages: Sequence[str] = (),
    **more: Any,
) -> AttackResult:
    """A result whose broken samples (`clean` but no longer `right`) are dealt to the stages in
    turn."""
    broken_by = torch.where(clean & ~right, torch.arange(len(right)) % max(len(stages), 1), -1)
    parts, left = [], int(clean.sum())
    for number, stage in enumerate(stages):
        broken = int((broken_by == number).sum())
        parts.append(StageResult(stage, attacked=left, broken=broken, seconds=1.5 * (number + 1)))
        left -= broken
    return AttackResult(
        name=re.sub(r"-[0-9x]+$", "", label),
        label=label,
        threat=threat,
        settings={"steps": 20},
        correct_after=right,
        predicted=predicted,
        margin=margins(right),
        confidence=confidences(right),
        broken_by=broken_by,
        distance=torch.where(broken_by >= 0, threat.eps, torch.nan),
        stages=tuple(parts),
        seconds=12.5,
        forward=2000,
        backward=1000,
        **more,
    )


def margins(right: torch.Tensor) -> torch.Tensor:
    return torch.where(right, 2.0, -1.0)


def confidences(right: torch.Tensor) -> torch.Tensor:
    return torch.where(right, 0.9, 0.5)


def an_evaluation(
    clean: int,
    attacked: dict[str, int],
    n: int = 100,
    classes: int = 10,
    threat: Threat | None = None,
    **more: Any,
) -> Evaluation:
    """`clean` and `attacked[label]` images of `n` are right: the first ones; label i is i modulo
    `classes`.

    What is wrong is taken for the class after its own.
    """
    threat = threat or Threat("Linf", 0.1)
    y = torch.arange(n) % classes
    flags = torch.arange(n) < clean
    predicted = torch.where(flags, y, (y + 1) % classes)
    results = [an_attack("clean", flags, flags, predicted, threat)]
    for label, right in attacked.items():
        parts = (
            ("apgd-ce", "apgd-t", "fab-t", "square")
            if label == "autoattack"
            else (label.partition("-")[0],)
        )
        remarks = more if label == "autoattack" else {}
        left = torch.arange(n) < right
        after = torch.where(left, y, (y + 1) % classes)
        results.append(an_attack(label, flags, left, after, threat, parts, **remarks))
    return Evaluation(
        threat,
        y,
        predicted,
        tuple(results),
        seed=0,
        batch_size=250,
        clean_margin=margins(flags),
        clean_confidence=confidences(flags),
        classes=classes,
    )


@dataclass
class FakeRun:
    """A run folder under construction."""

    folder: RunFolder

    def train(self, records: Sequence[EpochRecord]) -> "FakeRun":
        for record in records:
            append_metrics(self.folder.metrics, record)
        return self

    def save_last(self, epoch: int, step: int = 0, names: Sequence[str] = NAMES) -> "FakeRun":
        content = {
            "class_names": list(names),
            "environment": ENVIRONMENT,
            "model": {"weight": torch.zeros(3)},
            "epoch": epoch,
            "training": {"step": step},
        }
        save_checkpoint(self.folder.checkpoint("last"), content)
        return self

    def evaluate(
        self,
        checkpoint: str,
        epoch: int,
        evaluation: Evaluation,
        when: str = "12:00:00",
        data: str = "fashion-mini",
    ) -> Path:
        record = {
            "format": 1,
            "created": f"2026-11-22T{when}+00:00",
            "environment": ENVIRONMENT,
            "device": "cpu",
            "checkpoint": checkpoint,
            "epoch": epoch,
            "data": {"name": data, "split": "test", "n": evaluation.n, "fingerprint": "ab"},
            **evaluation.to_dict(),
        }
        stem = f"{checkpoint}_{evaluation.threat.norm}_{when.replace(':', '-')}"
        return write_new(self.folder.evals, stem, record).path


def an_epoch(
    epoch: int, clean: float | None = None, robust: float | None = None, **terms: float
) -> EpochRecord:
    """One epoch of ten seconds; validated if accuracies are given."""
    terms = terms or {"ce": 1.0 / epoch, "ra": 0.1}
    validation = {} if robust is None else {"clean_acc": clean or 0.0, "robust_acc": robust}
    train = {"loss": sum(terms.values()), **terms, "robust_acc": 0.5}
    return EpochRecord(
        epoch, 0.1, train, 10.0, 200.0, forward=220, backward=200, validation=validation
    )


@pytest.fixture
def make_run(tmp_path: Path):
    """`make_run(epochs=3, ...)`: an empty run folder with the recipe of those settings."""

    def make(**recipe: Any) -> FakeRun:
        folder = RunFolder(Path(mkdtemp(dir=tmp_path)) / "2026-11-22_fashion-mini_small-cnn_pgd_s0")
        folder.evals.mkdir(parents=True)
        recipe = {"model": "small-cnn", "threat": {"eps": 0.1}, **recipe}
        folder.recipe.write_text(to_yaml(resolve([Layer("test", recipe)])), encoding="utf-8")
        return FakeRun(folder)

    return make
