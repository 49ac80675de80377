"""Networks as CUDA graphs while they are attacked.

A step of an attack on small images is bound by the launches of some hundred kernels from Python. A
CUDA graph, recorded once, launches them all at once: the same kernels in the same order, so the
same figures, in a fraction of the time.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision.ops import StochasticDepth

from rpat_cli.attacks.compiling import forward_replaced

Forward = Callable[[nn.Module, Tensor], Tensor]

_ON: ContextVar[bool] = ContextVar("graphing", default=False)

KNOWN = ("rpat_cli", "torch", "torchvision")
"""The packages whose modules compute the same whenever they are called in the same way."""

UNEVEN = (nn.modules.dropout._DropoutNd, StochasticDepth, nn.SyncBatchNorm)
"""Modules that in train mode do not."""

WARM_UPS = 3
"""Passes before recording: libraries set themselves up, and cuDNN chooses its algorithms."""

MOST_GRAPHS = 4
"""Of one network, whose further shapes get none: each holds the memory of a pass."""

MOST_SEEN = 64
"""Ways to call a network that are remembered: with more, none comes often enough to matter."""


@contextmanager
def graphing(allowed: bool = True) -> Iterator[None]:
    """In this block attacks may record the networks that they attack, and replay them."""
    token = _ON.set(allowed)
    try:
        yield
    finally:
        _ON.reset(token)


def graphing_allowed() -> bool:
    return _ON.get()


@contextmanager
def graphed_forward(model: nn.Module) -> Iterator[None]:
    """In this block, calls of `model` that ask for the gradient of the images replay a CUDA graph,
    and its parameters take no gradient; they must not change in it.

    A network is recorded when it is called in the same way a second time: images of the same shape,
    modules in the same modes, the same precision. It `can_be_recorded`.
    """
    graphs = _GRAPHS.setdefault(model, _Graphs())
    with forward_replaced(model, lambda x: graphs.call(model, x)):
        yield


def can_be_recorded(model: nn.Module) -> bool:
    """Not on other devices; not networks of others, whose forward may do anything (some of timm
    keep tensors of their own between passes); not where a module inside has hooks, which a graph
    would not run, draws random numbers, or waits for other ranks."""
    if not all(weight.is_cuda for weight in model.parameters()):
        return False
    return all(_computes_alike(module, module is model) for module in model.modules())


def _computes_alike(module: nn.Module, is_whole: bool) -> bool:
    """Hooks of the whole network run around its graph."""
    is_known = type(module).__module__.partition(".")[0] in KNOWN
    is_uneven = module.training and isinstance(module, UNEVEN)
    return is_known and not is_uneven and (is_whole or not _has_hooks(module))


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def _state_of(model: nn.Module) -> Hashable:
    """What a graph of the network holds for good: the modes of its modules, and where its weights
    are (not their values: these may change)."""
    modes = tuple(map(_mode, model.modules()))
    tensors = (*model.parameters(), *model.buffers())
    return modes, tuple(tensor.data_ptr() for tensor in tensors)


def _mode(module: nn.Module) -> Hashable:
    of_batchnorm = (getattr(module, key, None) for key in ("track_running_stats", "momentum"))
    return module.training, *of_batchnorm


@dataclass
class _Graphs:
    """The graphs of one network, by what they hold."""

    recorded: dict[Hashable, "_Graph"] = field(default_factory=dict)
    seen: set[Hashable] = field(default_factory=set)
    failed: bool = False

    def call(self, model: nn.Module, x: Tensor) -> Tensor:
        forward: Forward = type(model).forward
        if self.failed or not (torch.is_grad_enabled() and x.requires_grad):
            return forward(model, x)
        precision = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        key = (x.shape, x.stride(), x.dtype, x.device, precision, _state_of(model))
        if key not in self.recorded:
            if key not in self.seen or len(self.recorded) >= MOST_GRAPHS:
                if len(self.seen) < MOST_SEEN:
                    self.seen.add(key)
                return forward(model, x)
            try:
                self.recorded[key] = _Graph.record(forward, model, x)
            except RuntimeError:  # there is too little memory
                self.failed = True
                self.recorded.clear()
                return forward(model, x)
        logits: Tensor = _Replay.apply(x, self.recorded[key])
        return logits


_GRAPHS: "WeakKeyDictionary[nn.Module, _Graphs]" = WeakKeyDictionary()


@dataclass
class _Graph:
    """A forward and a backward pass, and the memory that they read and write. `turn` counts the
    passes: the memory is that of the last one."""

    x: Tensor
    logits: Tensor
    logits_grad: Tensor
    x_grad: Tensor
    forward: Any
    backward: Any
    buffers: list[Tensor]
    turn: int = 0

    @classmethod
    def record(cls, forward: Forward, model: nn.Module, like: Tensor) -> "_Graph":
        """Record the passes of `model` on images like these; its buffers and the generators are
        afterwards as they were."""
        x = like.detach().clone().requires_grad_()
        before, after = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        buffers, current = list(model.buffers()), torch.cuda.current_stream(x.device)
        beside = torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]
        with _kept(buffers), torch.random.fork_rng([x.device]), _uncached_autocast():
            beside.wait_stream(current)
            with torch.cuda.stream(beside):
                for _ in range(WARM_UPS):
                    _both_passes(forward, model, x)
            current.wait_stream(beside)
            # Threads that prepare batches meanwhile do what the mode "global" would forbid them.
            with torch.cuda.graph(before, capture_error_mode="thread_local"):
                logits = forward(model, x)
            logits_grad = torch.ones_like(logits)
            with torch.cuda.graph(after, before.pool(), capture_error_mode="thread_local"):
                (x_grad,) = torch.autograd.grad(logits, x, logits_grad)
        return cls(x.detach(), logits.detach(), logits_grad, x_grad, before, after, buffers)

    def run_forward(self, x: Tensor) -> int:
        self.x.copy_(x)
        self.forward.replay()
        self.turn += 1
        return self.turn

    def run_backward(self, x: Tensor, turn: int, gradient: Tensor) -> Tensor:
        if turn != self.turn:  # another pass has overwritten what this one needs
            with _kept(self.buffers):
                self.run_forward(x)
        self.logits_grad.copy_(gradient)
        self.backward.replay()
        self.turn += 1  # the backward pass has overwritten what it read
        return self.x_grad.clone()


class _Replay(torch.autograd.Function):
    """The network, by its graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: _Graph) -> Tensor:
        ctx.save_for_backward(x)
        ctx.graph, ctx.turn = graph, graph.run_forward(x)
        return graph.logits.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return ctx.graph.run_backward(x, ctx.turn, gradient), None


def _both_passes(forward: Forward, model: nn.Module, x: Tensor) -> None:
    """And nothing of them is left, which would tie `x` to the stream that they ran on."""
    logits = forward(model, x)
    torch.autograd.grad(logits, x, torch.ones_like(logits))


@contextmanager
def _kept(buffers: list[Tensor]) -> Iterator[None]:
    """The buffers come out of this block with the values with which they went in."""
    values = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, values, strict=True):
            # Past autograd, which would refuse the gradient of an earlier pass that has read them.
            buffer.data.copy_(value)


def _uncached_autocast() -> torch.autocast:
    """The autocast in force, without its cache: a graph would keep reading weights that were cast
    before it was recorded."""
    enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    return torch.autocast("cuda", dtype=dtype, enabled=enabled, cache_enabled=False)
