"""The formats of `rpat export`: one row each, which writes a model and reads it back.

A model maps images (B, C, H, W), float32 in [0, 1], to logits (B, classes), its normalization
included. B is free in every format.
"""

import copy
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rpat_cli.errors import MissingExtraError
from rpat_cli.loading.architecture import Architecture

Predictor = Callable[[Tensor], Tensor]

IMAGES, LOGITS = "images", "logits"
"""The names of input and output, where a format has names."""


@dataclass(frozen=True)
class Model:
    """What is written: a model in eval mode on the CPU."""

    module: nn.Module
    architecture: Architecture

    def example(self) -> Tensor:
        """Two images: of one, tracers would take the batch size for a constant."""
        return torch.rand(2, *self.architecture.shape, generator=torch.Generator().manual_seed(0))

    def state(self) -> dict[str, Tensor]:
        """The weights and buffers, each with memory of its own."""
        state = self.module.state_dict()
        return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}

    def with_state(self, state: Mapping[str, Tensor]) -> nn.Module:
        """The same network with these weights; raises `RuntimeError` for others."""
        module = copy.deepcopy(self.module)
        module.load_state_dict(dict(state))
        return module


@dataclass(frozen=True)
class Format:
    """One format: the name of its file, what it is for, and a program that loads it elsewhere."""

    file: str
    help: str
    write: Callable[[Model, Path], None]
    read: Callable[[Model, Path], Predictor]
    usage: str


def _write_safetensors(model: Model, path: Path) -> None:
    try:
        from safetensors.torch import save_file
    except ModuleNotFoundError:
        raise MissingExtraError("writing safetensors", "hub") from None
    about = {"format": "pt", "architecture": json.dumps(model.architecture.to_dict())}
    save_file(model.state(), path, about)


def _read_safetensors(model: Model, path: Path) -> Predictor:
    from safetensors.torch import load_file

    return model.with_state(load_file(path))


def _write_state_dict(model: Model, path: Path) -> None:
    torch.save(model.state(), path)


def _read_state_dict(model: Model, path: Path) -> Predictor:
    return model.with_state(torch.load(path, map_location="cpu", weights_only=True))


def _write_torchscript(model: Model, path: Path) -> None:
    with torch.no_grad(), quietly():
        torch.jit.trace(model.module, model.example()).save(str(path))  # type: ignore[no-untyped-call]


def _read_torchscript(_: Model, path: Path) -> Predictor:
    with quietly():
        loaded: Predictor = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return loaded


def _free_batch() -> Any:
    """The batch size is any number."""
    return ({0: torch.export.Dim("batch", min=1)},)


def _write_program(model: Model, path: Path) -> None:
    with quietly():
        program = torch.export.export(
            model.module, (model.example(),), dynamic_shapes=_free_batch()
        )
        torch.export.save(program, path)


def _read_program(_: Model, path: Path) -> Predictor:
    loaded: Predictor = torch.export.load(path).module()
    return loaded


def _write_onnx(model: Model, path: Path) -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtraError("writing ONNX", "export") from None
    with torch.no_grad(), quietly():
        torch.onnx.export(
            model.module,
            (model.example(),),
            path,
            dynamo=True,
            dynamic_shapes=_free_batch(),
            input_names=[IMAGES],
            output_names=[LOGITS],
            external_data=False,
            verbose=False,
        )


def _read_onnx(_: Model, path: Path) -> Predictor:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run([LOGITS], {IMAGES: x.numpy()})[0])


FORMATS: Mapping[str, Format] = {
    "safetensors": Format(
        "model.safetensors",
        "the weights, for rpat and the Hugging Face hub",
        _write_safetensors,
        _read_safetensors,
        'from safetensors.torch import load_file\n\nstate = load_file("model.safetensors")',
    ),
    "state-dict": Format(
        "state_dict.pt",
        "the weights, for torch.load",
        _write_state_dict,
        _read_state_dict,
        'import torch\n\nstate = torch.load("state_dict.pt", weights_only=True)',
    ),
    "torch-export": Format(
        "model.pt2",
        "the whole network, for torch.export.load; it has gradients",
        _write_program,
        _read_program,
        'import torch\n\nmodel = torch.export.load("model.pt2").module()',
    ),
    "torchscript": Format(
        "model.ts",
        "the whole network, for torch.jit.load; torch deprecates it in favor of torch-export",
        _write_torchscript,
        _read_torchscript,
        'import torch\n\nmodel = torch.jit.load("model.ts")',
    ),
    "onnx": Format(
        "model.onnx",
        "the whole network, for onnxruntime and others; without gradients",
        _write_onnx,
        _read_onnx,
        "import onnxruntime\n\n"
        'session = onnxruntime.InferenceSession("model.onnx")\n'
        'logits = session.run(["logits"], {"images": x.numpy()})[0]  # x: a tensor on the CPU',
    ),
}


@contextmanager
def quietly() -> Iterator[None]:
    """Without the warnings of tracers: what they warn of is checked on images afterwards."""
    with warnings.catch_warnings(action="ignore"):
        yield
