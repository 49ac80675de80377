"""`import rpat`: what it offers, that its names are the command line's, what its calls return."""

import inspect
import logging
import os
import random
import signal
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rpat
import torch
import torch.nn.functional as F
from helpers import assert_same, snapshot, tiny_net
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, SubsetRandomSampler, TensorDataset

import rpat_cli
from rpat_cli.attacks.threat import Threat
from rpat_cli.cli import eval as eval_command
from rpat_cli.cli import train as train_command
from rpat_cli.cli.session import _as_dict
from rpat_cli.cli.train_options import OPTIONS
from rpat_cli.data.in_memory import as_split
from rpat_cli.errors import ConfigError, DataError, UserCodeError
from rpat_cli.methods import METHODS, REGULARIZERS

ROOT = Path(__file__).parent.parent.parent
Batch = tuple[Tensor, Tensor]

# Of a command line alone: what is printed, other processes, and what another call does.
ONLY_COMMANDS = {"quiet", "as_json", "json_full", "sarif", "junit", "dry_run", "ranks", "gpus"}
OTHERWISE = {"assign": "set", "diagnostic": "diagnostics", "model_file": "target"}
"""Options that a call has under another name."""


@pytest.fixture(scope="module")
def images() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(60, 1, 28, 28, generator=generator), torch.arange(60) % 10


@pytest.fixture(scope="module")
def run(images: Batch, tmp_path_factory: pytest.TempPathFactory) -> "rpat.Run":
    x, y = images
    data = {"train": images, "test": (x[:20], y[:20]), "class_names": list("abcdefghij")}
    return rpat.train(
        data=data,
        model="small-cnn",
        method="trades",
        beta=3,
        norm="L2",
        eps="1/2",
        epochs=1,
        steps=1,
        lr=0.01,
        val_size=10,
        eval="clean,pgd-1",
        set={"validation.steps": 1, "optimizer.nesterov": True},
        out=tmp_path_factory.mktemp("runs") / "run",
    )


# ---- the package


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, rpat; assert 'train' in dir(rpat); rpat.ConfigError;"
        "heavy = {'torch', 'numpy', 'pydantic', 'typer', 'rich', 'yaml'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    paths = os.pathsep.join([str(ROOT / "rpat_cli" / "api"), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=60)


def test_every_name_is_there() -> None:
    for name in rpat.__all__:
        assert getattr(rpat, name) is not None
        assert name in dir(rpat)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        rpat.trian  # noqa: B018
    for module in ("attacks", "datasets", "losses", "methods", "models"):
        assert {*getattr(rpat, module).__all__} <= {*dir(getattr(rpat, module))}


def test_methods_are_all_there() -> None:
    """By the names of their classes, those of plugins too."""
    for table in (METHODS, REGULARIZERS):
        own = [table[name] for name in table if not table.is_added(name)]
        assert {cls.__name__ for cls in own} <= set(rpat.methods.__all__)
        assert [cls for cls in own if getattr(rpat.methods, cls.__name__) is not cls] == []
    with pytest.raises(AttributeError, match="no attribute 'Tradse'"):
        rpat.methods.Tradse  # noqa: B018


