"""How an attack asks the model: without its DDP wrapper, in a known mode, for input gradients
only."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from rpat_cli.attacks.base import LossFn

BnMode = Literal["eval", "train"]


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DDP or DataParallel: an attack through the wrapper would cost an all-reduce
    per step."""
    return model.module if isinstance(model, DataParallel | DistributedDataParallel) else model


@contextmanager
def attack_mode(model: nn.Module, bn_mode: BnMode = "eval") -> Iterator[nn.Module]:
    """The unwrapped model in eval or train mode; afterwards each of its modules is in the mode it
    was in."""
    model = unwrap(model)
    was_training = [(module, module.training) for module in model.modules()]
    model.train(bn_mode == "train")
    try:
        yield model
    finally:
        for module, training in was_training:
            module.training = training


def input_gradient(model: nn.Module, x: Tensor, loss_fn: LossFn) -> tuple[Tensor, Tensor, Tensor]:
    """One forward and one backward pass: d(sum of losses)/dx, the losses and the logits, all
    detached.

    Differentiates with respect to the input alone, so no parameter's `.grad` is touched or even
    computed. A model that cuts the graph gets a gradient of zeros, and NaN counts as zero: the
    attack fails, and evaluation says why.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = full_precision(model(x))
        losses = loss_fn(logits)
        grad = (
            torch.autograd.grad(losses.sum(), x, allow_unused=True)[0]
            if losses.requires_grad
            else None
        )
    grad = torch.zeros_like(x) if grad is None else grad.nan_to_num(nan=0.0)
    return grad.detach(), losses.detach(), logits.detach()


def gradient_reaches(model: nn.Module, x: Tensor) -> bool:
    """Do the logits depend on the images `x` (B, C, H, W) through a gradient, be it zero, or is the
    graph cut?"""
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        logits = model(x)
        return (
            bool(logits.requires_grad)
            and torch.autograd.grad(logits.sum(), x, allow_unused=True)[0] is not None
        )


@torch.no_grad()
def predict(model: nn.Module, x: Tensor) -> Tensor:
    """One forward pass without a graph, in the mode the model is in: logits, at least float32."""
    logits = full_precision(model(x))
    # Older torch keeps autocast's half-precision copies of the weights made here, without a graph,
    # for the training pass in the same region, whose parameters then get no gradient. Where that is
    # mended this costs nothing.
    torch.clear_autocast_cache()
    return logits


def full_precision(logits: Tensor) -> Tensor:
    """Half-precision logits as float32, others as they are: losses of nearly equal logits need the
    digits."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
