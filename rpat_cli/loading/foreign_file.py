"""Reading weights from a checkpoint that other code has written: RPAT_Benchmarks, Consistency-AT,
RPAT_SOTAs, ReBAT, RobustBench.

Such files differ in three ways, each undone here: the state dict is stored under some key; its
names carry the prefixes of wrappers (`DataParallel`, `torch.compile`, a normalizing
`nn.Sequential`); and the normalization may be part of the file. Nothing in a file is ever executed.
"""

import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rpat_cli.errors import CheckpointError
from rpat_cli.records.extent import check_extent, check_packed

STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model", "net", "state", "ema_state_dict")
"""Under which a state dict is looked for, in this order."""

WRAPPER_PREFIXES = (
    *("module.", "model.", "net.", "network.", "basic_net.", "_orig_mod."),
    *("0.", "1."),  # of nn.Sequential(normalize, net)
)
MEAN_NAMES = ("mean", "mu")
STD_NAMES = ("std", "sigma")

MAX_CHANNELS = 16
"""A longer `mean` is some layer's parameter, not a normalization."""

MAX_LISTED = 6
"""Names that an error message lists in full; of more it lists a few."""

State = dict[str, Tensor]


@dataclass(frozen=True)
class ImportedState:
    """The weights of a file, without wrappers' prefixes, and its normalization if it has one (per
    channel, pixels in [0, 1])."""

    path: Path
    tensors: State
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def load_state(path: str | Path) -> ImportedState:
    """Read a checkpoint file of any known layout, on the CPU.

    Raises `CheckpointError` for a file that is missing, damaged, holds code or objects other than
    tensors and plain values, or has no state dict.
    """
    path = Path(path)
    state = _find_state(_read(path))
    if not state:
        raise CheckpointError(
            f"{path}: no weights found. Looked for a state dict at the top and under "
            f"{listed(STATE_DICT_KEYS)}."
        )
    state, mean, std = _split_off_normalization(state)
    return ImportedState(path, _strip_wrappers(state), mean, std)


def is_foreign(path: str | Path) -> bool:
    """Whether other code than rpat wrote this file. Raises `CheckpointError` for a file that cannot
    be read."""
    content = _read(Path(path))
    ours = {"format", "architecture", "model"}
    return not (isinstance(content, Mapping) and content.keys() >= ours)


def inferred_classes(state: Mapping[str, Tensor]) -> int | None:
    """The number of classes: the rows of the last matrix, which is the head in every known
    layout."""
    matrices = [tensor for tensor in state.values() if tensor.dim() == 2]
    return matrices[-1].shape[0] if matrices else None


def inferred_channels(state: Mapping[str, Tensor]) -> int | None:
    """The number of image channels: the input channels of the first convolution."""
    return next((tensor.shape[1] for tensor in state.values() if tensor.dim() == 4), None)


def listed(names: Sequence[str]) -> str:
    """The names for an error message, cut short when there are many."""
    if len(names) <= MAX_LISTED:
        return ", ".join(names)
    shown = MAX_LISTED - 2  # "and 1 more" would be as long as the name
    return f"{', '.join(names[:shown])} and {len(names) - shown} more"


def _read(path: Path) -> Any:
    check_packed(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file.")
    content = _unpickled(path)
    check_extent(content, path)
    return content


def _unpickled(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_harmless_globals()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):
            raise CheckpointError(f"{path}: not a checkpoint, or a damaged one.") from error
        raise CheckpointError(
            f"{path}: holds objects that could run code, so it is not loaded "
            f"({_first_refused(str(error))}). Save only the state dict: "
            "torch.save(model.state_dict(), FILE)."
        ) from error
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        OSError,
        AttributeError,
        IndexError,
        TypeError,
    ) as error:  # torch.load raises any of these for a damaged file
        raise CheckpointError(
            f"{path}: not a checkpoint, or a damaged one ({type(error).__name__})."
        ) from error


def _harmless_globals() -> list[Any]:
    """What numpy needs to restore a scalar: the published training code saves accuracies with the
    weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        restore_scalar = np.float64(0).__reduce__()[0]
    # numpy moved this function between versions; a file names the place of the one that wrote it.
    places = [f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")]
    dtypes = [type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")]
    return [*((restore_scalar, place) for place in places), np.dtype, *dtypes]


def _first_refused(message: str) -> str:
    """The object that torch names in its long explanation, such as `GLOBAL os.system`."""
    start = message.index("GLOBAL")
    return " ".join(message[start:].split()[:2])


def _find_state(content: Any) -> State:
    """The first state dict, looked for at the top and then under the usual keys; empty if there is
    none."""
    if not isinstance(content, Mapping):
        return {}
    tensors = {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if any("." in key for key in tensors):  # `layer.weight`: the names of a state dict
        return tensors
    for key in STATE_DICT_KEYS:
        state = _find_state(content.get(key))
        if state:
            return state
    return {}


def _split_off_normalization(
    state: State,
) -> tuple[State, tuple[float, ...] | None, tuple[float, ...] | None]:
    """Split off every pair of `mean` and `std` buffers; the first pair is the normalization."""
    rest, pairs = dict(state), []
    for key in state:
        parent, _, last = key.rpartition(".")
        if last not in MEAN_NAMES:
            continue
        prefix = f"{parent}." if parent else ""
        partner = next((prefix + name for name in STD_NAMES if prefix + name in state), None)
        if partner and state[key].numel() == state[partner].numel() <= MAX_CHANNELS:
            pairs.append((rest.pop(key), rest.pop(partner)))
    if not pairs:
        return rest, None, None
    mean, std = (tuple(map(float, part.flatten().tolist())) for part in pairs[0])
    return rest, mean, std


def _strip_wrappers(state: State) -> State:
    """Remove, one after the other, the prefixes that all names share."""
    # n_averaged: the counter that torch's AveragedModel adds next to its prefixed weights.
    state = {key: value for key, value in state.items() if key != "n_averaged"}
    while prefix := _shared_prefix(state):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _shared_prefix(state: State) -> str:
    for prefix in WRAPPER_PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return prefix
    return ""