@pytest.mark.parametrize(
    ("function", "command", "options"),
    [
        (rpat.train, train_command.train, {each.parameter for each in OPTIONS}),
        (rpat.evaluate, eval_command.evaluate, set()),
    ],
)
def test_keywords_are_the_options_of_the_command(
    function: Any, command: Any, options: set[str]
) -> None:
    """A new option needs a keyword of its name, with its type, in rpat_cli/calls/options.py."""
    flags = ({*inspect.signature(command).parameters} | options) - ONLY_COMMANDS
    keywords = {*inspect.signature(function).parameters}
    diagnostics = {
        option.flag.removeprefix("--").replace("-", "_")
        for row in eval_command.DIAGNOSTICS.values()
        for option in row.options
    }
    assert {OTHERWISE.get(flag, flag) for flag in flags - diagnostics} <= keywords
    assert keywords - flags <= {"set", "progress", "callbacks", "diagnostics", "check", "target"}
    kinds = {each.kind for each in inspect.signature(function).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds


# ---- training and evaluating


def test_a_training_does_what_its_keywords_say(run: "rpat.Run") -> None:
    recipe = run.recipe
    assert recipe.method.options["beta"] == 3
    assert (recipe.threat.norm, recipe.threat.eps) == ("L2", 0.5)
    assert (recipe.optimizer.lr, recipe.optimizer.nesterov) == (0.01, True)
    assert [record["epoch"] for record in run.history] == [1]
    assert list(run.results["best"]) == ["clean", "pgd-1"]


def test_a_run_prints_and_shows_as_its_report(run: "rpat.Run") -> None:
    printed, html = str(run), run._repr_html_()
    for text in ("Test accuracy in percent (L2, eps 0.5)", "best (epoch 1)", "95 % interval"):
        assert text in printed
        assert text in html
    assert html.count("<tr>") == 3  # the head, best and last
    assert str(run.path) in repr(run)


def test_an_evaluation_prints_as_the_command_does(run: "rpat.Run", images: Batch) -> None:
    lines: list[str] = []
    result = rpat.evaluate(
        run, ["clean", "pgd"], data=images, steps=1, limit=20, threat=Threat("Linf", 0.1),
        progress=lines.append,
    )  # fmt: skip
    assert list(result.accuracies) == ["clean", "pgd-1"]
    assert result["pgd-1"].accuracy.value == result.robust_acc == result.accuracies["pgd-1"]
    assert result.evaluation.threat == Threat("Linf", 0.1)
    assert result.class_names == tuple("0123456789")
    assert "worst case" in str(result)
    assert "only 20 images" in str(result)
    assert "<table>" in result._repr_html_()
    assert result.to_dict()["robust_acc"] == result.robust_acc
    assert result.to_dict()["n"] == _as_dict(result.measured, full=True)["n"]
    assert lines[-1].split()[:2] == ["pgd-1", "robust"]


def test_a_loaded_model_is_evaluated_as_it_is_in_memory(
    run: "rpat.Run", images: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = rpat.load_model(run)
    of_run = rpat.evaluate(run, "pgd-1", data=images, limit=20)
    assert rpat.evaluate(model, "pgd-1", data=images, limit=20).accuracies == of_run.accuracies
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # now it always says class 0
    changed = rpat.evaluate(model, "pgd-1", data=images, limit=20)
    assert changed.clean_acc == changed.robust_acc == 0.1
    assert changed.evaluation.threat == model.threat == Threat("L2", 0.5)


def test_several_threats_have_a_union(run: "rpat.Run", images: Batch) -> None:
    threats = [Threat("Linf", 0.1), "L2:0.5"]
    result = rpat.evaluate(run, "fgsm", data=images, limit=20, threat=threats)
    assert [each.evaluation.threat for each in result.others] == [Threat("L2", 0.5)]
    assert result.union is not None
    assert "under several threats" in str(result)


def test_the_older_functions_run_the_same_code(run: "rpat.Run", images: Batch) -> None:
    evaluation, file = rpat_cli.evaluate(run, "clean,pgd-1", data=images, limit=20)
    assert file.parent == run.folder.evals
    assert evaluation.robust == rpat.evaluate(run, "pgd-1", data=images, limit=20).evaluation.robust


def test_runs_are_listed_and_opened(run: "rpat.Run") -> None:
    [listed] = rpat.list_runs(run.path.parent)
    assert rpat.open_run(listed.path) == run
    assert listed.method == "trades"


def test_mistakes_name_the_keyword() -> None:
    with pytest.raises(ConfigError, match=r"^train\(\): methd: .*Did you mean 'method'\?"):
        rpat.train(methd="trades")  # type: ignore[call-arg]
    with pytest.raises(ConfigError) as error:
        rpat.train(method="tradse", lr=-1, set={"optimizer.lrr": 1})
    for text in ("train(method=...): method:", "train(lr=...): optimizer.lr:", "Did you mean 'lr'"):
        assert text in str(error.value)
    with pytest.raises(ConfigError, match=r"ra_weight: cannot be combined with ra=False"):
        rpat.train(ra=False, ra_weight=2)
    with pytest.raises(ConfigError, match=r"threat: cannot be combined with norm and eps"):
        rpat.evaluate("run", "fgsm", threat="L2:1", eps=1)
    with pytest.raises(ConfigError, match=r"step_size: 'wide' must be a number"):
        rpat.evaluate("run", "fgsm", step_size="wide")
    with pytest.raises(ConfigError, match=r"callbacks: 3 is neither a function"):
        rpat.train(callbacks=[3])  # type: ignore[list-item]


def state() -> dict[str, Any]:
    root = logging.getLogger()
    return {
        "random": (random.getstate(), torch.get_rng_state().tolist()),
        "threads": torch.get_num_threads(),
        "logging": (root.level, list(root.handlers), logging.root.manager.disable),
        "signals": [signal.getsignal(number) for number in (2, 10, 15)],
        "streams": (sys.stdout, sys.stderr),
    }


def test_the_caller_is_left_as_it_was(
    run: "rpat.Run", images: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state()
    model = rpat.load_model(run)
    rpat.evaluate(run, "clean,pgd-1", data=images, limit=20, progress=True)
    rpat.attacks.attack("apgd-ce-2", eps=0.1)(model, *images)
    assert state() == before
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_the_first_call_of_a_process_leaves_it_as_it_was(tmp_path: Path) -> None:
    """What is imported by then draws random numbers and adds warning filters."""
    code = (
        "import random, warnings, rpat, torch\n"
        "before = random.getstate(), list(warnings.filters)\n"
        "rpat.attacks, rpat.losses, rpat.load_model\n"
        "assert before == (random.getstate(), warnings.filters), 'names'\n"
        "x, y = torch.rand(4, 1, 28, 28), torch.arange(4)\n"
        "net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))\n"
        "rpat.evaluate(net, 'clean', data=(x, y), eps=0.1, out='there', jobs=1)\n"
        "assert before == (random.getstate(), warnings.filters), 'evaluate'\n"
    )
    run_program(code, tmp_path)


@pytest.mark.slow
def test_the_first_calls_of_rpat_cli_leave_the_process_too(tmp_path: Path) -> None:
    code = (
        "import contextlib, random, warnings, rpat_cli, rpat_cli.errors, torch\n"
        "before = random.getstate(), list(warnings.filters)\n"
        "for call in (rpat_cli.load_model, rpat_cli.evaluate, rpat_cli.train):\n"
        "    with contextlib.suppress(rpat_cli.errors.RpatError):\n"
        "        call('absent')\n"
        "    assert before == (random.getstate(), warnings.filters), call\n"
    )
    run_program(code, tmp_path)


def run_program(code: str, folder: Path) -> None:
    """In a process of its own, which has to end well."""
    paths = os.pathsep.join([str(ROOT / "rpat_cli" / "api"), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-c", code]
    subprocess.run(command, env=env, check=True, timeout=300, cwd=folder)


# ---- progress and callbacks


TINY: dict[str, Any] = {
    "model": "small-cnn",
    "method": "standard",
    "epochs": 2,
    "val_size": 10,
    "eval": "clean",
    "set": {"validation.steps": 1},
}


def test_callbacks_are_called_after_every_epoch(images: Batch, tmp_path: Path) -> None:
    seen: list[rpat.EpochRecord] = []

    class Steps(rpat.Callback):
        count = 0

        def on_step(self, loop: Any, record: Any) -> None:
            self.count += 1

    steps = Steps()
    rpat.train(data=images, callbacks=[seen.append, steps], out=tmp_path / "run", **TINY)
    assert [record.epoch for record in seen] == [1, 2]
    assert {"clean_acc", "robust_acc"} <= {*seen[0].validation}
    assert steps.count == 2  # a batch holds all images

    def fails(record: Any) -> None:
        raise KeyError("mine")

    with pytest.raises(UserCodeError, match="KeyError: 'mine'"):
        rpat.train(data=images, callbacks=[fails], out=tmp_path / "other", **TINY)


def test_a_notebook_has_a_bar(
    images: Batch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown: list[dict[str, str]] = []
    handle = SimpleNamespace(update=lambda what, raw: shown.append(what))
    display = SimpleNamespace(display=lambda *_, **__: handle)
    shell = SimpleNamespace(kernel=object())
    ipython = SimpleNamespace(get_ipython=lambda: shell, display=display)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    rpat.train(data=images, out=tmp_path / "run", **TINY)
    assert "<progress" in shown[0]["text/html"]
    assert "epoch 1/2  step 1/1" in shown[0]["text/html"]
    assert shown[-1] == {"text/plain": ""}  # and it is gone at the end
    assert capsys.readouterr().out.count("epoch ") >= 2
    shown.clear()
    rpat.train(data=images, out=tmp_path / "quiet", progress=False, **TINY)
    assert not shown


# ---- images


def negatives(batch: list[Batch]) -> Batch:
    """What a loader may do with its items."""
    return torch.stack([1 - x for x, _ in batch]), torch.stack([y for _, y in batch])


def test_a_data_loader_is_read_as_its_dataset(images: Batch) -> None:
    x, y = images
    whole = TensorDataset(x, y)
    for loader in (DataLoader(whole, 7), DataLoader(whole, 7, shuffle=True)):
        read = as_split(loader).tensors()
        assert all(torch.equal(*pair) for pair in zip(read, (x, y), strict=True))
    odd = SubsetRandomSampler(range(1, 60, 2))
    part, labels = as_split(DataLoader(whole, 7, sampler=odd)).tensors()
    assert sorted(labels.tolist()) == sorted(y[1::2].tolist())
    assert len(part) == 30
    own = BatchSampler(odd, 7, drop_last=False)
    assert len(as_split(DataLoader(whole, batch_sampler=own)).tensors()[0]) == 30
    turned = DataLoader(whole, 7, collate_fn=negatives)
    assert torch.equal(as_split(turned).tensors()[0], 1 - x)
    with pytest.raises(DataError, match="item 0 must be a pair"):
        as_split(DataLoader(TensorDataset(x), 7))
    for single in (whole, list(zip(x, y.tolist(), strict=True))):
        with pytest.raises(DataError, match="batch_size=None"):
            as_split(DataLoader(single, batch_size=None))  # type: ignore[arg-type]


def test_a_loaded_model_knows_names_and_preprocessing(run: "rpat.Run", tmp_path: Path) -> None:
    model = run.load_model("last")
    assert model.class_names == tuple("abcdefghij")
    assert (model.image_shape, model.classes, model.epoch) == ((1, 28, 28), 10, 1)
    pixels = np.arange(56 * 56, dtype=np.uint8).reshape(56, 56)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    from_file = model.preprocess(tmp_path / "image.png")
    assert torch.equal(from_file, model.preprocess(Image.fromarray(pixels)))
    assert torch.equal(from_file, model.preprocess(pixels))
    assert (from_file.shape, from_file.dtype) == ((1, 28, 28), torch.float32)
    ready = torch.full((1, 28, 28), 51, dtype=torch.uint8)
    assert torch.equal(model.preprocess(ready), torch.full((1, 28, 28), 0.2))
    logits = model(from_file[None])
    assert torch.equal(model.predict(from_file[None]), logits.argmax(dim=1))
    with pytest.raises(DataError, match=r"takes images \(1, 28, 28\)"):
        model.preprocess(torch.rand(3, 32, 32))


def test_data_sets_and_networks_by_name() -> None:
    data = rpat.datasets.load("fashion-mini", val_size=100)
    x, y = data.test.tensors()
    assert (x.shape, len(data.val), len(y)) == ((500, 1, 28, 28), 100, 500)
    model = rpat.models.build("small-cnn", "fashion-mini")
    assert model(x[:2]).shape == (2, 10)
    with pytest.raises(ConfigError, match="needs the shape"):
        rpat.models.build("small-cnn")


# ---- tensors


class Linear(nn.Module):
    """Two classes; the logits of an image are w·x and -w·x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.linspace(-1, 1, 3 * 8 * 8))

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.w
        return torch.stack([score, -score], dim=1)


def test_pgd_finds_the_worst_case_of_a_linear_model() -> None:
    model, x = Linear(), torch.full((4, 3, 8, 8), 0.5)
    y = torch.tensor([0, 1, 0, 1])
    sign = torch.where(y == 0, -1.0, 1.0).view(-1, 1, 1, 1)
    for attack in (rpat.attacks.PGD(eps="0.1", steps=20), rpat.attacks.FGSM(Threat("Linf", 0.1))):
        expected = x + 0.1 * sign * model.w.detach().sign().view(1, 3, 8, 8)
        assert torch.allclose(attack(model, x, y), expected, atol=1e-6)
    x_adv = rpat.attacks.PGD(norm="L2", eps=0.5, step_size=5, steps=20)(model, x, y)
    direction = model.w.detach().view(1, 3, 8, 8) / model.w.detach().norm()
    assert torch.allclose(x_adv, x + 0.5 * sign * direction, atol=1e-5)


def test_autoattack_on_tensors_leaves_no_trace(batch: Batch) -> None:
    x, _ = batch
    net = tiny_net()
    y = net.eval()(x).argmax(dim=1)  # all right before
    net.train()
    before, generator = snapshot(net), torch.get_rng_state()
    attack = rpat.attacks.AutoAttack(eps=0.5, attacks=["apgd-ce", "square"])
    x_adv = attack(net, x, y)
    assert_same(before, snapshot(net))
    assert torch.equal(torch.get_rng_state(), generator)
    assert net.training
    assert Threat("Linf", 0.5).contains(x, x_adv).all()
    assert (net.eval()(x_adv).argmax(dim=1) != y).all()
    assert torch.equal(attack(net, x, y), x_adv)  # the seed is its own
    with pytest.raises(ConfigError, match="unknown attack 'apdg'"):
        rpat.attacks.attack("apdg")
    with pytest.raises(ConfigError, match="threat: cannot be combined with norm and eps"):
        rpat.attacks.PGD(Threat("L2", 1), eps=1)


def test_trades_in_a_loop_of_ones_own(batch: Batch) -> None:
    """Against ten lines of its own: the same noise, attack and loss."""
    x, y = batch[0].double(), batch[1]
    net = tiny_net().double()
    torch.manual_seed(3)
    found = rpat.losses.trades(deepcopy(net), x, y, eps=0.1, steps=2, step_size=0.05, beta=2.0)
    torch.manual_seed(3)
    net.eval()
    p = net(x).softmax(1).detach()
    x_adv = x + 0.001 * torch.randn_like(x)
    for _ in range(2):
        x_adv.requires_grad_(True)
        loss = F.kl_div(net(x_adv).log_softmax(1), p, reduction="sum")
        (grad,) = torch.autograd.grad(loss, x_adv)
        x_adv = (x_adv + 0.05 * grad.sign()).detach()
        x_adv = torch.min(torch.max(x_adv, x - 0.1), x + 0.1).clamp(0, 1)
    net.train()
    logits, logits_adv = net(x), net(x_adv)
    kl = F.kl_div(logits_adv.log_softmax(1), logits.softmax(1), reduction="batchmean")
    assert found.item() == pytest.approx((F.cross_entropy(logits, y) + 2 * kl).item(), rel=1e-5)


def test_every_loss_is_the_sum_of_its_terms(batch: Batch) -> None:
    net, (x, y) = tiny_net(), batch
    method = rpat.methods.Mart(beta=2)
    ra = rpat.methods.RobustPerception(weight=2)
    torch.manual_seed(1)
    outcome = rpat.losses.loss_of(method, deepcopy(net), x, y, eps=0.1, steps=1, regularizers=(ra,))
    assert "ra" in outcome.terms
    assert outcome.loss.item() == pytest.approx(sum(t.item() for t in outcome.terms.values()))
    torch.manual_seed(1)
    alone = rpat.losses.mart(deepcopy(net), x, y, beta=2, ra=2, eps=0.1, steps=1)
    assert alone.item() == pytest.approx(outcome.loss.item(), rel=1e-4)
    assert rpat.losses.pgd(net, x, y, eps=0.1, steps=1).requires_grad
    assert rpat.losses.standard(net, x, y).item() == pytest.approx(
        F.cross_entropy(net(x), y).item()
    )


def test_a_step_size_replaces_that_of_the_method(net: nn.Module) -> None:
    own = rpat.attacks.training_attack("n-fgsm", eps=0.1, step_size=0.05)
    assert own.step_size == 0.05
    with pytest.raises(ConfigError, match="step_size: 'wide' must be a number"):
        rpat.attacks.PGD(eps=0.1, step_size="wide")


@pytest.mark.parametrize("image", [np.random.rand(28, 28), np.zeros((2, 3, 4, 5), np.uint8)])
def test_an_array_that_is_no_image_of_bytes_is_said(run: "rpat.Run", image: Any) -> None:
    with pytest.raises(DataError, match="cannot read this image"):
        rpat.load_model(run).preprocess(image)
