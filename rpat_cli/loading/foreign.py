"""Weights that other code has saved: RPAT_Benchmarks, Consistency-AT, RPAT_SOTAs, ReBAT,
RobustBench, and our own.

The files differ in three ways, each undone here: the state dict lies under some key, its names
carry the prefixes of wrappers (`DataParallel`, `torch.compile`, a normalising `nn.Sequential`), and
the normalisation may be in the file, in which case it is taken over. Nothing in a file is ever
executed.
"""

import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rpat_cli.errors import CheckpointError, ConfigError
from rpat_cli.models import MODELS
from rpat_cli.models.base import Classifier, build_network

NESTINGS = ("state_dict", "model_state_dict", "model", "net", "state", "ema_state_dict")
WRAPPERS = ("module.", "model.", "net.", "network.", "basic_net.", "_orig_mod.", "0.", "1.")
MEAN_NAMES = ("mean", "mu")
STD_NAMES = ("std", "sigma")
HEADS = ("linear.", "fc.")
MAX_CHANNELS = 16  # a longer `mean` is some layer's parameter, not a normalisation
SHOWN = 4  # names per kind of mismatch in an error message
NEAR = 0.5  # share of names and shapes in common from which an architecture is worth naming

State = dict[str, Tensor]


@dataclass(frozen=True)
class ImportedState:
    """The weights of one file under their bare names, and the normalisation if the file has one
    (pixels in [0, 1])."""

    path: Path
    tensors: State
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def load_state(path: str | Path) -> ImportedState:
    """Read a checkpoint file of any known layout, on the CPU.

    Raises `CheckpointError` for a file that is missing, damaged, holds code or objects other than
    tensors and plain values, or has no state dict in it.
    """
    path = Path(path)
    state = _find_state(_read(path))
    if not state:
        raise CheckpointError(
            f"{path}: no weights found. Looked for a state dict at the top and under "
            f"{_listed(NESTINGS)}."
        )
    state, mean, std = _take_normalisation(state)
    return ImportedState(path, _strip_wrappers(state), mean, std)


def is_foreign(path: str | Path) -> bool:
    """Was this file written by other code than rpat? Raises `CheckpointError` for one that cannot
    be read at all."""
    content = _read(Path(path))
    return not (
        isinstance(content, Mapping) and content.keys() >= {"format", "architecture", "model"}
    )


def load_foreign(
    model_name: str | None,
    path: str | Path,
    *,
    shape: tuple[int, int, int],
    classes: int | None = None,
    mean: Sequence[float],
    std: Sequence[float],
) -> Classifier:
    """A classifier with the weights of `path`, in eval mode, for images of `shape` (C, H, W) with
    pixels in [0, 1].

    Without `model_name` the architecture is recognised by names and shapes; without `classes` they
    are counted in the file. `mean` and `std` hold where the file has no normalisation of its own.
    Raises `CheckpointError` for a file that cannot be read or does not fit (with the names that
    differ, and the architecture that comes nearest), and `ConfigError` as `build_model` does.
    """
    imported = load_state(path)
    name = model_name or nearest_architecture(imported.tensors)
    if name is None:
        raise CheckpointError(
            f"{path}: looks like none of the known models. Name one: {', '.join(MODELS)}."
        )
    classes = classes or inferred_classes(imported.tensors)
    if classes is None:
        raise CheckpointError(
            f"{path}: cannot tell for how many classes it was trained. Give their number."
        )
    net = build_network(name, shape, classes)
    _fill(net, imported, name)
    channels = shape[0]
    return Classifier(
        net,
        _per_channel(imported.mean or mean, channels),
        _per_channel(imported.std or std, channels),
    ).eval()


def nearest_architecture(state: Mapping[str, Tensor]) -> str | None:
    """The name in `MODELS` that shares most names and shapes with `state`; None if no one shares
    half of them."""
    shares = {name: _share(state, name) for name in MODELS}
    best = max(shares, key=lambda name: shares[name])
    return best if shares[best] >= NEAR else None


def inferred_classes(state: Mapping[str, Tensor]) -> int | None:
    """The number of classes: the rows of the last matrix, which is the head in every known
    layout."""
    matrices = [tensor for tensor in state.values() if tensor.dim() == 2]
    return matrices[-1].shape[0] if matrices else None


def inferred_channels(state: Mapping[str, Tensor]) -> int | None:
    """The number of image channels: what the first convolution takes."""
    return next((tensor.shape[1] for tensor in state.values() if tensor.dim() == 4), None)


# ---- reading


