"""Checkpoint files named and nested as the published code writes them, evaluated like our own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from rpat_cli.data import DATASETS
from rpat_cli.errors import CheckpointError, ConfigError
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.loading.load import load_model
from rpat_cli.models import MODELS
from rpat_cli.models.normalize import Classifier
from rpat_cli.recipe.layers import Layer, flag_layers
from rpat_cli.runs.evaluate import eval_run

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # what stands in for an imagefolder
OWN = ((0.5, 0.5, 0.5), (0.25, 0.2, 0.3))
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training and eight test images of 16 pixels, in two classes."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.RandomState(0)
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            (root / part / name).mkdir(parents=True)
            for number in range(4):
                pixels = random.randint(0, 256, (16, 16, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def nets() -> dict[str, nn.Module]:
    torch.manual_seed(1)
    return {
        name: MODELS[name](3, 16, 2).eval() for name in ("preact-resnet18", "resnet18-bottleneck")
    }


def layers(images: Path, **flags: str) -> list[Layer]:
    given = {
        "data.name": "imagefolder",
        "data.root": str(images),
        "data.image_size": "16",
        "device": "cpu",
        **flags,
    }
    return flag_layers({f"--{key}": (tuple(key.split(".")), value) for key, value in given.items()})


def data_parallel(state: State) -> State:
    return {f"module.{key}": value for key, value in state.items()}


def with_normalization(state: State) -> State:
    """As RPAT_SOTAs and ReBAT save it: the network behind a normalizing layer that holds
    buffers."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in OWN)
    return {"mean": mean, "std": std, **{f"model.{key}": value for key, value in state.items()}}


# Repository: file name, network, what is saved, and the normalization that must be in force.
PUBLISHED: dict[str, tuple[str, str, Callable[[State], Any], tuple[Any, Any]]] = {
    "RPAT_Benchmarks": ("last.model", "resnet18-bottleneck", lambda state: state, IMAGENET),
    "RPAT_Benchmarks on several GPUs": (
        "best.model",
        "resnet18-bottleneck",
        data_parallel,
        IMAGENET,
    ),
    "Consistency-AT": ("last.model", "preact-resnet18", data_parallel, IMAGENET),
    "RPAT_SOTAs": (
        "wa_model_best.pth",
        "preact-resnet18",
        lambda state: {"model_state_dict": state, "epoch": 180, "test_robust_acc": np.float64(0.5)},
        IMAGENET,
    ),
    "ReBAT": (
        "model_last.pth",
        "preact-resnet18",
        lambda state: {"model_state_dict": data_parallel(with_normalization(state)), "epoch": 199},
        OWN,
    ),
    "RobustBench": (
        "Wang2023.pt",
        "preact-resnet18",
        lambda state: {"state_dict": data_parallel(state)},
        IMAGENET,
    ),
}


@pytest.mark.parametrize("repository", PUBLISHED)
def test_published_files_evaluate(
    repository: str,
    images: Path,
    nets: dict[str, nn.Module],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    file, name, nested, (mean, std) = PUBLISHED[repository]
    torch.save(nested(nets[name].state_dict()), tmp_path / file)
    changes = layers(images)
    saved = load_model(tmp_path / file, changes=changes)
    assert (saved.architecture.name, saved.recipe.model, saved.architecture.classes) == (
        name,
        name,
        2,
    )
    x = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(saved.model(x), Classifier(nets[name], mean, std).eval()(x))

    evaluation, record = eval_run(tmp_path / file, parse_suite("clean,pgd-2"), changes=changes)
    clean, robust = (result.accuracy.value for result in evaluation.results)
    assert robust <= clean
    written = json.loads(record.read_text())
    assert record.parent.parent.parent == Path("runs/external")  # not next to a file of others
    assert record.parent.parent.name.startswith(f"{Path(file).stem}-")
    assert written["checkpoint"] == Path(file).stem
    assert written["threat"] == {"norm": "Linf", "eps": pytest.approx(8 / 255)}
    right = 0
    with torch.no_grad():
        for label, kind in enumerate(("ant", "bee")):
            for path in sorted((images / "test" / kind).iterdir()):
                pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None] / 255
                right += int(saved.model(pixels).argmax() == label)
    assert clean == right / 8


def test_it_is_normalized_as_asked(
    images: Path, nets: dict[str, nn.Module], tmp_path: Path
) -> None:
    """The published CIFAR-100 models were trained with the constants of CIFAR-10."""
    torch.save(nets["preact-resnet18"].state_dict(), tmp_path / "last.model")
    changes = [*layers(images), Layer("--set", {"data": {"normalize_as": "cifar10"}})]
    saved = load_model(tmp_path / "last.model", changes=changes)
    cifar10 = DATASETS["cifar10"]
    assert saved.model.mean.flatten().tolist() == pytest.approx(cifar10.mean)
    assert (saved.architecture.mean, saved.architecture.std) == (
        pytest.approx(cifar10.mean),
        pytest.approx(cifar10.std),
    )


def test_a_file_without_a_recipe_asks_for_its_data_set(
    nets: dict[str, nn.Module], tmp_path: Path
) -> None:
    torch.save(nets["preact-resnet18"].state_dict(), tmp_path / "last.model")
    for changes in ([], flag_layers({"--data-root": (("data", "root"), "data")})):
        with pytest.raises(ConfigError, match="Name its data set with --data"):
            load_model(tmp_path / "last.model", changes=changes)


def test_a_file_of_another_network_names_the_nearest(
    images: Path, nets: dict[str, nn.Module], tmp_path: Path
) -> None:
    torch.save(nets["preact-resnet18"].state_dict(), tmp_path / "last.model")
    with pytest.raises(
        CheckpointError,
        match=r"does not fit the model 'resnet18'.*nearest known model is 'preact-res",
    ):
        load_model(tmp_path / "last.model", changes=layers(images, model="resnet18"))


def test_a_file_for_other_classes_is_refused_before_anything_is_attacked(
    nets: dict[str, nn.Module], tmp_path: Path
) -> None:
    torch.save(nets["preact-resnet18"].state_dict(), tmp_path / "last.model")
    with pytest.raises(CheckpointError, match="2 classes"):
        load_model(
            tmp_path / "last.model", changes=[Layer("--data", {"data": {"name": "cifar10"}})]
        )


def test_a_missing_file_is_said_to_be_missing(images: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_model(tmp_path / "last.model", changes=layers(images, model="resnet18"))


def test_a_file_that_could_run_code_is_not_loaded(
    images: Path, nets: dict[str, nn.Module], tmp_path: Path
) -> None:
    torch.save(nets["preact-resnet18"], tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match="could run code"):
        load_model(tmp_path / "whole.pt", changes=layers(images))
