"""Optimizers by name, and which parameter learns at which rate and with how much weight decay."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

Decayed = Literal["all", "no-norms", "weights"]
"""What weight decay acts on: everything, all but normalization layers, or weights of two or more
dimensions (neither normalization layers nor biases)."""

Parameters = list[nn.Parameter] | list[dict[str, Any]]
"""What an optimizer takes: parameters, or groups of them with settings of their own."""

SCALE = "scale"
"""The key, in a group, of its share of the learning rate; groups without it have all of it."""

MOST_IN_ONE = 0.9
"""The share of the parameters from which on a module is taken apart into its children."""


@dataclass(frozen=True)
class OptimizerRow:
    """How an optimizer is made of parameters and settings, the settings that it takes besides rate
    and weight decay, and the highest peak learning rate that is usual."""

    make: Callable[..., Optimizer]
    takes: tuple[str, ...]
    highest_lr: float

    def build(self, parameters: Parameters, **settings: Any) -> Optimizer:
        """`settings` that are None are left to the optimizer."""
        given = {name: value for name, value in settings.items() if value is not None}
        # A few kernels for all parameters. Not on CPUs, where it rounds otherwise than the plain
        # one: a training is to give the same bits as in earlier versions.
        fused = all(p.device.type == "cuda" and p.is_floating_point() for p in flat(parameters))
        return self.make(parameters, fused=fused, **given)


def _adamw(
    parameters: Parameters, *, momentum: float, beta2: float = 0.999, **settings: Any
) -> Optimizer:
    return torch.optim.AdamW(parameters, betas=(momentum, beta2), **settings)


SGD = OptimizerRow(torch.optim.SGD, ("momentum", "nesterov"), highest_lr=1.0)

ADAMW = OptimizerRow(_adamw, ("momentum", "beta2"), highest_lr=0.01)
"""Loshchilov & Hutter, ICLR 2019, arXiv 1711.05101; `momentum` is its beta1."""


def flat(parameters: Parameters) -> Iterator[nn.Parameter]:
    """The parameters themselves."""
    for each in parameters:
        yield from each["params"] if isinstance(each, dict) else [each]


def parameter_groups(
    modules: Iterable[nn.Module],
    weight_decay: float,
    decayed: Decayed = "all",
    layer_decay: float = 1.0,
) -> Parameters:
    """The parameters of the modules for an optimizer; in groups where they differ in weight decay
    or learning rate.

    layer_decay: the i-th of the n stages of each module learns at layer_decay^(n - i) of the rate,
    the last one (the head) at all of it (Howard & Ruder, ACL 2018, arXiv 1801.06146). Stages are
    the children of the network in the order in which it defines them, a bare linear layer last; one
    that holds nearly all parameters is itself taken apart.
    """
    modules = list(modules)
    if decayed == "all" and layer_decay == 1:
        return [parameter for module in modules for parameter in module.parameters()]
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in modules:
        kept = _undecayed(module, decayed)
        scales = _scales(module, layer_decay)
        for parameter in module.parameters():
            decay = 0.0 if id(parameter) in kept else weight_decay
            scale = scales.get(id(parameter), 1.0)
            groups.setdefault((decay, scale), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, SCALE: scale}
        for (decay, scale), parameters in groups.items()
    ]


def _undecayed(network: nn.Module, decayed: Decayed) -> set[int]:
    """The ids of the parameters that weight decay leaves alone."""
    if decayed == "all":
        return set()
    # Libraries have normalization layers of their own: they are known by what they are called.
    norms = [m for m in network.modules() if "norm" in type(m).__name__.lower()]
    found = {id(p) for norm in norms for p in norm.parameters(recurse=False)}
    if decayed == "weights":
        found |= {id(p) for p in network.parameters() if p.ndim < 2}
    return found


def _scales(network: nn.Module, layer_decay: float) -> dict[int, float]:
    """Each parameter's share of the learning rate, by its id."""
    found = stages(network)
    scales: dict[int, float] = {}
    for index, stage in enumerate(found):
        scale = layer_decay ** (len(found) - 1 - index)
        scales |= {id(parameter): scale for parameter in stage}
    return scales


def stages(network: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of a network from first to last stage, none of them twice; parameters that the
    network holds itself, such as the class token of a transformer, belong to the first."""
    whole = sum(p.numel() for p in network.parameters())
    seen: set[int] = set()
    own: list[nn.Parameter] = []
    found: list[list[nn.Parameter]] = []
    for module, is_stage in _pieces(network, whole):
        fresh = [p for p in module.parameters(recurse=is_stage) if id(p) not in seen]
        seen |= {id(p) for p in fresh}
        if not is_stage:
            own += fresh
        elif fresh:
            found.append(fresh)
    return [[*own, *found[0]], *found[1:]] if found else [own]


def _pieces(module: nn.Module, whole: int) -> Iterator[tuple[nn.Module, bool]]:
    """The modules that are a stage each, and those taken apart, with False, for what they hold
    themselves."""
    size = sum(p.numel() for p in module.parameters())
    if size < MOST_IN_ONE * whole or not list(module.children()):
        yield module, True
        return
    yield module, False
    children = list(module.children())
    if not isinstance(module, nn.Sequential):  # some define their head first
        children.sort(key=lambda child: isinstance(child, nn.Linear))
    for child in children:
        yield from _pieces(child, whole)


def set_rates(optimizer: Optimizer, lr: float, momentum: float | None = None) -> None:
    """Set the learning rate, of which groups may have a share, and where it is given the momentum
    (beta1)."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get(SCALE, 1.0)
        if momentum is None:
            continue
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum


def rate_of(optimizer: Optimizer) -> float:
    """The learning rate as it was set last: that of the groups that have all of it."""
    return max(float(group["lr"]) for group in optimizer.param_groups)
