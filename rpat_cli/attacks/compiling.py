"""Networks compiled while they are attacked.

On a GPU a step of an attack on small images is bound by the launches of its kernels, of which a
compiler makes one CUDA graph.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_BACKEND: ContextVar[str | None] = ContextVar("compiling", default=None)
_COMPILED: "WeakKeyDictionary[nn.Module, dict[str, Callable[..., Tensor]]]" = WeakKeyDictionary()


@contextmanager
def compiling(backend: str = "inductor") -> Iterator[None]:
    """In this block attacks compile the networks that they attack, with this backend of
    `torch.compile`."""
    token = _BACKEND.set(backend)
    try:
        yield
    finally:
        _BACKEND.reset(token)


def compiling_allowed() -> bool:
    return _BACKEND.get() is not None


@contextmanager
def compiled_forward(model: nn.Module) -> Iterator[None]:
    """In this block, calls of `model` run compiled code, and its parameters take no gradient: the
    backward pass is compiled for what asks for a gradient, and an attack asks for the input's."""
    backend = _BACKEND.get()
    assert backend is not None
    compiled = _compiled(model, backend)
    # A CUDA graph writes its next result where it wrote the last.
    with forward_replaced(model, lambda x: compiled(model, x).clone()):
        yield


@contextmanager
def forward_replaced(model: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """In this block, calls of `model` run `forward`, and its parameters take no gradient.

    The forward alone is replaced, so that hooks of the caller, which count passes, still run. In a
    block within such a block nothing changes.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    is_outermost = "forward" not in vars(model)
    if is_outermost:
        model.forward = forward
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        if is_outermost:
            del model.forward


def _compiled(model: nn.Module, backend: str) -> Callable[..., Tensor]:
    """The forward of the model's class, compiled at the first call with this model, and remembered
    as long as the model lives."""
    of_model = _COMPILED.setdefault(model, {})
    if backend not in of_model:
        graphs = backend == "inductor" and _on_cuda(model)
        mode = "reduce-overhead" if graphs else None
        of_model[backend] = torch.compile(type(model).forward, backend=backend, mode=mode)
    return of_model[backend]


def _on_cuda(model: nn.Module) -> bool:
    return any(parameter.is_cuda for parameter in model.parameters())
