"""Networks against the published ones: names, order, shapes, parameter counts and logits."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from golden_networks import filled, wave
from torch import nn

from rpat_cli.errors import ConfigError
from rpat_cli.models import MODELS, is_model_name, list_models, model_examples, model_names
from rpat_cli.models.base import build_model
from rpat_cli.models.deepmind import DMWideBlock, padded
from rpat_cli.models.layers import flatten
from rpat_cli.models.mean_sparse import MeanSparse

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "models.json").read_text())
PUBLISHED = {
    "benchmarks/pre_resnet18-64px": "preact-resnet18-stem",
    "benchmarks/resnet18": "resnet18-bottleneck",
    "benchmarks/resnet18-64px": "resnet18-bottleneck",
    "benchmarks/wrn2810": "wrn-28-10",
    "benchmarks/wrn2810-64px": "wrn-28-10",
    "sotas/PreActResNet18": "preact-resnet18",
    "sotas/WideResNet-34-10": "wrn-34-10",
    "sotas/VGG16": "vgg16",
    "sotas/MobileNetV2": "mobilenet-v2",
}


def test_every_golden_network_is_tested() -> None:
    assert set(PUBLISHED) == set(GOLDEN)


@pytest.mark.parametrize("published", PUBLISHED)
def test_reproduces_the_published_network(published: str) -> None:
    golden = GOLDEN[published]
    net = MODELS[PUBLISHED[published]](3, golden["image_size"], golden["classes"]).double().eval()
    state = net.state_dict()
    assert [(name, list(entry.shape)) for name, entry in state.items()] == list(
        golden["state"].items()
    )
    assert sum(p.numel() for p in net.parameters()) == golden["parameters"]
    net.load_state_dict(filled({name: tuple(entry.shape) for name, entry in state.items()}))
    with torch.no_grad():
        logits = net(wave(golden["image_size"]))
    expected = torch.tensor(golden["logits"], dtype=torch.float64)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-8)


def test_resnet18_is_the_usual_one() -> None:
    assert sum(p.numel() for p in MODELS["resnet18"](3, 32, 10).parameters()) == 11_173_962


LARGE = ("resnest-152", "ra-wrn-70-16", "meansparse-ra-wrn-70-16", "bit-r152x2-gn-128px")
EVERY = [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in MODELS]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 28, 3), (3, 64, 200)])
def test_any_channels_size_and_classes(name: str, channels: int, size: int, classes: int) -> None:
    with torch.device("meta"):  # shapes are all that is asked: no need to compute wide networks
        net = MODELS[name](channels, size, classes).eval()
        assert net(torch.zeros(2, channels, size, size)).shape == (2, classes)


SMALLEST = {"small-cnn": 16, "vgg16": 16, "wrn-28-10": 4, "wrn-34-10": 4}  # all others: 8


@pytest.mark.parametrize("name", EVERY)
def test_smallest_allowed_image_works_and_the_next_smaller_is_refused(name: str) -> None:
    size = SMALLEST.get(name, 8)
    with torch.device("meta"):
        assert MODELS[name](3, size, 10).eval()(torch.zeros(2, 3, size, size)).shape == (2, 10)
    with pytest.raises(
        ConfigError,
        match=rf"'{name}' takes images of at least {size} x {size} .* have {size - 1}\.",
    ):
        MODELS[name](3, size - 1, 10)


@pytest.mark.parametrize("name", ["small-cnn", "resnet18", "vgg16", "mobilenet-v2"])
def test_images_need_not_be_square(name: str) -> None:
    model = build_model(name, shape=(3, 32, 48), classes=10, mean=[0.5] * 3, std=[0.25] * 3).eval()
    with torch.no_grad():
        assert model(torch.rand(2, 3, 32, 48)).shape == (2, 10)


def test_small_cnn_is_small_and_has_batchnorm() -> None:
    net = MODELS["small-cnn"](1, 28, 10)
    assert sum(p.numel() for p in net.parameters()) == 22_106
    assert sum(isinstance(module, nn.BatchNorm2d) for module in net.modules()) == 3


def test_flattening_returns_gradients_in_the_format_of_the_images() -> None:
    """To the same bits; without it a ReLU's backward pass on a CPU meets two formats."""
    made = []
    for shape in ((4, 6, 5, 5), (4, 1, 5, 5), (4, 6, 1, 1)):
        values, weights = torch.randn(shape), torch.randn(shape[1] * shape[2] * shape[3], 3)
        for memory_format in (torch.contiguous_format, torch.channels_last):
            seen: list[torch.Tensor] = []
            leaf = values.clone(memory_format=memory_format).requires_grad_()
            x = leaf * 1
            flat = flatten(x)
            x.register_hook(seen.append)  # what is registered later sees what the first one made
            (flat @ weights).square().sum().backward()
            assert seen[0].is_contiguous(memory_format=memory_format)
            made.append(leaf.grad)
        assert made[-1].equal(made[-2])
        plain = values.clone().requires_grad_()
        (plain.flatten(1) @ weights).square().sum().backward()
        assert made[-1].equal(plain.grad)
    assert not flatten(torch.randn(2, 3, 4, 4)).requires_grad


