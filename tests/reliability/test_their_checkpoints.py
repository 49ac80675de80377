"""Checkpoints as people have them: loaded without running any of their code, or said in one
sentence what they are."""

import argparse
import datetime
import json
import pathlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rpat_cli as rpat
from rpat_cli.errors import CheckpointError, ConfigError
from rpat_cli.evaluation.plausible import implausible
from rpat_cli.evaluation.statistics import Accuracy
from rpat_cli.loading.foreign_file import load_state
from rpat_cli.loading.load import load_model
from rpat_cli.loading.saved_model import with_home
from rpat_cli.models import MODELS
from rpat_cli.models.normalize import Classifier
from rpat_cli.recipe.layers import Layer

State = dict[str, Tensor]
DATA = {"data": "fashion-mini"}


@pytest.fixture
def net() -> nn.Module:
    return MODELS["small-cnn"](1, 28, 10).eval()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def saved(content: Any, name: str = "theirs.pt") -> Path:
    torch.save(content, name)
    return Path(name)


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def keyed(key: str, state: State) -> dict[str, State]:
    return {key: state}


def noise_like(state: State) -> State:
    return {name: torch.rand_like(value.float()).to(value.dtype) for name, value in state.items()}


def assert_loads(path: Path | str, net: nn.Module, **normalization: Any) -> None:
    model = load_model(path, changes=[Layer("test", {**DATA})]).model
    assert isinstance(model, Classifier)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(model.net.state_dict()[name], value)
    for name, expected in normalization.items():
        assert getattr(model, name).flatten().tolist() == pytest.approx(expected)


class Meter:
    """What training scripts keep their averages in."""

    def __init__(self) -> None:
        self.values = [1.0]


class AttrDict(dict[str, Any]):
    """What configurations are kept in."""


