"""Checkpoint files as other code writes them, and what is said about those that do not fit."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rpat_cli.errors import CheckpointError, ConfigError
from rpat_cli.loading.foreign import load_foreign, nearest_architecture
from rpat_cli.loading.foreign_file import inferred_channels, inferred_classes, load_state
from rpat_cli.models import MODELS
from rpat_cli.models.base import Classifier

SHAPE = (3, 32, 32)
GIVEN = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
FILE = {"mean": (0.49, 0.48, 0.45), "std": (0.2, 0.21, 0.22)}
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(1)
    return MODELS["mobilenet-v2"](3, 32, 10).eval()


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(2))


def logits_of(
    net: nn.Module, x: Tensor, normalization: dict[str, tuple[float, ...]] = GIVEN
) -> Tensor:
    with torch.no_grad():
        return Classifier(net, **normalization).eval()(x)


def saved(content: Any, folder: Path, name: str = "last.model") -> Path:
    torch.save(content, folder / name)
    return folder / name


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


NESTED: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "ordered": OrderedDict,
    "state_dict": lambda state: {"state_dict": state, "epoch": 200},
    "model_state_dict": lambda state: {
        "epoch": 3,
        "model_state_dict": state,
        "opt_state": {"lr": 0.1},
    },
    "numpy scalars": lambda state: {
        "state_dict": state,
        "test_acc": np.float64(0.8),
        "best": np.float32(0.5),
    },
    "net": lambda state: {"net": state, "acc": 80.1},
    "twice": lambda state: {"state": {"model": state}},
    "DataParallel": lambda state: prefixed(state, "module."),
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "both": lambda state: {"model": prefixed(state, "module.model.")},
    "averaged": lambda state: {"n_averaged": torch.tensor(7), **prefixed(state, "module.")},
    "old, without counters": lambda state: {
        k: v for k, v in state.items() if "num_batches" not in k
    },
}


@pytest.mark.parametrize("nesting", NESTED)
def test_nestings_and_prefixes(nesting: str, net: nn.Module, x: Tensor, tmp_path: Path) -> None:
    path = saved(NESTED[nesting](net.state_dict()), tmp_path)
    model = load_foreign("mobilenet-v2", path, shape=SHAPE, classes=10, **GIVEN)
    assert not model.training
    torch.testing.assert_close(model(x), logits_of(net, x), rtol=0, atol=0)


def buffers(shape: tuple[int, ...], names: tuple[str, str] = ("mean", "std")) -> State:
    return {
        name: torch.tensor(FILE[key]).view(shape)
        for name, key in zip(names, ("mean", "std"), strict=True)
    }


NORMALIZED: dict[str, Callable[[State], State]] = {
    "sequential": lambda s: prefixed(buffers((3, 1, 1)), "0.") | prefixed(s, "1."),
    "data parallel sequential": lambda s: prefixed(
        prefixed(buffers((3,)), "0.") | prefixed(s, "1."), "module."
    ),
    "wrapper module": lambda s: (
        prefixed(buffers((1, 3, 1, 1)), "normalize.") | prefixed(s, "model.")
    ),
    "mu and sigma": lambda s: buffers((1, 3, 1, 1), ("mu", "sigma")) | prefixed(s, "model."),
    "mu and sigma next to it": lambda s: prefixed(
        buffers((1, 3, 1, 1), ("mu", "sigma")) | s, "module."
    ),
    "our own": lambda s: buffers((3, 1, 1)) | prefixed(s, "net."),
}


@pytest.mark.parametrize("layout", NORMALIZED)
def test_normalization_of_the_file_is_used(
    layout: str, net: nn.Module, x: Tensor, tmp_path: Path
) -> None:
    path = saved(
        {"state_dict": NORMALIZED[layout](net.state_dict())}, tmp_path, "wa_model_best.pth"
    )
    model = load_foreign("mobilenet-v2", path, shape=SHAPE, classes=10, **GIVEN)
    torch.testing.assert_close(model(x), logits_of(net, x, FILE), rtol=0, atol=0)


def test_one_value_normalizes_all_channels(net: nn.Module, x: Tensor, tmp_path: Path) -> None:
    state = {
        "mu": torch.tensor([0.5]),
        "sigma": torch.tensor([0.25]),
        **prefixed(net.state_dict(), "model."),
    }
    model = load_foreign(
        "mobilenet-v2",
        saved(state, tmp_path),
        shape=SHAPE,
        classes=10,
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )
    torch.testing.assert_close(model(x), logits_of(net, x), rtol=0, atol=0)


def test_normalization_of_another_channel_count(net: nn.Module, tmp_path: Path) -> None:
    path = saved(net.state_dict(), tmp_path)
    with pytest.raises(ConfigError, match="normalization has 2 values, the images have 3 channels"):
        load_foreign("mobilenet-v2", path, shape=SHAPE, classes=10, mean=(0.5, 0.5), std=(1.0, 1.0))


def test_our_own_model_comes_back(x: Tensor, tmp_path: Path) -> None:
    ours = Classifier(MODELS["small-cnn"](3, 32, 5), **FILE).eval()
    model = load_foreign(None, saved(ours.state_dict(), tmp_path), shape=SHAPE, **GIVEN)
    torch.testing.assert_close(model(x), ours(x), rtol=0, atol=0)


def renamed_head(state: State, old: str, new: str) -> State:
    head = {new + k.removeprefix(old): v for k, v in state.items() if k.startswith(old)}
    return {k: v for k, v in state.items() if not k.startswith(old)} | head


def test_wide_networks_under_either_head_and_with_the_unused_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rpat_cli.models.wide_resnet import WideResNet

    def narrow(channels: int, image_size: int, classes: int) -> nn.Module:
        return WideResNet(28, 1, channels, classes, head="linear").eval()

    monkeypatch.setitem(MODELS._entries, "wrn-28-10", narrow)
    net = narrow(3, 32, 10)
    state = renamed_head(net.state_dict(), "linear.", "fc.")
    block = {k: v for k, v in state.items() if k.startswith("block1.")}
    state |= {f"sub_{k}": torch.zeros_like(v) for k, v in block.items()}
    x = torch.rand(2, *SHAPE)
    path = saved({"state_dict": prefixed(state, "module.")}, tmp_path)
    assert nearest_architecture(load_state(path).tensors) == "wrn-28-10"
    model = load_foreign("wrn-28-10", path, shape=SHAPE, classes=10, **GIVEN)
    torch.testing.assert_close(model(x), logits_of(net, x), rtol=0, atol=0)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize(("channels", "classes"), [(3, 10), (1, 100)])
def test_every_architecture_is_recognized(name: str, channels: int, classes: int) -> None:
    with torch.device("meta"):
        state = MODELS[name](channels, 32, classes).state_dict()
    assert nearest_architecture(state) == name
    assert inferred_classes(state) == classes
    assert inferred_channels(state) == channels


def test_no_architecture_comes_near() -> None:
    assert (
        nearest_architecture({"a.weight": torch.zeros(3, 3, 3, 3), "b.weight": torch.zeros(5, 7)})
        is None
    )
    assert nearest_architecture({}) is None


def test_model_and_classes_may_be_left_out(net: nn.Module, x: Tensor, tmp_path: Path) -> None:
    model = load_foreign(None, saved(net.state_dict(), tmp_path), shape=SHAPE, **GIVEN)
    torch.testing.assert_close(model(x), logits_of(net, x), rtol=0, atol=0)


def test_unrecognized_file_asks_for_a_name(tmp_path: Path) -> None:
    path = saved({"a.weight": torch.zeros(4, 4)}, tmp_path)
    with pytest.raises(CheckpointError, match=r"none of the known models\. Name one: small-cnn"):
        load_foreign(None, path, shape=SHAPE, **GIVEN)


def test_mismatch_lists_names_and_the_nearest_architecture(net: nn.Module, tmp_path: Path) -> None:
    path = saved(net.state_dict(), tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load_foreign("small-cnn", path, shape=SHAPE, classes=10, **GIVEN)
    message = str(caught.value)
    assert str(path) in message
    assert "does not fit the model 'small-cnn'" in message
    assert "missing: convs.0.weight" in message
    assert "unexpected: bn1.bias, bn1.running_mean" in message
    assert " more" in message
    assert "of another shape: linear.weight (file [10, 1280], model [10, 1024])" in message
    assert (
        "nearest known model is 'mobilenet-v2', for 10 classes and 3 image channels, with 100% "
        "in common" in message
    )


def test_class_count_that_differs_is_named(net: nn.Module, tmp_path: Path) -> None:
    path = saved(net.state_dict(), tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load_foreign("mobilenet-v2", path, shape=SHAPE, classes=100, **GIVEN)
    assert "2 of another shape: linear.weight (file [10, 1280], model [100, 1280])" in str(
        caught.value
    )
    assert "looks like 'mobilenet-v2' for 10 classes" in str(caught.value)


def test_loading_changes_nothing_in_the_file(net: nn.Module, tmp_path: Path) -> None:
    before = copy.deepcopy(net.state_dict())
    path = saved(net.state_dict(), tmp_path)
    load_foreign("mobilenet-v2", path, shape=SHAPE, classes=10, **GIVEN)
    after = load_state(path).tensors
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"last\.model: no such file"):
        load_state(tmp_path / "last.model")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"PK\x03\x04 half a zip"])
def test_damaged_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "best.model"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a checkpoint, or a damaged one"):
        load_state(path)


def test_half_a_file(net: nn.Module, tmp_path: Path) -> None:
    path = saved(net.state_dict(), tmp_path)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match="not a checkpoint, or a damaged one"):
        load_state(path)


class Payload:
    """An object whose unpickling would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('this file ran code')",))


def test_file_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path = saved({"state_dict": {}, "extra": Payload()}, tmp_path)
    with pytest.raises(CheckpointError, match=r"could run code.*exec.*Save only the state dict"):
        load_state(path)


def test_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    path = saved(nn.Linear(2, 2), tmp_path)
    with pytest.raises(CheckpointError, match=r"could run code.*Linear"):
        load_state(path)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"state_dict": {"a": 1}}])
def test_no_weights_in_the_file(content: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights found"):
        load_state(saved(content, tmp_path))