def _read(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file.")
    try:
        with torch.serialization.safe_globals(_harmless_globals()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):
            raise CheckpointError(f"{path}: not a checkpoint, or a damaged one.") from error
        raise CheckpointError(
            f"{path}: holds objects that could run code, so it is not loaded "
            f"({_first_refused(str(error))}). "
            "Save only the state dict: torch.save(model.state_dict(), FILE)."
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
    ) as error:
        raise CheckpointError(
            f"{path}: not a checkpoint, or a damaged one ({type(error).__name__})."
        ) from error


def _harmless_globals() -> list[Any]:
    """What numpy needs to restore one number: the published training code saves accuracies beside
    the weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scalar = np.float64(0).__reduce__()[
            0
        ]  # lives in numpy.core before numpy 2, in numpy._core since
    dtypes = [type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")]
    return [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")] + [
        np.dtype,
        *dtypes,
    ]


def _first_refused(message: str) -> str:
    """The object that torch names in its long explanation, such as `GLOBAL os.system`."""
    start = message.index("GLOBAL")
    return " ".join(message[start:].split()[:2])


def _find_state(content: Any) -> State:
    """The first mapping that holds named layers' tensors, looked for at the top and then under the
    usual keys."""
    if not isinstance(content, Mapping):
        return {}
    tensors = {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if any("." in key for key in tensors):
        return tensors
    found = (_find_state(content[key]) for key in NESTINGS if key in content)
    return next((state for state in found if state), {})


def _take_normalisation(
    state: State,
) -> tuple[State, tuple[float, ...] | None, tuple[float, ...] | None]:
    """Split off every pair of `mean` and `std` buffers; the first pair is the normalisation."""
    rest, pairs = dict(state), []
    for key in state:
        parent, _, last = key.rpartition(".")
        prefix = f"{parent}." if parent else ""
        partner = next((prefix + name for name in STD_NAMES if prefix + name in state), None)
        if (
            last in MEAN_NAMES
            and partner
            and state[key].numel() == state[partner].numel() <= MAX_CHANNELS
        ):
            pairs.append((rest.pop(key), rest.pop(partner)))
    if not pairs:
        return rest, None, None
    mean, std = (tuple(float(value) for value in part.flatten()) for part in pairs[0])
    return rest, mean, std


def _strip_wrappers(state: State) -> State:
    """Take off, one after the other, the prefixes that all names share."""
    state = {
        key: value for key, value in state.items() if key != "n_averaged"
    }  # the counter of torch's AveragedModel
    while prefix := next(
        (w for w in WRAPPERS if state and all(key.startswith(w) for key in state)), ""
    ):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


# ---- fitting


def _adapted(given: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> State:
    """`given` under the names of `target` where two habits differ.

    The head is called `linear` by some and `fc` by others, and TRADES-style wide networks carry a
    `sub_block1` that their forward pass never uses.
    """
    state = {
        key: value
        for key, value in given.items()
        if key in target or not key.startswith("sub_block1.")
    }
    for ours, theirs in (HEADS, HEADS[::-1]):
        if f"{ours}weight" in target and f"{ours}weight" not in state:
            state = {
                ours + key[len(theirs) :] if key.startswith(theirs) else key: v
                for key, v in state.items()
            }
    return state


def _counters_aside(names: set[str]) -> list[str]:
    """Sorted, without BatchNorm's batch counters: old files lack them and no result depends on
    them."""
    return sorted(name for name in names if not name.endswith("num_batches_tracked"))


def _fill(net: nn.Module, imported: ImportedState, name: str) -> None:
    """Copy the weights into `net`. Raises `CheckpointError` that says in what they differ."""
    target = net.state_dict()
    given = _adapted(imported.tensors, target)
    differences = misfit(given, target)
    if differences:
        raise CheckpointError(
            f"{imported.path} does not fit the model {name!r}: {differences}. "
            f"{_advice(imported.tensors, name)}"
        )
    net.load_state_dict({key: given.get(key, own) for key, own in target.items()})


def misfit(given: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> str:
    """In which names and shapes the state dict of a file differs from a model's; "" if it fits."""
    missing = _counters_aside(target.keys() - given.keys())
    unexpected = _counters_aside(given.keys() - target.keys())
    reshaped = [
        f"{key} (file {list(given[key].shape)}, model {list(target[key].shape)})"
        for key in target
        if key in given and given[key].shape != target[key].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
    return "; ".join(f"{len(names)} {kind}: {_listed(names)}" for kind, names in kinds if names)


def _advice(state: Mapping[str, Tensor], asked: str) -> str:
    nearest = nearest_architecture(state)
    if nearest is None:
        return "No known model comes near it."
    classes, channels = inferred_classes(state), inferred_channels(state)
    trained_for = f"for {classes} classes and {channels} image channels"
    if nearest == asked:
        return f"The file looks like {nearest!r} {trained_for}."
    return (
        f"The nearest known model is {nearest!r}, {trained_for}, with "
        f"{_share(state, nearest):.0%} in common."
    )


def _share(state: Mapping[str, Tensor], name: str) -> float:
    """The share of names and shapes that `state` and a known model have in common, from 0 to 1."""
    classes, channels = inferred_classes(state), inferred_channels(state)
    if classes is None or channels is None:
        return 0.0
    try:
        with torch.device("meta"):  # shapes only: even a wide network takes no memory and no time
            target = MODELS[name](channels, 64, classes).state_dict()
    except (
        ConfigError,
        RuntimeError,
        NotImplementedError,
    ):  # a plugin's network may not be buildable this way
        return 0.0
    given = _adapted(state, target)
    names = _counters_aside(target.keys() | given.keys())
    same = [
        key
        for key in names
        if key in target and key in given and target[key].shape == given[key].shape
    ]
    return len(same) / len(names)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN + 2 else ""
    return ", ".join(names[:SHOWN] if more else names) + more


def _per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """One figure per channel; a single figure holds for all. Raises `ConfigError` for any other
    count."""
    if len(values) not in (1, channels):
        raise ConfigError(
            f"the normalisation has {len(values)} figures, the images have {channels} channels."
        )
    return tuple(values) if len(values) == channels else tuple(values) * channels
