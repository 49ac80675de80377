"""Finding the weights in what a checkpoint of other code holds: the state dicts in it, without the
prefixes of wrappers, and the one to use if there are several."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rpat_cli.errors import CheckpointError, ConfigError, Problem

State = dict[str, Tensor]

WRAPPERS = {
    *("module", "model", "net", "network", "student", "teacher", "attacker", "basic_net"),
    *("ema", "ema_model", "model_ema", "ema_net", "net_ema", "averaged_model", "swa_model"),
    *("student_model", "teacher_model", "model_teacher", "model_student", "proxy", "wrapped_model"),
}
"""What programs call a whole network that is a part of another module."""

TRANSPARENT = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What wrappers of single layers add in the middle of a name."""

NO_NETWORK = ("optim", "opt_", "sched", "lr_sched", "scaler", "amp")
"""Keys that begin so hold no weights."""

ASIDE = "unaveraged"
"""Keys that begin so (RPAT_SOTAs) hold what the average beside them, which counts, is made of."""

BESIDE = re.compile(r"(^|\.)model_preact_hl1\.|\.scores$")
"""What published files hold next to a network: parts of it under other names (Andriushchenko &
Flammarion 2020), and scores that are multiplied into the weights already (Diffenderfer et al.
2021)."""

MEAN_NAMES = ("mean", "mu", "new_mean")
STD_NAMES = ("std", "sigma", "new_std")

MAX_CHANNELS = 16
"""A longer `mean` is some layer's parameter, not a normalization."""

MAX_DEPTH = 6
"""How deeply a state dict may be nested."""

LOOKED_UNDER = "state_dict, model_state_dict, model, net, ema and any other key"

Constants = tuple[float, ...] | None


@dataclass(frozen=True)
class Weights:
    """One state dict of a file. `key`: where it is, with dots ("" at the top). `mean` and `std` are
    the normalization beside it."""

    key: str
    tensors: State
    mean: Constants = None
    std: Constants = None
    remarks: tuple[str, ...] = ()


def find_weights(content: Any, key: str, path: Path, prefer: str = "") -> Weights:
    """The state dict under `key`, or without a key the only one there is, or of several the one
    under the key `prefer`.

    Raises `CheckpointError` if there is none or it cannot be used, and `ConfigError`, naming all,
    if there are several.
    """
    found = _distinct([part for raw in _state_dicts(content) for part in _parts(_cleaned(raw))])
    chosen = _chosen(found, key, prefer)
    if not chosen:
        raise CheckpointError(f"{path}: no weights found. {_looked(key, found)}")
    if len(chosen) > 1:
        keys = [each.key for each in chosen]
        raise ConfigError(
            Problem(
                "",
                f"holds the weights of {len(keys)} networks: {', '.join(keys)}.",
                str(path),
                f"Name the one to use: {path}:{keys[-1]}",
            )
        )
    _check_plain(chosen[0].tensors, path)
    return _in_unit_range(chosen[0])


def _chosen(found: list[Weights], key: str, prefer: str) -> list[Weights]:
    """What a key means; without one, what there is, or of it what is preferred."""
    if key:
        return [each for each in found if _is_under(each.key, key)]
    chosen = [each for each in found if not _is_aside(each.key)] or found
    preferred = [each for each in chosen if prefer and _is_under(each.key, prefer)]
    return preferred or chosen


def _looked(key: str, found: list[Weights]) -> str:
    under = f"under the key {key!r}" if key else f"at the top and under {LOOKED_UNDER}"
    there = f" There is: {', '.join(each.key for each in found)}." if found else ""
    return f"Looked for a state dict {under}.{there}"


def recorded_accuracy(content: Any) -> float | None:
    """The accuracy on clean test images that a training program has saved with the weights, as a
    fraction; None if there is none, or it is not clear which it is."""
    if not isinstance(content, Mapping):
        return None
    found = []
    for key, value in content.items():
        if (
            not isinstance(key, str)
            or isinstance(value, bool)
            or not isinstance(value, int | float)
        ):
            continue
        words = key.lower()
        if "acc" in words and not any(word in words for word in ("rob", "adv", "pgd", "train")):
            found.append(value / 100 if value > 1 else float(value))
    return found[0] if len(found) == 1 and 0 < found[0] <= 1 else None


def shared_prefix(names: Mapping[str, Any]) -> str:
    """The first component of all names, with its dot; "" if they have none in common."""
    first = next(iter(names), "").partition(".")[0] + "."
    return first if names and all(name.startswith(first) for name in names) else ""


