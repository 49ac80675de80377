"""Networks as users write them: flattened with `view`, standardized by image or by batch, with
outputs that are no logits; and plugins that do not look as they must."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import Honest

import rpat_cli as rpat
from rpat_cli.attacks.threat import Threat
from rpat_cli.cli import app
from rpat_cli.diagnostics.verdict.probe import gather
from rpat_cli.diagnostics.verdict.verdict import judge
from rpat_cli.errors import RpatError
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.models import MODELS
from rpat_cli.recipe import plugins


class View(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * 14 * 14, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(self.conv(x), 2)
        logits: Tensor = self.head(x.view(len(x), -1))
        return logits


def strides(model: nn.Module) -> list[Any]:
    return [(name, p.stride(), p.device) for name, p in model.state_dict().items()]


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize(
    "model",
    [View(), nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 10))],
    ids=["view", "torch"],
)
def test_a_network_keeps_its_memory_format(model: nn.Module) -> None:
    before = strides(model)
    evaluation, _ = rpat.evaluate(model, "clean,pgd-1", data="fashion-mini", limit=20)
    assert evaluation.n == 20
    assert strides(model) == before


class ByBatch(nn.Module):
    """The answer for an image depends on the others."""

    def __init__(self, net: nn.Module, kind: str) -> None:
        super().__init__()
        self.net, self.kind = net, kind
        self.norm = nn.BatchNorm2d(1, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "batch norm":
            x = self.norm(x) * 0.35 + 0.29
        if self.kind == "largest":
            x = x / x.max()
        if self.kind == "deviation":
            x = (x - x.mean(0)) / x.std(0)
        logits: Tensor = self.net(x)
        if self.kind == "softmax over the batch":
            return logits.log_softmax(0)
        return logits


@pytest.mark.parametrize("kind", ["", "batch norm", "largest", "softmax over the batch"])
def test_an_answer_that_depends_on_the_batch_is_found(
    honest: Honest, kind: str, small_budgets: None
) -> None:
    x, y = honest.x[:40], honest.y[:40]
    model = ByBatch(honest.model, kind).eval()
    verdict = judge(gather(model, x, y, honest.threat, square_queries=2, substitute_queries=50))
    check = verdict["independent of the batch"]
    assert check.level == ("FAIL" if kind else "PASS")
    assert verdict.failed or not kind


class PerImage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(784, 10)

    def forward(self, x: Tensor) -> Tensor:
        mean, std = x.mean((1, 2, 3), keepdim=True), x.std((1, 2, 3), keepdim=True)
        logits: Tensor = self.head(((x - mean) / std).flatten(1))
        return logits


@pytest.mark.usefixtures("_elsewhere")
def test_standardizing_each_image_is_no_mistake_and_a_constant_image_is_named() -> None:
    evaluation, _ = rpat.evaluate(PerImage(), "clean,pgd-1", data="fashion-mini", limit=20)
    assert evaluation.n == 20
    x, y = torch.rand(12, 1, 28, 28), torch.zeros(12, dtype=torch.int64)
    x[7] = 0.5
    with pytest.raises(RpatError, match=r"for 1 of 5 images \(number 7, from 0\).*one value in"):
        evaluate(PerImage(), x, y, parse_suite("clean"), Threat("Linf", 0.1), batch_size=5)


class Output(nn.Module):
    def __init__(self, kind: str, net: nn.Module | None = None) -> None:
        super().__init__()
        self.kind = kind
        self.net = net or nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    def forward(self, x: Tensor) -> Any:
        z = self.net(x)
        kinds = {
            "tuple": (z, z),
            "list": [z],
            "dict": {"logits": z, "aux": z},
            "classes": z.argmax(1),
        }
        kinds |= {
            "p": z.softmax(1),
            "log p": z.log_softmax(1),
            "half": z.half(),
            "flat": z.flatten(),
        }
        return kinds[self.kind]


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("tuple", r"a tuple of 2 \(\(1, 10\), \(1, 10\)\). Return its part"),
        ("list", "a list of 1"),
        ("dict", "a dict with the keys 'logits', 'aux'. Return the entry"),
        ("classes", r"\(1,\)"),
        ("flat", r"\(10,\)"),
        ("half", "float16"),
    ],
)
def test_outputs_that_are_no_logits_are_refused_by_name(kind: str, said: str) -> None:
    with pytest.raises(RpatError, match=f"Output: a classifier must return logits .*{said}"):
        rpat.evaluate(Output(kind), "clean", data="fashion-mini", limit=10)


def test_probabilities_are_warned_of_and_their_logarithms_are_logits(honest: Honest) -> None:
    x, y, specs = honest.x[:60], honest.y[:60], parse_suite("clean,pgd-5")
    logits, log_p, p = (
        evaluate(model, x, y, specs, honest.threat).results
        for model in (honest.model, Output("log p", honest.model), Output("p", honest.model))
    )
    assert torch.equal(log_p[1].correct_after, logits[1].correct_after)
    assert log_p[1].flags == logits[1].flags == p[0].flags == ()
    assert "returns probabilities, not logits" in p[1].flags[0]


HEAD = """
from dataclasses import dataclass
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from rpat_cli.attacks import ATTACKS
from rpat_cli.data import DATASETS
from rpat_cli.diagnostics import DIAGNOSTICS, Diagnostic
from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.methods.base import Outcome
from rpat_cli.methods.declare import Needs
from rpat_cli.models import MODELS
class Net(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.net = nn.Sequential(*layers or [nn.Flatten(), nn.Linear(784, 10)])
    def forward(self, x):
        return self.net(x)
"""


def model(body: str) -> str:
    return f"""
class Mine(Net):
    def forward(self, x):
        {body}
MODELS.add("mine", lambda c, s, k: Mine())
"""


def part(table: str, body: str, arguments: str) -> str:
    return f"""
@dataclass(frozen=True)
class Mine(Needs):
    threat: object = None
    def __call__({arguments}):
        {body}
{table}.add("mine", Mine)
"""


def method(body: str, arguments: str = "self, step") -> str:
    return part("METHODS", body, arguments).replace("    threat: object = None\n", "")


def regularizer(body: str, arguments: str = "self, step, outcome") -> str:
    return method(body, arguments).replace("METHODS", "REGULARIZERS")


def attack(body: str, arguments: str = "self, model, x, y") -> str:
    return part("ATTACKS", body, arguments)


M, N = ("--method", "standard", "--model", "mine"), ("--method", "mine")
TRADES, PGD = (("--method", name, "--attack", "mine") for name in ("trades", "pgd"))
LAYERS = "MODELS.add('mine', lambda c, s, k: Net({}))\n"
R = ("--method", "standard", "--set", "mine=true")
D = ("--method", "standard", "--data", "mine")
DATA = """
from rpat_cli.data.base import DatasetSpec, RawData
DATASETS.add("mine", DatasetSpec("mine", (1, 28, 28), 10, (0.5,), (0.5,), {{"Linf": 0.1}}, {load}))
"""
ODD = {
    "no arguments": (
        "MODELS.add('mine', lambda: Net())\n",
        M,
        "called as model(channels,",
    ),
    "no module": ("MODELS.add('mine', lambda c, s, k: 5)\n", M, "returned int"),
    "a tuple": (model("return self.net(x), x"), M, "in eval mode, must return logits"),
    "a tuple in training": (
        model("z = self.net(x); return (z, z) if self.training else z"),
        M,
        "in train mode, must return logits, one float tensor (2, 10); it returned tuple",
    ),
    "classes": (model("return self.net(x).argmax(1)"), M, "torch.int64 of shape (2,)"),
    "other classes": (LAYERS.format("nn.Flatten(), nn.Linear(784, 7)"), M, "of shape (2, 7)"),
    "lazy": (LAYERS.format("nn.Flatten(), nn.LazyLinear(10)"), M, "without a shape yet"),
    "other images": (LAYERS.format("nn.Flatten(), nn.Linear(99, 10)"), M, "fails on images of"),
    "batch norm": (
        LAYERS.format("nn.Flatten(), nn.Linear(784, 10), nn.BatchNorm1d(10)"),
        (*M, "--batch-size", "64", "--accumulate", "64"),
        "have 1 image, on which BatchNorm fails",
    ),
    "no step": (method("return 5", "self"), N, "called as method(step)"),
    "no outcome": (
        method("return cross_entropy(step.model(step.x), step.y)"),
        N,
        "an Outcome",
    ),
    "a number": (
        method("z = step.model(step.x); return Outcome({'ce': 0.5}, step.x, step.x, z)"),
        N,
        "ce: float",
    ),
    "no scalar": (
        method("z = step.model(step.x); return Outcome({'ce': z}, step.x, step.x, z)"),
        N,
        "names to scalar tensors",
    ),
    "no logits": (
        method("z = step.model(step.x); return Outcome({'ce': z.mean()}, step.x, step.x, None)"),
        N,
        "logits_adv of its Outcome must be a tensor",
    ),
    "a regularizer's call": (
        regularizer("return {}", "self, step"),
        R,
        "called as regularizer(",
    ),
    "a regularizer's answer": (regularizer("return 5"), R, "given int"),
    "an attack's call": (attack("return x", "self, x"), PGD, "called as attack(model, x, y)"),
    "an attack's answer": (attack("return None"), PGD, "this one returned NoneType"),
    "an attack's shape": (attack("return x[:1]"), PGD, "this one returned (1, 1, 28, 28)"),
    "an attack's perturb": (
        attack("return x"),
        TRADES,
        "calls perturb(model, x,",
    ),
    "views": (
        method("pass").replace("def __call__", "views = 'two'\n    def __call__"),
        N,
        "views of",
    ),
    "an attack that is none": ("ATTACKS.add('mine', lambda threat: 5)\n", PGD, "it returned int"),
    "a loader's call": (DATA.format(load="lambda: 5"), D, "called as load(options)"),
    "a loader's answer": (DATA.format(load="lambda options: None"), D, "it returned NoneType"),
    "a loader's split": (
        DATA.format(load="lambda options: RawData([], [], ('a', 'b'))"),
        D,
        "of the type list, which has no labels",
    ),
}
TINY = ("--epochs", "1", "--set", "data.val_size=100", "--set", "validation.steps=1")


@pytest.fixture
def _tables(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in (*(table for table, _ in plugins.CHECKS), MODELS):
        monkeypatch.setattr(table, "_entries", dict(table._entries))
    monkeypatch.setattr(plugins, "_loaded", {})


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["rpat", *arguments])
    with pytest.raises(SystemExit) as leaving:
        app._run()
    said = capsys.readouterr()
    return int(leaving.value.code or 0), said.out, " ".join(said.err.split())


@pytest.mark.usefixtures("_elsewhere", "_tables")
@pytest.mark.parametrize("name", ODD)
def test_a_plugin_is_told_what_it_must_look_like(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    text, flags, said = ODD[name]
    Path("p.py").write_text(HEAD + text)
    options = ("train", "--plugin", "p.py", *TINY, *flags, "--eval", "clean", "--quiet")
    code, _, message = command(monkeypatch, capsys, *options)
    # What is seen when the plugin is loaded is a mistake in the command, as one that is not there.
    on_loading = ("views", "no arguments", "no step", "a regularizer's call")
    assert code == (2 if name in on_loading else 1), message
    assert said in message
    assert "p.py" in message
    assert "bug in rpat" not in message


@pytest.mark.usefixtures("_elsewhere", "_tables")
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return x[:, :, :5]", "must return images x_adv of the shape of x"),
        ("return None", "this one returned NoneType"),
    ],
)
def test_so_is_an_attack_in_evaluation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], body: str, said: str
) -> None:
    Path("p.py").write_text(HEAD + attack(body) + "def build():\n    return Net()\n")
    options = ("--data", "fashion-mini", "--limit", "20", "-a", "mine", "--quiet")
    arguments = ("eval", "--plugin", "p.py", "--model-file", "p.py:build", *options)
    # The model's file would add its attack again.
    Path("m.py").write_text(HEAD + "def build():\n    return Net()\n")
    arguments = tuple("m.py:build" if each == "p.py:build" else each for each in arguments)
    code, _, message = command(monkeypatch, capsys, *arguments)
    assert (code, said in message, "p.py:" in message) == (1, True, True), message


DIAGNOSTIC = """
class Seen(dict):
    failed = False
    def to_dict(self):
        return {}
    def section(self):
        return None
DIAGNOSTICS.add("mine", Diagnostic(measure=lambda subject: {}, read=dict, help="A look."))
"""


@pytest.mark.usefixtures("_elsewhere", "_tables")
@pytest.mark.parametrize(("answer", "said"), [("5", "has no failed"), ("Seen()", "plain builtins")])
def test_so_is_a_diagnostic(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, said: str
) -> None:
    text = DIAGNOSTIC.replace("return {}", "return {'x': torch.ones(2)}").replace(
        ": {}", f": {answer}"
    )
    Path("p.py").write_text(HEAD + text)
    Path("m.py").write_text(HEAD + "def build():\n    return Net()\n")
    options = ("--data", "fashion-mini", "--limit", "20", "-a", "clean", "--diagnostic", "mine")
    arguments = ("eval", "--plugin", "p.py", "--model-file", "m.py:build", *options, "--quiet")
    code, _, message = command(monkeypatch, capsys, *arguments)
    assert (code, said in message, "p.py:" in message) == (1, True, True), message


@pytest.mark.usefixtures("_elsewhere", "_tables")
def test_a_plugins_network_that_needs_view_trains_and_is_evaluated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    body = "x = torch.max_pool2d(self.net[0](x), 2); return self.net[1](x.view(len(x), -1))"
    layers = "nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * 14 * 14, 10)"
    Path("p.py").write_text(HEAD + model(body).replace("Mine())", f"Mine({layers}))"))
    options = ("train", "--plugin", "p.py", *TINY, *M, "--eval", "clean,pgd-1", "--json-full")
    code, out, message = command(monkeypatch, capsys, *options)
    assert code == 0, message
    assert json.loads(out).keys() >= {"clean_acc", "attacks", "recipe", "results"}


@pytest.mark.usefixtures("_elsewhere", "_tables")
def test_what_a_file_sets_in_torch_when_it_is_imported_is_set_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = """
import os
os.chdir("/")
torch.set_default_dtype(torch.float64)
torch.set_default_device("meta")
torch.set_grad_enabled(False)
"""
    Path("p.py").write_text(HEAD + sets)
    options = ("train", "--plugin", "p.py", *TINY, "--method", "standard", "--eval", "clean")
    code, _, message = command(monkeypatch, capsys, *options, "--quiet", "--out", "run")
    assert code == 0, message
    assert Path("run/report.json").exists()
    assert torch.get_default_dtype() == torch.float32
