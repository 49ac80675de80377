"""BatchNorm folded into the convolution before it, while an attack holds the weights still.

In eval mode BatchNorm is a fixed scale and shift per channel, which the convolution's own weights
and bias can do: as many passes, fewer operations, the same logits and input gradients up to
rounding. Which BatchNorm follows which convolution is read off the autograd graph of one pass, so
that it works for any network, and for none that it would change.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

Pair = tuple[str, str]
"""The names of a convolution and of the BatchNorm that alone takes its output."""

_ALLOWED: ContextVar[bool] = ContextVar("folding", default=False)
_PAIRS: "WeakKeyDictionary[nn.Module, tuple[Pair, ...]]" = WeakKeyDictionary()

TOLERANCE = 1e-3
"""Folded logits further than this from the plain ones, relative to the largest, are not a matter of
rounding: such a network stays as it is. Rounding in float32 is some 1e-6."""


@contextmanager
def folding(allowed: bool = True) -> Iterator[None]:
    """In this block attacks may fold the networks that they attack."""
    token = _ALLOWED.set(allowed)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def folding_allowed() -> bool:
    return _ALLOWED.get()


@contextmanager
def folded(model: nn.Module) -> Iterator[nn.Module]:
    """In this block, calls of `model` in eval mode compute with folded weights, which take no
    gradient; its parameters and buffers must not change in it, and are as they were.

    Nothing is folded where nothing can be: BatchNorm in train mode, or without statistics, behind
    anything but a convolution, or next to something else that takes the convolution's output.
    """
    with ExitStack() as stack:

        def at_first_call(module: nn.Module, inputs: tuple[object, ...]) -> None:
            watching.remove()
            if inputs and isinstance(inputs[0], Tensor) and not module.training:
                _fold(module, pairs_of(module, inputs[0]), stack)

        watching = model.register_forward_pre_hook(at_first_call)
        stack.callback(watching.remove)
        yield model


def pairs_of(model: nn.Module, x: Tensor) -> tuple[Pair, ...]:
    """The pairs that can be folded, by their names in `model`; found once, with the first two
    images of `x` (B, C, H, W), and remembered as long as the model lives."""
    if model not in _PAIRS:
        devices = [x.device] if x.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.autocast(x.device.type, enabled=False):
            _PAIRS[model] = _find_pairs(model, x[:2].detach().clone())
    return _PAIRS[model]


def _find_pairs(model: nn.Module, x: Tensor) -> tuple[Pair, ...]:
    """Raises what the model raises."""
    with torch.enable_grad():
        logits, pairs = _traced(model, x.requires_grad_())
    if not pairs:
        return ()
    with torch.no_grad(), ExitStack() as stack:
        _fold(model, pairs, stack)
        # Not as model(x): hooks of the caller count passes.
        difference = (model.forward(x) - logits).abs().max()
    same = bool(difference <= TOLERANCE * logits.abs().max())
    return pairs if same else ()


def _traced(model: nn.Module, x: Tensor) -> tuple[Tensor, tuple[Pair, ...]]:
    """The logits of one pass, and the convolutions whose only consumer is a BatchNorm."""
    made: dict[str, list[object]] = {}
    norms: list[tuple[str, object]] = []

    def after_conv(name: str, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        made.setdefault(name, []).append(output.grad_fn)

    def after_norm(name: str, _module: nn.Module, inputs: tuple[Tensor], _output: object) -> None:
        norms.append((name, inputs[0].grad_fn))

    with ExitStack() as stack:
        for name, module in model.named_modules():
            # Exactly these: a subclass may do something else.
            if type(module) is nn.Conv2d:
                hook = module.register_forward_hook(partial(after_conv, name))
            elif type(module) is nn.BatchNorm2d and module.running_var is not None:
                hook = module.register_forward_hook(partial(after_norm, name))
            else:
                continue
            stack.callback(hook.remove)
        logits = model.forward(x)
    called_once = {id(nodes[0]): name for name, nodes in made.items() if len(nodes) == 1}
    consumers = _consumers(logits.grad_fn)
    names = [name for name, _ in norms]
    pairs = tuple(
        (called_once[id(node)], name)
        for name, node in norms
        if id(node) in called_once and consumers.get(id(node)) == 1 and names.count(name) == 1
    )
    return logits.detach(), pairs


def _consumers(root: object) -> dict[int, int]:
    """How many operations take the result of each node of an autograd graph, by the node's id."""
    counts: dict[int, int] = {}
    seen, waiting = {id(root): root}, [root]
    while waiting:
        for following, _ in getattr(waiting.pop(), "next_functions", ()):
            counts[id(following)] = counts.get(id(following), 0) + 1
            if id(following) not in seen:
                seen[id(following)] = following  # kept alive, or its id would be another's
                waiting.append(following)
    return counts


def _fold(model: nn.Module, pairs: tuple[Pair, ...], stack: ExitStack) -> None:
    """Let the convolutions do what the BatchNorms do, until the stack is closed."""
    for conv_name, norm_name in pairs:
        conv, norm = model.get_submodule(conv_name), model.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        # One that has a forward of its own is folded already, by the block around this one.
        if norm.training or "forward" in vars(conv) or "forward" in vars(norm):
            continue
        weight, bias = folded_weights(conv, norm)
        _replace_forward(conv, partial(_convolve, conv, weight, bias), stack)
        _replace_forward(norm, _identity, stack)


def _replace_forward(module: nn.Module, forward: object, stack: ExitStack) -> None:
    module.forward = forward  # type: ignore[assignment]
    stack.callback(delattr, module, "forward")


def _convolve(conv: nn.Conv2d, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    output: Tensor = conv._conv_forward(x, weight, bias)  # with the padding of its mode
    return output


def _identity(x: Tensor) -> Tensor:
    return x


@torch.no_grad()
def folded_weights(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that computes norm(conv(x)) in eval mode:
    w · s and (b - mean) · s + shift, with s = scale / sqrt(var + eps) per output channel."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    bias = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
    bias = bias * scale
    if norm.bias is not None:
        bias = bias + norm.bias
    weight = conv.weight * scale.view(-1, 1, 1, 1)
    device = weight.device.type
    if torch.is_autocast_enabled(device):
        # Autocast keeps its copies of parameters only, and would convert these at every call.
        dtype = torch.get_autocast_dtype(device)
        weight, bias = weight.to(dtype), bias.to(dtype)
    return weight, bias
