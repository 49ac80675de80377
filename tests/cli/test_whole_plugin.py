"""One plugin file with one of everything that can be added, through the real command."""

import json
from pathlib import Path

import pytest
from cli_calls import call

PLUGIN = '''
"""Everything at once, in small."""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.threat import Threat
from rpat_cli.data import DATASETS
from rpat_cli.data.base import DatasetSpec, RawData
from rpat_cli.data.splits import TensorSplit
from rpat_cli.diagnostics import DIAGNOSTICS, Diagnostic, Result
from rpat_cli.diagnostics.blocks import Section, Text
from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.methods.base import Outcome
from rpat_cli.methods.declare import Needs
from rpat_cli.models import MODELS


@dataclass(frozen=True)
class Signs:
    """The worst of some random corners of the ball"""

    threat: Threat
    steps: int = 5

    def __call__(self, model, x, y):
        return self.perturb(model, x, lambda z: F.cross_entropy(z, y, reduction="none"))

    @torch.no_grad()
    def perturb(self, model, x, loss_fn, *, start=None):
        best, highest = x.clone(), torch.full((len(x),), -torch.inf)
        for _ in range(self.steps):
            x_adv = self.threat.apply(x, self.threat.eps * (torch.rand_like(x) - 0.5).sign())
            losses = loss_fn(model(x_adv)).expand(len(x))
            better = losses > highest
            best[better], highest[better] = x_adv[better], losses[better]
        return best


@dataclass(frozen=True)
class Both(Needs):
    """CE on clean and on adversarial images."""

    share: float = 0.5

    def __call__(self, step):
        x_adv = step.attack(step.model, step.x, step.y)
        logits, logits_adv = step.model(step.x), step.model(x_adv)
        terms = {
            "clean": (1 - self.share) * F.cross_entropy(logits, step.y),
            "adv": self.share * F.cross_entropy(logits_adv, step.y),
        }
        return Outcome(terms, step.x, x_adv, logits_adv, logits)


@dataclass(frozen=True)
class Shrink(Needs):
    weight: float = 0.1

    def __call__(self, step, outcome):
        return {"shrink": self.weight * outcome.logits_adv.square().mean()}


def stripes(options):
    """Twelve kinds of stripes, in noise."""
    generator = torch.Generator().manual_seed(0)

    def split(n):
        y = torch.arange(n) % 12
        waves = torch.sin(torch.arange(12)[:, None] * torch.linspace(0, 3.1, 12) + 0.3)
        noise = torch.rand(n, 1, 12, 12, generator=generator)
        x = 110 + 80 * waves[y][:, None, None, :] + 20 * noise
        return TensorSplit(x.clamp(0, 255).to(torch.uint8), y)

    return RawData(split(360), split(120), tuple(f"stripe {k}" for k in range(12)))


def flat(channels, image_size, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, classes))


@dataclass(frozen=True)
class Confidence(Result):
    mean: float
    failed = False

    def to_dict(self):
        return asdict(self)

    @classmethod
    def from_dict(cls, values):
        return cls(float(values["mean"]))

    def section(self):
        return Section("How confident?", 10, (Text((f"{self.mean:.3f} on average",)),), "softmax")


@torch.no_grad()
def measure(subject):
    return Confidence(float(subject.model(subject.x.to(subject.device)).softmax(1).amax(1).mean()))


ATTACKS.add("signs", Signs)
METHODS.add("both", Both)
REGULARIZERS.add("shrink", Shrink)
MODELS.add("flat", flat)
DATASETS.add(
    "stripes", DatasetSpec("stripes", (1, 12, 12), 12, (0.5,), (0.3,), {"Linf": 0.02}, stripes)
)
DIAGNOSTICS.add(
    "confidence", Diagnostic(measure=measure, read=Confidence.from_dict, help="Mean confidence.")
)
'''

MINE = ("--plugin", "mine.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the plugin, and a run of its method, regularizer, model, data set and attack."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "mine.py").write_text(PLUGIN)
    own = ("--method", "both", "--set", "shrink.weight=0.2", "--model", "flat", "--data", "stripes")
    rest = ("--attack", "signs", "--steps", "2", "--eval", "clean,signs-3", "--val-size", "60")
    answer = call("train", *MINE, *own, *rest, "--epochs", "3", "--out", "run", cwd=folder)
    assert answer.code == 0, answer.err
    return folder


def test_all_of_it_is_trained_with(folder: Path) -> None:
    report = json.loads((folder / "run" / "report.json").read_text())
    recipe = report["recipe"]
    assert (recipe["method"]["name"], recipe["attack"]["name"]) == ("both", "signs")
    assert (recipe["model"], recipe["data"]["name"]) == ("flat", "stripes")
    assert recipe["shrink"] == {"weight": 0.2}
    terms = report["training"]["records"][-1]["train"]
    assert {"clean", "adv", "shrink"} <= terms.keys()
    assert {result["label"] for result in report["results"]} == {"clean", "signs-3"}


def test_its_attack_is_shared_forecast_and_transferred_and_its_diagnostic_measured(
    folder: Path,
) -> None:
    suite = "signs-4,transfer:run@signs-2"
    shared = ("--jobs", "2", "--batch-size", "30", "--diagnostic", "confidence")
    answer = call("eval", "run", *MINE, "--attack", suite, *shared, cwd=folder)
    assert answer.code == 0, answer.err
    assert "in this one alone" not in answer.err  # the workers found its classes
    assert "How confident?" in answer.out
    newest = max((folder / "run/evals").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    record = json.loads(newest.read_text())
    assert [result["label"] for result in record["results"]] == ["signs-4", "transfer:run@signs-2"]
    assert 1 / 12 < record["confidence"]["mean"] <= 1
    assert "How confident?" in (folder / "run" / "report.html").read_text()


def test_help_and_lists_name_it(folder: Path) -> None:
    attacks = call("eval", *MINE, "--attack", "list", cwd=folder).out
    assert "signs" in attacks
    assert "random corners" in attacks
    assert "confidence" in call("eval", *MINE, "--diagnostic", "list", cwd=folder).out
    text = " ".join(call("train", *MINE, "--help", cwd=folder).out.replace("│", " ").split())
    for name in ("both", "flat", "signs", "stripes", "shrink=true"):
        assert name in text