BESIDE: dict[str, Any] = {
    "argparse.Namespace": argparse.Namespace(lr=0.1, out=pathlib.Path("x"), model="resnet18"),
    "numpy arrays": np.arange(6.0).reshape(2, 3),
    "numpy scalars": [np.float64(0.5), np.int64(3), np.bool_(True), np.float16(1)],
    "numpy objects": np.array([{"a": 1}, None], dtype=object),
    "paths": [pathlib.Path("a/b"), pathlib.PurePosixPath("c")],
    "dates": [datetime.datetime.now(), datetime.timedelta(1), datetime.date.today()],
    "ordered": OrderedDict(a=argparse.Namespace(b=np.float32(1))),
    "default": defaultdict(list, a=[1]),
    "sets": {1, frozenset({2}), complex(1, 2)},
    "simple": SimpleNamespace(a=1),
    "own objects": [Meter(), AttrDict(a=1, b=AttrDict())],
    "types": [torch.float16, np.dtype("int8"), torch.device("cpu"), torch.Size([1])],
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", BESIDE)
def test_harmless_objects_beside_the_weights(kind: str, zipped: bool, net: nn.Module) -> None:
    content = {"args": BESIDE[kind], "state_dict": net.state_dict(), "more": {"args": BESIDE[kind]}}
    torch.save(content, "x.pt", _use_new_zipfile_serialization=zipped)
    assert_loads("x.pt", net)


class Calls:
    """An object whose unpickling calls something."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "payload",
    [
        Calls(exec, "open('ran', 'w')"),
        Calls(eval, "open('ran', 'w')"),
        Calls(open, "ran", "w"),
        Calls(pathlib.Path.touch, pathlib.Path("ran")),
        Calls(getattr, pathlib.Path, "touch"),
        Calls(np.savetxt, "ran", [1]),
        Calls(torch.save, 1, "ran"),
        Calls(__import__, "this"),
    ],
    ids=lambda payload: payload.call[0].__name__,
)
def test_no_payload_runs(payload: Calls, zipped: bool, net: nn.Module) -> None:
    content = {"args": argparse.Namespace(a=payload), "state_dict": net.state_dict()}
    torch.save(content, "x.pt", _use_new_zipfile_serialization=zipped)
    # Those in NumPy become stand-ins, all others are refused.
    with (
        nullcontext()
        if payload.call[0] is np.savetxt
        else pytest.raises(CheckpointError, match="could run code")
    ):
        load_state("x.pt")
    assert not Path("ran").exists()


NESTED: dict[str, Callable[[State], Any]] = {
    **{key: partial(keyed, key) for key in (
        *("last", "best", "state_dict", "model_state_dict", "net", "ema", "model_ema", "params"),
        *("weights", "student", "model_state", "classifier", "backbone"),
    )},
    **{prefix: partial(under, prefix) for prefix in (
        *("module.", "_orig_mod.", "model.", "net.", "student.", "classifier.", "wrapped."),
        *("module._orig_mod.", "_orig_mod.module.", "model.module.net._orig_mod.student."),
    )},
    "compiled layers": lambda s: {k.replace(".", "._orig_mod.", 1): v for k, v in s.items()},
    "Lightning": lambda s: {
        "state_dict": under("model.", s) | {"loss.weight": torch.ones(10)},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(2)}}}],
        "hyper_parameters": AttrDict(lr=0.1),
    },
    "optimizer first": lambda s: {
        "optimizer": {"state": {"a.b": torch.ones(2, 2)}, "param_groups": []}, "x": {"y": s}
    },
    "twice the same": lambda s: {"best": s, "last": s},
    "averaged, by RPAT_SOTAs": lambda s: {
        "model_state_dict": s, "unaveraged_model_state_dict": noise_like(s)
    },
}  # fmt: skip


@pytest.mark.parametrize("layout", NESTED)
def test_any_nesting_and_any_prefix(layout: str, net: nn.Module) -> None:
    assert_loads(saved(NESTED[layout](net.state_dict())), net)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype, net: nn.Module) -> None:
    net = net.to(dtype).float()
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in net.state_dict().items()}
    assert_loads(saved(state), net)


def test_safetensors(net: nn.Module) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    for name in ("x.safetensors", "x.pt"):
        save_file(under("module.", dict(net.state_dict())), name)
        assert_loads(name, net)


def test_the_adversarial_robustness_librarys_layout(net: nn.Module) -> None:
    state = net.state_dict()
    constants = {"new_mean": torch.full((1, 1, 1), 0.4), "new_std": torch.full((1, 1, 1), 0.3)}
    model = under("module.attacker.model.", state) | under("module.model.", state)
    model |= under("module.normalizer.", constants)
    model |= under("module.attacker.normalize.", constants)
    assert_loads(saved({"model": model, "epoch": 1}), net, mean=[0.4], std=[0.3])


def test_a_normalization_for_bytes_becomes_one_for_pixels_in_0_to_1(net: nn.Module) -> None:
    constants = {"mean": torch.tensor([127.5]), "std": torch.tensor([51.0])}
    path = saved(under("0.", constants) | under("1.", net.state_dict()))
    assert_loads(path, net, mean=[0.5], std=[0.2])
    assert "0..255" in " ".join(rpat.load_model(path, **DATA).remarks)


TWO: dict[str, tuple[Callable[[State, State], Any], str]] = {
    "timm": (lambda raw, ema: {"state_dict": raw, "state_dict_ema": ema}, "state_dict_ema"),
    "beside": (lambda raw, ema: {"model": raw, "ema": ema}, "ema"),
    "deep": (lambda raw, ema: {"raw": {"net": raw}, "avg": {"net": ema}}, "avg"),
    "in one": (
        lambda raw, ema: {"state_dict": under("model.", raw) | under("ema_model.module.", ema)},
        "state_dict.ema_model",
    ),
    "distilled": (
        lambda raw, ema: under("module.teacher.", raw) | under("module.student.", ema), "student"
    ),
    "best and last": (lambda raw, ema: {"best": ema, "last": raw}, "best"),
}  # fmt: skip


@pytest.mark.parametrize("layout", TWO)
def test_of_two_networks_one_is_asked_for(layout: str, net: nn.Module) -> None:
    pack, key = TWO[layout]
    path = saved(pack(noise_like(net.state_dict()), net.state_dict()))
    with pytest.raises(ConfigError, match=r"holds the weights of 2 networks.*theirs\.pt:") as error:
        rpat.load_model(path, **DATA)
    assert key in str(error.value)
    assert_loads(f"{path}:{key}", net)
    _, file = rpat.evaluate(f"{path}:{key}", "clean", limit=20, **DATA)
    assert json.loads(file.read_text())["weights"] == key
    with pytest.raises(CheckpointError, match=f"under the key 'nothing'. There is: .*{key}"):
        rpat.load_model(f"{path}:nothing", **DATA)


def test_a_key_of_our_own_checkpoint_is_refused(net: nn.Module) -> None:
    run = rpat.train(
        data={"name": "fashion-mini", "val_size": 100}, model="small-cnn", method="standard",
        epochs=1, eval=["clean"],
    )  # fmt: skip
    best = run.checkpoint("best")
    with pytest.raises(ConfigError, match="leave out :ema"):
        rpat.load_model(f"{best}:ema")
    with pytest.raises(ConfigError, match="--normalize: has no effect"):
        rpat.evaluate(best, "clean", data={"normalize_as": "none"}, limit=10)
    evaluation, file = rpat.evaluate(best, "clean", limit=50)
    assert file.parent == run.evals
    assert "remarks" not in json.loads(file.read_text())
    assert evaluation.clean.value > 0.3


KINDS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty"),
    "html": (b"<!DOCTYPE html><html>", "a web page"),
    "html, spaced": (b"\xef\xbb\xbf\n <HTML lang='en'>", "a web page"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1",
        "Git LFS.*git lfs pull",
    ),
    "xml": (b"<?xml version='1.0'?><Error>", "an XML text"),
    "json": (b'{"error": "not found"}', "a JSON text"),
    "text": (b"404: Not Found", "begins with '404: Not Found'"),
    "gzip": (b"\x1f\x8b\x08 and so on", "a compressed archive"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "HDF5"),
    "numpy": (b"\x93NUMPY\x01\x00", "NumPy"),
    "half a zip": (b"PK\x03\x04 half", "the end of the file is missing"),
    "noise": (bytes(range(200, 250)), "not a checkpoint, or a damaged one"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_checkpoint_is_named(kind: str) -> None:
    content, said = KINDS[kind]
    Path("x.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"x.pt.*{said}") as error:
        rpat.load_model("x.pt", **DATA)
    assert "\n" not in str(error.value)


def test_torchscript_and_arrays_and_folders_are_named(net: nn.Module) -> None:
    torch.jit.trace(net, torch.rand(1, 1, 28, 28)).save("script.pt")
    with pytest.raises(CheckpointError, match="TorchScript program.*--model-file"):
        rpat.load_model("script.pt", **DATA)
    np.savez("arrays.pt.npz", a=np.ones(2))
    with pytest.raises(CheckpointError, match=r"NumPy arrays \(\.npz\)"):
        rpat.load_model("arrays.pt.npz", **DATA)


def quantized(state: State) -> State:
    return {k: (v * 100).to(torch.int8) if v.dim() == 4 else v for k, v in state.items()}


ODD: dict[str, tuple[Callable[[State], Any], str]] = {
    "sparse": (lambda s: {k: v.to_sparse() if v.dim() == 2 else v for k, v in s.items()}, "sparse"),
    "meta": (lambda s: {k: v.to("meta") for k, v in s.items()}, "meta"),
    "complex": (lambda s: {k: v.cfloat() for k, v in s.items()}, "complex"),
    "integers": (quantized, "are integers"),
    "huge": (
        lambda s: s | {"linear.weight": torch.zeros(1).expand(10**12, 1024)}, "does not store"
    ),
    "whole model": (lambda s: {"model": nn.Linear(2, 2), "s": s}, "could run code.*Linear"),
    "no weights": (lambda s: {"a": [1, 2], "n": argparse.Namespace(b=1)}, "no weights found"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_weights_that_cannot_be_used_are_named(kind: str, net: nn.Module) -> None:
    make, said = ODD[kind]
    with pytest.raises(CheckpointError, match=said) as error:
        rpat.load_model(saved(make(net.state_dict())), **DATA)
    assert "\n" not in str(error.value)


def test_results_of_equally_named_files_are_kept_apart(net: nn.Module) -> None:
    files = []
    for folder in ("a", "b"):
        Path(folder).mkdir()
        _, file = rpat.evaluate(
            saved(net.state_dict(), f"{folder}/x.pt"), "clean", limit=20, **DATA
        )
        files.append(file)
        assert [path.name for path in Path(folder).iterdir()] == ["x.pt"]
    assert files[0].parent != files[1].parent
    assert {file.parent.parent.parent for file in files} == {Path("runs/external")}


def test_an_accuracy_near_chance_is_a_warning_with_its_remedy(net: nn.Module) -> None:
    _, file = rpat.evaluate(saved(net.state_dict()), "clean", limit=50, **DATA)
    remarks = " ".join(json.loads(file.read_text())["remarks"])
    assert "does not record how its images are normalized" in remarks
    assert "WARN: clean accuracy is" in remarks
    assert "try --normalize none|cifar10|imagenet|MEAN/STD" in remarks


def test_what_is_implausible() -> None:
    assert "near chance" in implausible(Accuracy(29, 200), 10, None)
    assert "near chance" in implausible(Accuracy(100, 200), 2, None)
    assert implausible(Accuracy(172, 200), 10, None) == ""
    assert "far below the 93.20 %" in implausible(Accuracy(140, 200), 10, 0.932)
    assert implausible(Accuracy(172, 200), 10, 0.9) == ""
    assert implausible(Accuracy(20, 200), 10, 0.12) == ""  # badly trained, and known to be


def test_the_accuracy_that_a_file_records_is_held_against_it(net: nn.Module) -> None:
    path = saved({"net": net.state_dict(), "acc": 93.2, "epoch": 3})
    assert load_state(path).clean_acc == pytest.approx(0.932)
    _, file = rpat.evaluate(path, "clean", limit=50, **DATA)
    assert "far below the 93.20 %" in " ".join(json.loads(file.read_text())["remarks"])
    robust = saved({"net": net.state_dict(), "robust_acc": 50.0, "train_acc": 99.0})
    assert load_state(robust).clean_acc is None


@pytest.mark.parametrize(
    ("given", "mean", "std"),
    [("none", 0.0, 1.0), ("0.4/0.3", 0.4, 0.3), ("mnist", 0.1307, 0.3081), ("half", 0.5, 0.5)],
)
def test_the_normalization_is_given(given: str, mean: float, std: float, net: nn.Module) -> None:
    data = {"name": "fashion-mini", "normalize_as": given}
    saved_model = rpat.load_model(saved(net.state_dict()), data=data)
    assert saved_model.model.mean.item() == pytest.approx(mean, abs=1e-3)
    assert saved_model.model.std.item() == pytest.approx(std, abs=1e-3)
    assert saved_model.remarks == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [("125.3/63", "Did you mean 0.4914/0.2471"), ("0.5/0", "positive"), ("0.5/x", "MEAN/STD"),
     ("0.5/nan", "finite"), ("cifar", "Did you mean 'cifar10'"), ("1,2/1,1", "2 values")],
)  # fmt: skip
def test_a_wrong_normalization_is_refused(given: str, said: str, net: nn.Module) -> None:
    data = {"name": "fashion-mini", "normalize_as": given}
    with pytest.raises(ConfigError, match=said):
        rpat.load_model(saved(net.state_dict()), data=data)


def test_more_outputs_than_classes_count_as_wrong(net: nn.Module) -> None:
    wide = nn.Linear(784, 11)
    with torch.no_grad():
        wide.weight.zero_()
        wide.bias.copy_(torch.tensor([0.0] * 10 + [1.0]))
    model = nn.Sequential(nn.Flatten(), wide).eval()
    evaluation, file = rpat.evaluate(model, "clean,pgd-2,apgd-t", limit=30, **DATA)
    assert evaluation.clean.correct == 0
    remarks = " ".join(json.loads(file.read_text())["remarks"])
    assert "the model has 11 outputs, the data set 10 classes" in remarks
    with torch.no_grad():
        wide.bias.copy_(torch.tensor([1.0] + [0.0] * 10))
    evaluation, _ = rpat.evaluate(model, "clean,pgd-2,apgd-t,square", limit=30, **DATA)
    assert evaluation.clean.correct == 3


def test_a_folder_that_cannot_be_written_to_is_left_alone(
    net: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rpat_cli.records.run_folder import RunFolder

    saved_model = rpat.load_model(saved(net.state_dict()), **DATA)
    assert with_home(saved_model, Path("out")).folder == RunFolder(Path("out"))
    run = Path("mine")
    (run / "checkpoints").mkdir(parents=True)
    (run / "recipe.yaml").write_text("")
    from dataclasses import replace

    in_run = replace(saved_model, file=run / "checkpoints/best.pt", home=None)
    assert with_home(in_run, None).folder == RunFolder(run)
    monkeypatch.setattr("os.access", lambda path, mode: "mine" not in str(path))
    moved = with_home(in_run, None)
    assert moved.folder.path.parent == Path("runs/external")
    assert "cannot be written to: the results go to" in moved.remarks[-1]


def test_constants_that_no_images_have_are_said_with_their_file(net: nn.Module) -> None:
    constants = {"mean": torch.full((1,), torch.nan), "std": torch.ones(1)}
    file = saved({**net.state_dict(), **constants})
    with pytest.raises(CheckpointError, match=r"theirs\.pt: mean and std must be finite"):
        load_model(file, changes=[Layer("test", DATA)])
