"""Modules of a model whose own backward pass may hide the way to adversarial images.

Athalye, Carlini & Wagner (ICML 2018, arXiv 1802.00420) pass such a module by: forward it computes
what it did, backward the gradient goes through a stand-in, here the identity (BPDA). No module is
accused for what it is: an attack past it has to break more images than attacks through it.
"""

from collections.abc import Collection, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from rpat_cli.attacks.surrogate import Surrogate

SATURATING = (nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Sigmoid, nn.Tanh, nn.Hardtanh)
"""Of torch's own modules those whose gradient can vanish everywhere at once; that of the others,
such as ReLU, is what every network is trained with."""


def passed_by(model: nn.Module, x: Tensor) -> tuple[Surrogate, ...]:
    """What an attack on `model` could pass by, by class; `x` (B, C, H, W) is tried on it.

    These are the modules without weight matrices that keep the shape of what they are given, unless
    their backward pass already is the identity. The model computes what it did, in its mode.
    """

    def look(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        given = inputs[0] if len(inputs) == 1 else None
        if isinstance(given, Tensor) and isinstance(output, Tensor) and given.shape == output.shape:
            seen.append((module, given.detach().clone()))

    seen: list[tuple[nn.Module, Tensor]] = []
    with ExitStack() as hooks:
        for module in _candidates(model):
            hooks.callback(module.register_forward_hook(look).remove)
        with torch.no_grad():
            model(x)
    found = {
        module
        for module, given in seen
        if given.is_floating_point() and not _is_identity_backward(module, given)
    }
    return tuple(Surrogate(name, "identity") for name in _names(model, found))


def _names(model: nn.Module, found: Collection[nn.Module]) -> dict[str, None]:
    """The classes of the modules, or their own names where others of the class are not meant."""
    named = dict(model.named_modules())
    others = {type(module).__name__ for module in named.values() if module not in found}
    names: dict[str, None] = {}
    for name, module in named.items():
        if module in found:
            kind = type(module).__name__
            names[name if kind in others else kind] = None
    return names


def _candidates(module: nn.Module) -> Iterator[nn.Module]:
    """Of nested ones the outermost; never the model itself."""
    for child in module.children():
        own = not type(child).__module__.startswith("torch.nn.")
        if (own or isinstance(child, SATURATING)) and not _has_weights(child):
            yield child
        else:
            yield from _candidates(child)


def _has_weights(module: nn.Module) -> bool:
    """A matrix or filters: passing it by would be another network. A value for each channel is
    none."""
    return any(p.squeeze().ndim > 1 for p in module.parameters())


def _is_identity_backward(module: nn.Module, given: Tensor) -> bool:
    with torch.enable_grad():
        given = given.requires_grad_()
        # A leaf may not be changed in place.
        output = module(given * 1)
        if not output.requires_grad:
            return False
        upstream = torch.linspace(-1, 1, output.numel(), device=output.device).view_as(output)
        (back,) = torch.autograd.grad(output, given, upstream, allow_unused=True)
    return back is not None and bool(torch.allclose(back, upstream))