def test_flattening_works_under_function_transforms() -> None:
    net = MODELS["small-cnn"](1, 16, 10).eval()
    x = torch.randn(3, 1, 16, 16).to(memory_format=torch.channels_last)
    logits = net(x)
    one_by_one = torch.func.vmap(lambda image: net(image[None])[0])(x)
    assert one_by_one.allclose(logits, atol=1e-5)
    jacobian = torch.func.jacrev(net)(x)
    assert jacobian.shape == (3, 10, 3, 1, 16, 16)
    leaf = x.clone().requires_grad_()
    ways = torch.eye(10)[:, None].expand(10, 3, 10)
    (rows,) = torch.autograd.grad(net(leaf), leaf, ways, is_grads_batched=True)
    for image in range(3):
        assert rows[:, image].allclose(jacobian[image, :, image], atol=1e-5)


def test_small_cnn_learns() -> None:
    torch.manual_seed(0)
    model = build_model("small-cnn", shape=(1, 28, 28), classes=2, mean=[0.5], std=[0.5])
    x = torch.rand(64, 1, 28, 28)
    y = torch.arange(64) % 2
    x[y == 1, :, :14] *= 0.5
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    assert (model(x).argmax(1) == y).float().mean() == 1


def test_listing_names_needs_no_torch() -> None:
    code = (
        "import sys, rpat_cli.models as m; m.model_names(); m.is_model_name('x:y'); assert "
        "'torch' not in sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", [*MODELS, "torchvision:resnet18", "timm:resnet18"])
def test_known_names(name: str) -> None:
    assert is_model_name(name)


@pytest.mark.parametrize("name", ["resnet19", "torchvision:", "keras:resnet18", ""])
def test_unknown_names(name: str) -> None:
    assert not is_model_name(name)


def test_names_for_help() -> None:
    forms = [family.form for family in MODELS.families]
    assert model_names() == [*MODELS, *forms, "torchvision:NAME", "timm:NAME"]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("WRN_34_20", "wrn-34-20"),
        ("DM-WRN-28-10-SiLU", "dm-wrn-28-10-silu"),
        ("ResNet-18", "resnet18"),
        ("preact-18-bn", "preact-resnet18"),
        ("wrn-33-10", "wrn-33-10"),
    ],
)
def test_names_are_spelled_as_the_table_has_them(written: str, name: str) -> None:
    assert MODELS.spelled(written) == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wrn-33-10", r"a depth of 6 n \+ 4 layers, such as 28 or 34; given 33"),
        ("wrn-4-10", r"such as 10 or 16; given 4"),
        ("wrn-34-0", r"Did you mean 'wrn-34-20'\?.* wrn-DEPTH-WIDTH"),
        ("dm-wrn-28-10-gelu", r"Did you mean 'dm-wrn-28-10-silu'\?"),
        ("wrn-28-10-silu-sub", "unknown model"),
        ("wrn-99999-10", "unknown model"),
    ],
)
def test_names_of_no_family_are_refused(name: str, said: str) -> None:
    assert not is_model_name(name)
    with pytest.raises(ConfigError, match=said):
        MODELS[name]


def test_examples_of_families_are_names_to_complete() -> None:
    examples = [name for family in MODELS.families for name in family.examples]
    assert set(examples) < set(model_examples())
    assert all(is_model_name(name) for name in examples)
    assert set(list_models()) == set(model_names())


def test_a_family_gives_the_layout_that_a_row_has() -> None:
    with torch.device("meta"):
        row, member = MODELS["wrn-34-10"](3, 32, 10), MODELS["wrn-34-10-relu"](3, 32, 10)
    assert str(row) == str(member)


def test_a_network_of_a_family_says_its_name_when_images_are_too_small() -> None:
    with pytest.raises(ConfigError, match="'dm-wrn-10-1-silu' takes images of at least 4 x 4"):
        build_model("dm-wrn-10-1-silu", shape=(3, 3, 3), classes=2, mean=[0] * 3, std=[1] * 3)


def test_deepminds_networks_pad_right_and_bottom_only() -> None:
    """Under other names, TRADES' weights give DeepMind's logits where the image is not halved, and
    others where it is: there each output sees the two pixels after its own."""
    block = DMWideBlock(1, 1, stride=2, activation=nn.ReLU()).eval()
    block.conv_0.weight.data.fill_(1.0)
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 1, 2] = 1.0
    seen = block.conv_0(padded(x, stride=2))
    assert seen.flatten().tolist() == [1, 1, 0, 0]  # rows 0-2, columns 0-2 and 2-4


def test_mean_sparse_replaces_what_is_near_the_mean() -> None:
    layer = MeanSparse(2)
    layer.running_mean.copy_(torch.tensor([0.0, 10.0]))
    layer.running_var.copy_(torch.tensor([1.0, 4.0]))
    x = torch.tensor([[0.4, 0.6], [10.9, 8.9]]).view(1, 2, 2, 1).requires_grad_()
    assert torch.equal(layer(x), x)  # threshold 0: nothing
    layer.threshold.fill_(0.5)
    out = layer(x)
    assert out.flatten().tolist() == pytest.approx([0.0, 0.6, 10.0, 8.9])
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.flatten().tolist() == [0, 1, 0, 1]