def _state_dicts(content: Any, key: str = "", depth: int = 0) -> Iterator[Weights]:
    """Every mapping from names such as `layer.weight` to tensors, the outermost ones only."""
    if not isinstance(content, Mapping) or depth > MAX_DEPTH:
        return
    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if any("." in name for name in tensors):
        yield Weights(key, tensors)
        return
    for name, value in content.items():
        if isinstance(name, str) and not name.lower().startswith(NO_NETWORK):
            yield from _state_dicts(value, f"{key}.{name}".lstrip("."), depth + 1)


def _cleaned(raw: Weights) -> Weights:
    """Without counters, wrappers' names in the middle of others and what is beside the network, and
    without the normalization, whose names keep others from having a prefix in common."""
    tensors = {}
    for name, value in raw.tensors.items():
        if BESIDE.search(name):
            continue
        kept = [part for part in name.split(".") if part not in TRANSPARENT]
        if name != "n_averaged":  # the counter that torch's AveragedModel adds
            tensors[".".join(kept)] = value
    tensors, mean, std = _split_off_normalization(tensors)
    return replace(raw, tensors=tensors, mean=mean, std=std)


def _parts(whole: Weights) -> list[Weights]:
    """The networks that a state dict holds: itself without the prefixes that all its names share,
    or the networks that it is made of, such as `student` and `teacher`."""
    state = whole.tensors
    while prefix := shared_prefix(state):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    groups: dict[str, State] = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        groups.setdefault(first, {})[rest] = value
    networks = [name for name in groups if name in WRAPPERS and _is_network(groups[name])]
    others = [name for name in groups if name not in networks]
    if not networks or any(_is_network(groups[name]) for name in others):
        return [replace(whole, tensors=state)]
    remarks = whole.remarks
    if others:
        remarks = (*remarks, f"not used: what the file has under {', '.join(others)}")
    found = []
    for name in networks:
        key = f"{whole.key}.{name}".lstrip(".")
        found += _parts(replace(whole, key=key, tensors=groups[name], remarks=remarks))
    return found


def _is_network(state: State) -> bool:
    return any(value.dim() >= 2 for value in state.values())


def _distinct(found: list[Weights]) -> list[Weights]:
    """Without those that repeat another one, tensor for tensor."""
    kept: list[Weights] = []
    for each in found:
        if not any(_are_equal(each.tensors, other.tensors) for other in kept):
            kept.append(each)
    return kept


def _are_equal(a: State, b: State) -> bool:
    if a.keys() != b.keys():
        return False
    pairs = [(a[name], b[name]) for name in a]
    # Of sparse and meta tensors nothing can be compared.
    if any(t.layout != torch.strided or t.is_meta for pair in pairs for t in pair):
        return False
    return all(x.shape == y.shape and x.dtype == y.dtype and torch.equal(x, y) for x, y in pairs)


def _is_under(key: str, asked: str) -> bool:
    return key == asked or key.startswith(f"{asked}.")


def _is_aside(key: str) -> bool:
    return any(part.startswith(ASIDE) for part in key.split("."))


def _check_plain(state: State, path: Path) -> None:
    """Raise `CheckpointError` for tensors that are no plain numbers in memory."""
    for name, value in state.items():
        kind = ""
        if value.layout != torch.strided:
            kind = f"a sparse tensor ({value.layout})"
        elif value.is_quantized:
            kind = "quantized"
        elif value.is_meta:
            kind = "a meta tensor, which has no values"
        elif value.is_complex():
            kind = f"complex ({value.dtype})"
        if kind:
            raise CheckpointError(
                f"{path}: the weights {name!r} are {kind}. Save the model with plain tensors: "
                "float32, float16 or bfloat16."
            )


def _in_unit_range(weights: Weights) -> Weights:
    """With a normalization for pixels in [0, 1], where the file has one for bytes."""
    mean, std = weights.mean, weights.std
    if mean is None or std is None or max(*mean, *std) <= 2:
        return weights
    remark = "its normalization is for pixels in 0..255: mean and std were divided by 255"
    return replace(
        weights,
        mean=tuple(value / 255 for value in mean),
        std=tuple(value / 255 for value in std),
        remarks=(*weights.remarks, remark),
    )


def _split_off_normalization(state: State) -> tuple[State, Constants, Constants]:
    """Split off every pair of `mean` and `std` buffers; the first pair is the normalization."""
    rest, pairs = dict(state), []
    for name in state:
        parent, _, last = name.rpartition(".")
        if last not in MEAN_NAMES:
            continue
        prefix = f"{parent}." if parent else ""
        partner = next((prefix + each for each in STD_NAMES if prefix + each in state), None)
        if partner and state[name].numel() == state[partner].numel() <= MAX_CHANNELS:
            pairs.append((rest.pop(name), rest.pop(partner)))
    if not pairs:
        return rest, None, None
    mean, std = (tuple(map(float, part.flatten().tolist())) for part in pairs[0])
    return rest, mean, std
