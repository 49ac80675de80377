"""Fitting the weights of other code into our networks: which architecture a file holds, and in what
a state dict differs from it."""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from rpat_cli.data.normalization import per_channel
from rpat_cli.errors import CheckpointError, ConfigError
from rpat_cli.loading.foreign_file import (
    ImportedState,
    inferred_channels,
    inferred_classes,
    listed,
    load_state,
)
from rpat_cli.loading.weights_in import State, shared_prefix
from rpat_cli.models import MODELS
from rpat_cli.models.base import Classifier, build_network
from rpat_cli.text import wrong_constants

HEADS = ("linear.", "fc.")
"""What published networks call their last layer."""

WIDE_NAMES = {
    r"block1\.layer\.\d+\.conv1\.weight": (
        "wrn-{depth}-{width}",
        "wrn-{depth}-{width}-hypersphere",
        "wrn-{depth}-{width}-pssilu",
    ),
    r"layer\.0\.block\.\d+\.conv_0\.weight": (
        "dm-wrn-{depth}-{width}-silu",
        "meansparse-dm-wrn-{depth}-{width}-silu",
    ),
}
"""Wide networks by the first convolutions of the blocks in their first stage, 16 times as wide as
their name says: which names such a file may be of. Activations are no part of it; the usual one is
taken."""

MIN_IN_COMMON = 0.5
"""The fraction of names and shapes in common from which on an architecture is worth naming."""


def load_foreign(
    model_name: str | None,
    path: str | Path,
    *,
    shape: tuple[int, int, int],
    classes: int | None = None,
    mean: Sequence[float],
    std: Sequence[float],
    imported: ImportedState | None = None,
) -> Classifier:
    """A classifier with the weights of `path`, in eval mode, for images of `shape` (C, H, W) with
    pixels in [0, 1].

    Without `model_name` the architecture is recognized by names and shapes; without `classes` they
    are inferred from the head. `mean` and `std` are used if the file has no normalization of its
    own. `imported` is what `load_state` made of the file, if that is known. Raises
    `CheckpointError` for a file that cannot be read or does not fit (with the names that differ,
    and the nearest architecture), and `ConfigError` as `build_model` does.
    """
    imported = load_state(path) if imported is None else imported
    name = model_name or nearest_architecture(imported.tensors)
    if name is None:
        raise CheckpointError(
            f"{path}: looks like none of the known models. Name one: {', '.join(MODELS.forms())}."
        )
    classes = classes or inferred_classes(imported.tensors)
    if classes is None:
        raise CheckpointError(f"{path}: the number of classes cannot be inferred. Give it.")
    net = build_network(name, shape, classes)
    _fill(net, imported, name)
    mean = per_channel(imported.mean or mean, shape[0])
    std = per_channel(imported.std or std, shape[0])
    if imported.mean and (problem := wrong_constants(mean, std)):
        raise CheckpointError(f"{path}: {problem}")
    return Classifier(net, mean, std).eval()


def nearest_architecture(state: Mapping[str, Tensor]) -> str | None:
    """The name in `MODELS` that has most names and shapes in common with `state`; None if none has
    half of them. Of two that fit, as networks do that differ in their activation, the first."""
    best, most = None, MIN_IN_COMMON
    for name in [*MODELS, *_in_families(state)]:
        fraction = in_common(state, name)
        if fraction == 1:
            return name
        if fraction >= most:
            best, most = name, fraction
    return best


def _in_families(state: Mapping[str, Tensor]) -> list[str]:
    """The names in the families of `MODELS` that a state dict may be of, by its depth and width."""
    found = ["dm-preact-18-silu"]
    for pattern, forms in WIDE_NAMES.items():
        first = [name for name in state if re.fullmatch(pattern, name)]
        if first:
            depth, width = 6 * len(first) + 4, state[first[0]].shape[0] / 16
            found += [form.format(depth=depth, width=f"{width:g}") for form in forms]
    return [name for name in found if name in MODELS]


def misfit(given: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> str:
    """In which names and shapes a file's state dict differs from a model's; "" if it fits."""
    missing = without_counters(target.keys() - given.keys())
    unexpected = without_counters(given.keys() - target.keys())
    reshaped = [
        f"{key} (file {list(given[key].shape)}, model {list(target[key].shape)})"
        for key in target
        if key in given and given[key].shape != target[key].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
    return "; ".join(f"{len(names)} {kind}: {listed(names)}" for kind, names in kinds if names)


def _fill(net: nn.Module, imported: ImportedState, name: str) -> None:
    """Copy the weights into `net`. Raises `CheckpointError` that lists the differences."""
    target = net.state_dict()
    given = renamed(imported.tensors, target)
    differences = misfit(given, target) or _not_floats(given, target)
    if differences:
        raise CheckpointError(
            f"{imported.path} does not fit the model {name!r}: {differences}. "
            f"{_advice(imported.tensors, name)}"
        )
    net.load_state_dict({key: given.get(key, own) for key, own in target.items()})


def _not_floats(given: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> str:
    """Which weights a file holds as integers, where the model has fractions: quantized ones, whose
    scale is somewhere else. "" if there are none."""
    names = [
        name
        for name, own in target.items()
        if name in given and own.is_floating_point() and not given[name].is_floating_point()
    ]
    return f"{len(names)} are integers: {listed(names)}" if names else ""


def renamed(given: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> State:
    """`given` under the names of `target`, where published networks differ in naming only."""
    # TRADES-style wide networks have a `sub_block1` that their forward pass never uses.
    state = {
        key: value
        for key, value in given.items()
        if key in target or not key.startswith("sub_block1.")
    }
    prefix = _whole_prefix(target)
    state = {prefix + key: value for key, value in state.items()}
    for ours, theirs in (HEADS, HEADS[::-1]):
        if f"{ours}weight" in target and f"{ours}weight" not in state:
            for key in [key for key in state if key.startswith(theirs)]:
                state[ours + key.removeprefix(theirs)] = state.pop(key)
    return state


def _whole_prefix(names: Mapping[str, Tensor]) -> str:
    """What all names of a plugin's network may begin with: of a file's names it was removed."""
    prefix = ""
    while part := shared_prefix({name.removeprefix(prefix): None for name in names}):
        prefix += part
    return prefix


def without_counters(names: Iterable[str]) -> list[str]:
    """Sorted, without BatchNorm's counters of batches: old files lack them, and no result depends
    on them."""
    return sorted(name for name in names if not name.endswith("num_batches_tracked"))


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
        f"{in_common(state, nearest):.0%} in common."
    )


def in_common(state: Mapping[str, Tensor], name: str) -> float:
    """The fraction of names and shapes that `state` and a known model have in common."""
    classes, channels = inferred_classes(state), inferred_channels(state)
    if classes is None or channels is None:
        return 0.0
    try:
        target = _shapes(name, MODELS.source(name), channels, classes)
    except (ConfigError, RuntimeError, NotImplementedError):
        return 0.0  # a plugin's network need not be buildable this way
    given = renamed(state, target)
    names = without_counters(target.keys() | given.keys())
    same = 0
    for key in names:
        if key in target and key in given and target[key].shape == given[key].shape:
            same += 1
    return same / len(names)


@lru_cache(maxsize=256)
def _shapes(name: str, source: Hashable, channels: int, classes: int) -> State:  # noqa: ARG001
    """The state dict of a known model, without values. (`source`: a plugin's name may come to mean
    another network.)"""
    with torch.device("meta"):  # shapes only: even a wide network takes no memory and no time
        # 64 pixels a side are enough for every network, and no shape depends on their number.
        return MODELS[name](channels, 64, classes).state_dict()
