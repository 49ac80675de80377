"""--init: what is read, what fits, what is recorded, and what is refused."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rpat_cli.errors import CheckpointError, ConfigError, RunFolderError
from rpat_cli.loading.architecture import Architecture
from rpat_cli.loading.load import load_model
from rpat_cli.loading.origins import start_in_words
from rpat_cli.loading.robustbench import entries
from rpat_cli.loading.start import Start, read_start
from rpat_cli.loading.start_name import with_networks_named, with_start_named
from rpat_cli.models.base import build_network
from rpat_cli.recipe.layers import Layer, parse_assignments, read_recipe, resolve
from rpat_cli.recipe.trust import trusting
from rpat_cli.records.checkpoint import save_checkpoint
from rpat_cli.records.metrics import read_metrics
from rpat_cli.runs.resume import resume_run
from rpat_cli.runs.start import begun_with
from rpat_cli.runs.train import train_run

SMALL = Architecture("small-cnn", (1, 28, 28), 10, (0.2,), (0.4,))


def filled(network: nn.Module, value: float = 0.5) -> dict[str, Tensor]:
    """A state of the network that no random one could be."""
    return {
        key: torch.full_like(old, value) if old.is_floating_point() else old
        for key, old in network.state_dict().items()
    }


@pytest.fixture
def of_5_classes(tmp_path: Path) -> Path:
    """A file of other code, for another number of classes."""
    file = tmp_path / "five.pt"
    torch.save({"state_dict": filled(build_network("small-cnn", (1, 28, 28), 5))}, file)
    return file


def taken(start: Start, name: str = "small-cnn") -> tuple[Start, nn.Module]:
    network = build_network(name, (1, 28, 28), 10)
    fitted = start.fitted(network, name)
    fitted.put_into(network)
    return fitted, network


def test_a_head_of_other_classes_is_new_and_named(of_5_classes: Path) -> None:
    start, network = taken(read_start(str(of_5_classes)))
    old = filled(network)
    new = [key for key, value in network.state_dict().items() if not torch.equal(value, old[key])]
    *_, (head, _) = [each for each in network.named_modules() if isinstance(each[1], nn.Linear)]
    assert set(new) == {f"{head}.weight", f"{head}.bias"}
    assert start.sha256 == hashlib.sha256(of_5_classes.read_bytes()).hexdigest()
    said = start_in_words(start.record())
    assert f"2 of another shape: {head}.weight (file [5, " in said
    assert f"sha256 {start.sha256[:12]}" in said


def test_a_checkpoint_of_ours_brings_its_normalization(tmp_path: Path) -> None:
    model = SMALL.build()
    file = tmp_path / "run" / "checkpoints" / "best.pt"
    file.parent.mkdir(parents=True)
    recipe = {"data": {"name": "fashion-mini"}, "model": "small-cnn"}
    content = {"recipe": recipe, "architecture": SMALL.to_dict(), "epoch": 3}
    save_checkpoint(file, {**content, "model": model.state_dict()})
    (tmp_path / "run" / "recipe.yaml").write_text("model: small-cnn\n")
    for source in (file, tmp_path / "run"):
        start, network = taken(read_start(str(source)))
        assert start.left == ""
        assert all(
            torch.equal(value, model.net.state_dict()[key])
            for key, value in network.state_dict().items()
        )
    given: Any = {"init": str(file), "data": "fashion-mini"}
    recipe_with, _ = begun_with(resolve([Layer("given", given)]))
    mean, std = (float(part) for part in recipe_with.data.normalize_as.split("/"))
    assert torch.equal(torch.tensor([mean, std]), torch.tensor([0.2, 0.4]))
    # What the recipe names counts, and a start of the data set's own constants changes nothing.
    named, _ = begun_with(
        resolve([Layer("a", given), Layer("b", {"data": {"normalize_as": "half"}})])
    )
    assert named.data.normalize_as == "half"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda state: {"layer1.x": torch.ones(3)}, "do not fit the network 'small-cnn'"),
        (lambda state: {key: value / 0 for key, value in state.items()}, "not finite"),
    ],
)
def test_weights_that_cannot_be_begun_with_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], problem: str
) -> None:
    file = tmp_path / "net.pt"
    torch.save(change(filled(build_network("small-cnn", (1, 28, 28), 10))), file)
    with pytest.raises(CheckpointError, match=problem):
        taken(read_start(str(file)))


@pytest.mark.parametrize(
    ("init", "problem"),
    [
        ("", "names no weights"),
        ("net.py:build", "is a program"),
        ("hf:somebody", "not of the form hf:OWNER/REPO"),
    ],
)
def test_what_names_no_weights_is_a_mistake_of_the_recipe(init: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        resolve([Layer("given", {"init": init})])


@pytest.mark.parametrize(
    ("init", "problem"),
    [
        ("nowhere", "there is no nowhere"),
        ("torchvision:resnet18@IMAGENET1K_V9", "Did you mean 'IMAGENET1K_V1'"),
        ("timm:resnet10t.c3_in1k@c3", "write timm:"),
    ],
)
def test_weights_that_are_not_there_are_said(init: str, problem: str) -> None:
    if init.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(ConfigError, match=problem):
        read_start(init)


# ---- libraries and the hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The cache of the Hugging Face hub, without a network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def in_hub(cache: Path, repo: str, state: dict[str, Tensor]) -> Path:
    safetensors = pytest.importorskip("safetensors.torch")
    folder = cache / f"models--{repo.replace('/', '--')}"
    file = folder / "snapshots" / "0123" / "model.safetensors"
    file.parent.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123")
    safetensors.save_file(state, file)
    return file


def test_a_repository_of_the_hub_is_a_file_in_its_cache(hub: Path) -> None:
    file = in_hub(hub, "somebody/net", filled(build_network("small-cnn", (1, 28, 28), 10)))
    start, _ = taken(read_start("hf:somebody/net"))
    assert (start.left, start.sha256) == ("", hashlib.sha256(file.read_bytes()).hexdigest())


def test_weights_of_torchvision_are_those_in_its_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    name = "torchvision:squeezenet1_1"
    net = build_network(name, (3, 32, 32), 1000)
    file = tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    file.parent.mkdir()
    torch.save(filled(net), file)
    start = read_start(f"{name}@IMAGENET1K_V1")
    fitted = start.fitted(build_network(name, (3, 32, 32), 10), name)
    assert fitted.left.startswith("2 of another shape: classifier.1.weight (file [1000, 512")
    assert start.mean == (0.485, 0.456, 0.406)
    assert start.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "init", ["torchvision:squeezenet1_1@IMAGENET1K_V1", "hf:somebody/net", "timm:resnet10t.c3_in1k"]
)
def test_only_the_user_starts_a_download(
    init: str, hub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))

    def no_net(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", no_net)
    with pytest.raises(ConfigError, match=r"init: wants to download .* which you have not named"):
        read_start(init)
    for asked in ({"files": [init]}, {"everything": True}):
        with trusting(**asked), pytest.raises(CheckpointError, match="could not be read"):
            read_start(init)


def test_the_network_of_a_start_need_not_be_named(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("model: vgg16\n")
    for init, network in (
        ("torchvision:resnet18@IMAGENET1K_V1", "torchvision:resnet18"),
        (str(tmp_path), "vgg16"),
        ("somewhere.pt", "small-cnn"),  # that of the data set
    ):
        given = {"init": init, "data": "fashion-mini"}
        assert resolve([Layer("given", given)]).model == network
        assert resolve([Layer("given", {**given, "model": "resnet18"})]).model == "resnet18"


def test_a_run_records_what_it_began_with(of_5_classes: Path, tmp_path: Path) -> None:
    recipe = resolve(
        [
            Layer("test", {"init": str(of_5_classes), "batch_size": 500, "epochs": 1}),
            Layer("test", {"method": "standard", "eval": ["clean"], "device": "cpu"}),
            Layer("test", {"optimizer": {"lr": 1e-6}, "validation": {"steps": 1, "limit": 20}}),
        ]
    )
    folder = train_run(recipe, out=tmp_path / "run", stop_after=1)
    last = torch.load(folder.checkpoint("last"), weights_only=True)
    assert last["start"]["source"] == str(of_5_classes)
    convolution = next(value for value in last["model"].values() if value.ndim == 4)
    assert convolution.mean() == pytest.approx(0.5, abs=1e-3)
    assert f"init: {of_5_classes}" in folder.recipe.read_text()
    of_5_classes.unlink()  # a resumed run does not need it
    with pytest.raises(ConfigError, match="init: cannot be changed when resuming"):
        resume_run(folder.path, changes=parse_assignments(["init=another.pt"]))
    resume_run(folder.path, changes=read_recipe(folder.recipe))  # as a sweep does
    assert "2 of another shape" in folder.report.read_text()
    assert "2 of another shape" in folder.log.read_text()


def test_a_run_killed_before_its_first_checkpoint_begins_with_its_start_again(
    of_5_classes: Path, tmp_path: Path
) -> None:
    given = {"init": str(of_5_classes), "batch_size": 800, "epochs": 2, "method": "standard"}
    given |= {"eval": ["clean"], "device": "cpu", "data": {"val_size": 20}}
    folder = train_run(resolve([Layer("test", given)]), out=tmp_path / "run", stop_after=1)
    [first] = read_metrics(folder.metrics)
    shutil.rmtree(folder.path / "checkpoints")
    folder.metrics.unlink()
    resume_run(folder.path, stop_after=1)
    [again] = read_metrics(folder.metrics)
    assert again["train"] == first["train"]
    assert torch.load(folder.checkpoint("last"), weights_only=True)["start"]["source"] == str(
        of_5_classes
    )


# ---- names


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two runs of another network than that of the data set; the older one validated better."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("better", "newer")):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "recipe.yaml").write_text("model: vgg16\ndata: {name: fashion-mini}\n")
        validation = {"clean_acc": 0.5, "robust_acc": 0.4 - 0.1 * number}
        counts = dict.fromkeys(("lr", "seconds", "images_per_second", "forward", "backward"), 1)
        record = {"epoch": 1, **counts, "train": {"loss": 1.0}, "validation": validation}
        (run / "metrics.jsonl").write_text(json.dumps(record) + "\n")
        os.utime(run / "recipe.yaml", (1000 + number, 1000 + number))
    return tmp_path / "runs"


def test_a_start_is_recorded_as_the_run_that_it_means(runs: Path) -> None:
    for word, name in (("last", "newer"), ("best", "better"), ("better", "better")):
        recipe = resolve(with_start_named(parse_assignments([f"init={word}"])))
        assert (recipe.init, recipe.model) == (f"runs/{name}", "vgg16")
        method = {"name": "hat", "helper": word}
        recipe = with_networks_named(resolve([Layer("given", {"method": method})]))
        assert recipe.method.options["helper"] == f"runs/{name}"
    for other in ("runs/newer", "x.pt:state", "hf:somebody/net", "torchvision:resnet18"):
        assert resolve(with_start_named(parse_assignments([f"init={other}"]))).init == other
    shutil.rmtree(runs)
    with pytest.raises(RunFolderError):
        with_start_named(parse_assignments(["init=last"]))


def test_a_start_of_robustbench_is_what_is_evaluated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its network, its weights and its constants, from the folder that `rpat eval` reads."""
    small = replace(next(e for e in entries() if e.files == 1), network="small-cnn", key="")
    small = replace(small, dataset="cifar10", threat="L2", name="Tiny", normalization="0.25/0.5")
    monkeypatch.setattr("rpat_cli.loading.robustbench.entries", lambda: [small])
    folder = tmp_path / "cifar10" / "L2"
    folder.mkdir(parents=True)
    torch.save(filled(build_network("small-cnn", (3, 32, 32), 10)), folder / "Tiny.pt")
    given = {"init": "robustbench:Tiny", "data": {"name": "cifar10", "root": str(tmp_path)}}
    recipe = resolve(with_start_named([Layer("given", given, by_user=True)]))
    assert (recipe.init, recipe.model) == ("robustbench:cifar10/L2/Tiny", "small-cnn")
    begun, start = begun_with(recipe)
    assert start
    evaluated = load_model("robustbench:Tiny", changes=[Layer("root", {"data": given["data"]})])
    assert all(evaluated.model.net.state_dict()[k].equal(v) for k, v in start.tensors.items())
    assert (start.left, set(start.mean or ()), set(start.std or ())) == ("", {0.25}, {0.5})
    assert begun.data.normalize_as
    several = replace(small, files=2)
    monkeypatch.setattr("rpat_cli.loading.robustbench.entries", lambda: [several])
    for name in several.file_names:
        shutil.copy(folder / "Tiny.pt", folder / name)
    with pytest.raises(ConfigError, match="is an ensemble"):
        begun_with(recipe)
