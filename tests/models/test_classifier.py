"""Normalization inside the model, and models by name."""

import sys

import pytest
import torch
from torch import nn

from rpat_cli.errors import ConfigError, MissingExtraError
from rpat_cli.models.base import Classifier, build_model

RGB = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}


def test_normalizes_each_channel() -> None:
    x = torch.rand(2, 3, 4, 5)
    out = Classifier(nn.Identity(), **RGB)(x)
    for c in range(3):
        torch.testing.assert_close(out[:, c], (x[:, c] - RGB["mean"][c]) / RGB["std"][c])


def test_mean_and_std_are_saved_and_never_trained() -> None:
    model = Classifier(nn.Linear(2, 2), **RGB)
    assert {"mean", "std", "net.weight", "net.bias"} == set(model.state_dict())
    assert {name for name, _ in model.named_parameters()} == {"net.weight", "net.bias"}
    other = Classifier(nn.Linear(2, 2), [0.0] * 3, [1.0] * 3)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.mean.flatten(), torch.tensor(RGB["mean"]))


def test_mean_and_std_move_with_the_model() -> None:
    model = Classifier(nn.Identity(), **RGB).double()
    assert model(torch.rand(1, 3, 2, 2, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("mean", "std"), [([0.5], [0.5, 0.5]), ([], []), ([0.5], [0.0]), ([0.5], [-1.0])]
)
def test_impossible_normalization(mean: list[float], std: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"^(mean and std need|std must be positive)"):
        Classifier(nn.Identity(), mean, std)


@pytest.mark.parametrize(
    ("mean", "std", "key"), [([0.5], [0.5] * 3, "mean"), ([0.5] * 3, [0.5] * 2, "std")]
)
def test_one_value_per_channel(mean: list[float], std: list[float], key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} needs one value per channel: 3; given"):
        build_model("small-cnn", shape=(3, 32, 32), classes=10, mean=mean, std=std)


def test_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'preact-resnet18'"):
        build_model("preactresnet18", shape=(3, 32, 32), classes=10, **RGB)


def test_one_class_is_no_classifier() -> None:
    with pytest.raises(ConfigError, match="at least 2 classes; given 1"):
        build_model("small-cnn", shape=(3, 32, 32), classes=1, **RGB)


@pytest.mark.parametrize("name", ["torchvision:squeezenet1_1", "timm:test_resnet", "timm:test_vit"])
@pytest.mark.parametrize("channels", [1, 3])
def test_networks_of_other_libraries(name: str, channels: int) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    model = build_model(
        name, shape=(channels, 64, 64), classes=7, mean=[0.5] * channels, std=[0.5] * channels
    )
    assert model.training
    with torch.no_grad():
        assert model.eval()(torch.rand(2, channels, 64, 64)).shape == (2, 7)


def test_torchvision_vit_takes_the_size_of_the_images() -> None:
    from rpat_cli.models.libraries import torchvision_builder

    with torch.device("meta"):
        net = torchvision_builder("vit_b_32")(1, 64, 7)
        assert net(torch.zeros(2, 1, 64, 64)).shape == (2, 7)
    with pytest.raises(ConfigError, match="a multiple of 32 pixels, such as 32; these have 40"):
        build_model("torchvision:vit_b_32", shape=(3, 40, 40), classes=7, **RGB)


def test_timm_names_the_size_it_is_made_for() -> None:
    pytest.importorskip("timm")
    with pytest.raises(
        ConfigError, match=r"'timm:test_vit' does not take images of 40 x 40 .* made for 160 x 160"
    ):
        build_model("timm:test_vit", shape=(3, 40, 40), classes=7, **RGB)


def test_torchvision_names_the_smallest_image() -> None:
    with pytest.raises(
        ConfigError,
        match="'torchvision:alexnet' takes images of at least 63 x 63 pixels; these have 32",
    ):
        build_model("torchvision:alexnet", shape=(3, 32, 32), classes=10, **RGB)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_unknown_network_of_another_library(library: str) -> None:
    if library == "timm":
        pytest.importorskip("timm")
    with pytest.raises(ConfigError, match=rf"{library} has no .*'resnet_18'\. Did you mean '\w+'"):
        build_model(f"{library}:resnet_18", shape=(3, 32, 32), classes=10, **RGB)


def test_missing_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rpat\[timm\]'"):
        build_model("timm:resnet18", shape=(3, 32, 32), classes=10, **RGB)
