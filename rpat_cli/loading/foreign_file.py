"""Reading weights from a checkpoint that other code has written: RPAT_Benchmarks, Consistency-AT,
RPAT_SOTAs, ReBAT, RobustBench.

Such files differ in three ways, each undone here: the state dict is stored under some key; its
names carry the prefixes of wrappers (`DataParallel`, `torch.compile`, a normalizing
`nn.Sequential`); and the normalization may be part of the file. Nothing in a file is ever executed.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rpat_cli.errors import CheckpointError, MissingExtraError, RpatError
from rpat_cli.loading.architecture import MAX_CLASSES
from rpat_cli.loading.inert import RefusedError, load_inert
from rpat_cli.loading.weights_in import State, find_weights, recorded_accuracy
from rpat_cli.records.extent import check_extent, check_packed
from rpat_cli.records.file_kinds import DAMAGED, is_safetensors, not_a_checkpoint

MAX_LISTED = 6
"""Names that an error message lists in full; of more it lists a few."""


@dataclass(frozen=True)
class ImportedState:
    """The weights of a file, without wrappers' prefixes, and its normalization if it has one (per
    channel, pixels in [0, 1]).

    `clean_acc`: the accuracy on clean images that the file records, if it does. `remarks`: what was
    done to it that its user may want to know.
    """

    path: Path
    tensors: State
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    clean_acc: float | None = None
    remarks: tuple[str, ...] = ()


def load_state(path: str | Path, key: str = "", prefer: str = "") -> ImportedState:
    """Read a checkpoint file of any known layout, on the CPU.

    `key` names the state dict in a file that holds several, such as raw and averaged weights;
    `prefer` is the one to use if none is named. Raises `CheckpointError` for a file that is
    missing, damaged, holds code or objects other than tensors and plain values, or has no state
    dict, and `ConfigError` for one with several if none is named.
    """
    path = Path(path)
    content = read_content(path)
    try:
        found = find_weights(content, key, path, prefer)
    except RpatError:
        raise
    except Exception as error:  # tensors that claim to be what they are not
        raise CheckpointError(f"{path}: {DAMAGED} ({type(error).__name__}).") from error
    classes = inferred_classes(found.tensors)
    if classes and classes > MAX_CLASSES:
        raise CheckpointError(f"{path}: {DAMAGED}: its last layer has {classes} outputs.")
    return ImportedState(
        path, found.tensors, found.mean, found.std, recorded_accuracy(content), found.remarks
    )


def is_foreign(path: str | Path) -> bool:
    """Whether other code than rpat wrote this file. Raises `CheckpointError` for a file that cannot
    be read."""
    content = read_content(Path(path))
    ours = {"format", "checksum", "architecture", "recipe", "model"}
    # A damaged checkpoint of ours may lack one of them.
    return not (isinstance(content, Mapping) and len(content.keys() & ours) >= 3)


def inferred_classes(state: Mapping[str, Tensor]) -> int | None:
    """The number of classes: the rows of the last matrix, which is the head in every known
    layout, or, where that is a convolution, of the last 1 x 1 convolution."""
    matrices = [tensor for tensor in state.values() if tensor.dim() == 2]
    heads = matrices or [tensor for tensor in state.values() if tensor.shape[2:] == (1, 1)]
    return heads[-1].shape[0] if heads else None


def inferred_channels(state: Mapping[str, Tensor]) -> int | None:
    """The number of image channels: the input channels of the first convolution."""
    return next((tensor.shape[1] for tensor in state.values() if tensor.dim() == 4), None)


def listed(names: Sequence[str]) -> str:
    """The names for an error message, cut short when there are many."""
    if len(names) <= MAX_LISTED:
        return ", ".join(names)
    shown = MAX_LISTED - 2  # "and 1 more" would be as long as the name
    return f"{', '.join(names[:shown])} and {len(names) - shown} more"


def read_content(path: Path) -> Any:
    """What is in the file: tensors on the CPU, plain values, stand-ins for harmless objects. Raises
    `CheckpointError` that says what the file is if it is no checkpoint."""
    check_packed(path)
    if wrong := not_a_checkpoint(path):
        raise CheckpointError(f"{path}: {wrong}")
    content = _unpickled(path)
    check_extent(content, path)
    return content


def _unpickled(path: Path) -> Any:
    try:
        if is_safetensors(path):
            return _read_safetensors(path)
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            return load_inert(path)
    except RefusedError as error:
        raise CheckpointError(
            f"{path}: holds objects that could run code, so it is not loaded ({error}). Save only "
            "the state dict: torch.save(model.state_dict(), FILE)."
        ) from error
    except MissingExtraError:
        raise
    # torch.load raises a dozen kinds of errors for a damaged file.
    except Exception as error:
        raise CheckpointError(f"{path}: {DAMAGED} ({type(error).__name__}).") from error


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ModuleNotFoundError:
        raise MissingExtraError(f"reading {path.name}", "hub") from None
    return load_file(path, device="cpu")
