"""Backward passes through stand-ins: BPDA (Athalye, Carlini & Wagner, ICML 2018, arXiv 1802.00420).

A module whose gradient is zero or useless (rounding, sparsification, k winners) hides the way to
adversarial images. Inside `backward_through`, gradients pass it as they would pass a stand-in:
the identity (the straight-through estimator), or any smooth function of the module's inputs.
Everything that the model computes stays as it is, bit for bit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from rpat_cli.errors import ConfigError, Problem, RpatError, did_you_mean
from rpat_cli.user_code import calling

StandIn = Callable[..., Tensor]
"""From what the module is given to a tensor of the shape of what it returns."""

STAND_INS: Mapping[str, StandIn] = {
    "identity": lambda x, *_: x,
    "relu": lambda x, *_: torch.relu(x),
}
"""Those that have names."""

MAX_LISTED = 60


@dataclass(frozen=True)
class Surrogate:
    """What gradients pass in place of a module.

    `module`: a name of `named_modules()`, a pattern of names such as `layers.*.sparse`, or the
    name of a class: all of its modules. `written`: the stand-in as it was asked for, a name or
    FILE.py:FUNCTION. `function`: the function of the latter.
    """

    module: str
    written: str
    function: StandIn | None = None

    @property
    def stand_in(self) -> StandIn:
        return STAND_INS[self.written] if self.function is None else self.function


def modules_of(model: nn.Module, surrogates: Sequence[Surrogate]) -> dict[str, Surrogate]:
    """By the name of each module that is passed by, what takes its place; the last word counts.

    Raises `ConfigError`, with the names there are, for one that names no module.
    """
    found: dict[str, Surrogate] = {}
    problems = []
    named = {name: module for name, module in model.named_modules() if name}
    for surrogate in surrogates:
        asked = surrogate.module
        fitting = [
            name
            for name, module in named.items()
            if asked in (name, type(module).__name__) or fnmatchcase(name, asked)
        ]
        if not fitting:
            problems.append(_no_module(asked, named))
        found.update(dict.fromkeys(fitting, surrogate))
    if problems:
        raise ConfigError(*problems)
    return found


@contextmanager
def backward_through(model: nn.Module, surrogates: Sequence[Surrogate]) -> Iterator[None]:
    """Inside, gradients pass the named modules of `model` as they would pass their stand-ins.

    Raises what `modules_of` raises.
    """
    modules = dict(model.named_modules())
    with ExitStack() as stack:
        for name, surrogate in modules_of(model, surrogates).items():
            stack.enter_context(_PassedBy(name, surrogate).hooked(modules[name]))
        yield


class _PassedBy:
    """The hooks of one module: the stand-in sees its inputs first, as it may change them in place,
    and gets the gradient of its output."""

    def __init__(self, name: str, surrogate: Surrogate) -> None:
        self._name, self._surrogate = name, surrogate
        self._stand_ins: list[Tensor | None] = []

    @contextmanager
    def hooked(self, module: nn.Module) -> Iterator[None]:
        before = module.register_forward_pre_hook(self._before)
        after = module.register_forward_hook(self._after)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def _before(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        tensors = [each for each in inputs if isinstance(each, Tensor)]
        if not torch.is_grad_enabled() or not any(each.requires_grad for each in tensors):
            self._stand_ins.append(None)
            return None
        function = self._surrogate.stand_in
        with calling(function, "function(*what the module is given)"):
            self._stand_ins.append(function(*inputs))
        # The module's own graph is not needed, and its in-place changes must not reach the other.
        return tuple(each.detach().clone() if isinstance(each, Tensor) else each for each in inputs)

    def _after(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        stand_in = self._stand_ins.pop()
        if stand_in is None:
            return None
        if not isinstance(output, Tensor) or output.shape != stand_in.shape:
            given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise RpatError(
                f"the stand-in {self._surrogate.written!r} of the module {self._name!r} returned "
                f"{tuple(stand_in.shape)}, the module returns {given}: both must have one shape. "
                "Give a FILE.py:FUNCTION that returns it."
            )
        return _ValueOfOne.apply(output.detach(), stand_in)


class _ValueOfOne(torch.autograd.Function):
    """The value of the first, the gradient of the second."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, stand_in: Tensor) -> Tensor:  # noqa: ARG004
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:  # noqa: ARG004
        return None, grads[0]


def _no_module(asked: str, named: Mapping[str, nn.Module]) -> Problem:
    listed = [f"{name} ({type(module).__name__})" for name, module in named.items()]
    more = f", and {len(listed) - MAX_LISTED} more" if len(listed) > MAX_LISTED else ""
    near = did_you_mean(asked, [*named, *(type(module).__name__ for module in named.values())])
    hint = f"{near} Its modules: {', '.join(listed[:MAX_LISTED])}{more}.".strip()
    return Problem("", f"the model has no module {asked!r}.", "--surrogate", hint)
