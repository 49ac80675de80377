"""The classes that exported weights predict, without rpat and safetensors: the layout of the file,
and small-cnn written out."""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

DTYPES = {"F32": np.float32, "I64": np.int64}


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """The length of the header (8 bytes), the header (JSON), the tensors one after the other."""
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    state = {}
    for name, about in json.loads(content[8:start]).items():
        if name != "__metadata__":
            begin, end = about["data_offsets"]
            values = np.frombuffer(content[start + begin : start + end], DTYPES[about["dtype"]])
            state[name] = torch.from_numpy(values.copy()).view(about["shape"])
    return state


def classes(state: dict[str, Tensor], x: Tensor) -> list[int]:
    """Three convolutions of stride 2 with BatchNorm, and a linear layer."""
    x = (x - state["mean"]) / state["std"]
    for i in range(3):
        x = F.conv2d(x, state[f"net.convs.{i}.weight"], stride=2, padding=1)
        norm = [state[f"net.norms.{i}.{name}"] for name in ("running_mean", "running_var")]
        norm += [state[f"net.norms.{i}.{name}"] for name in ("weight", "bias")]
        x = F.batch_norm(x, *norm).relu()
    logits = F.linear(x.flatten(1), state["net.linear.weight"], state["net.linear.bias"])
    found: list[int] = logits.argmax(1).tolist()
    return found
