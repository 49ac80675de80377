"""The networks of tests/golden/models*.json: names, shapes, and how their weights are filled."""

import base64
import json
import math
import zlib
from typing import Any

import torch
from helpers import golden_folders
from torch import Tensor

INTEGERS = ("num_batches_tracked", "flag_update_statistics")

Shapes = dict[str, tuple[int, ...]]


def robustbench_networks() -> dict[str, dict[str, Any]]:
    """The records of `models2*.json`, in ours and in the folders of `RPAT_GOLDEN_DIRS`, by name."""
    files = [file for folder in golden_folders() for file in sorted(folder.glob("models2*.json"))]
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        for name, record in json.loads(file.read_text()).items():
            found.setdefault(name, record)
            if found[name] != record:  # another one of the same name
                found[f"{name} of {file.stem}"] = record
    return found


def shapes_of(record: dict[str, Any]) -> Shapes:
    """Names and shapes of a network's state, in the order of its file."""
    if "state" in record:
        return {name: tuple(shape) for name, shape in record["state"].items()}
    lines = zlib.decompress(base64.b64decode(record["state_zlib"])).decode().split("\n")
    pairs = (line.rsplit(" ", 1) for line in lines)
    return {name: tuple(int(side) for side in shape.split("x") if side) for name, shape in pairs}


def filled(shapes: Shapes, first: int = 0) -> dict[str, Tensor]:
    """The first rule of tests/golden/README.md; entries are counted from `first`."""
    numbers = enumerate(shapes.items(), start=first)
    return {name: _fill(k, name, shape) for k, (name, shape) in numbers}


def _fill(k: int, name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith(INTEGERS):
        return torch.zeros(shape, dtype=torch.int64)
    s = torch.sin(0.37 * torch.arange(math.prod(shape), dtype=torch.float64) + k).reshape(shape)
    return _scaled(s, name, math.sqrt(2 / math.prod(shape[1:])))


def mixed(shapes: Shapes, factor: float = 1.0) -> dict[str, Tensor]:
    """The second rule, of `logits2`."""
    return {name: _mix(k, name, shape, factor) for k, (name, shape) in enumerate(shapes.items())}


def _mix(k: int, name: str, shape: tuple[int, ...], factor: float) -> Tensor:
    if name.endswith(INTEGERS):
        return torch.zeros(shape, dtype=torch.int64)
    mask = 2**32 - 1
    h = torch.arange(1, math.prod(shape) + 1, dtype=torch.int64) + 7919 * k
    h = (h * 2654435761) & mask
    h = h ^ (h >> 16)
    h = (h * 73244475) & mask
    h = h ^ (h >> 16)
    u = (h.double() / 2**31 - 1).reshape(shape)
    return _scaled(u, name, factor * math.sqrt(1.5 / math.prod(shape[1:])))


def _scaled(s: Tensor, name: str, scale: float) -> Tensor:
    """Numbers in [-1, 1], brought to the size that an entry of this name has."""
    if name.endswith("running_var"):
        return 1 + 0.2 * s**2
    if name.endswith("running_mean"):
        return 0.05 * s
    if s.dim() == 0:
        return torch.tensor(0.2, dtype=torch.float64)
    if s.dim() == 1:
        return 1 + 0.1 * s if name.endswith("weight") else 0.05 * s
    return s * scale


def wave(size: int) -> Tensor:
    """The fixed input of tests/golden/README.md."""
    return (0.5 + 0.5 * torch.sin(0.11 * torch.arange(6 * size * size, dtype=torch.float64))).view(
        2, 3, size, size
    )
