"""What an attack asks of a model: logits, and the gradient with respect to the input alone."""

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from rpat_cli.attacks.base import LossFn


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DDP or DataParallel: an attack through the wrapper would cost an all-reduce
    per step."""
    return model.module if isinstance(model, DataParallel | DistributedDataParallel) else model


Looked = tuple[Tensor, Tensor, Tensor]
"""Of a point: d(sum of losses)/dx, shaped like x; the losses, (B,) or a scalar; the logits
(B, classes)."""


def input_gradient(model: nn.Module, x: Tensor, loss_fn: LossFn, eot: int = 1) -> Looked:
    """A forward and a backward pass at `x` (B, C, H, W), with `loss_fn` from logits to losses.

    `eot`: so many of both, of which everything returned is the mean: the expectation over the
    randomness of a model (EOT; Athalye et al., ICML 2018, arXiv 1707.07397).

    Everything is detached. Differentiates with respect to the input alone, so that no parameter's
    `.grad` is touched or even computed. A model that cuts the graph gets a gradient of zeros, and
    NaN counts as zero: the attack then fails, and evaluation says why.
    """
    grad, losses, logits = _one_gradient(model, x, loss_fn)
    if eot == 1:
        return grad, losses, logits
    for _ in range(eot - 1):
        more = _one_gradient(model, x, loss_fn)
        grad, losses, logits = grad + more[0], losses + more[1], logits + more[2]
    return grad / eot, losses / eot, logits / eot


def input_losses(
    model: nn.Module, x: Tensor, loss_fn: LossFn, eot: int = 1
) -> tuple[Tensor, Tensor]:
    """The same without gradients: losses and logits."""
    logits = forward(model, x)
    losses = loss_fn(logits)
    if eot == 1:
        return losses, logits
    for _ in range(eot - 1):
        more = forward(model, x)
        losses, logits = losses + loss_fn(more), logits + more
    return losses / eot, logits / eot


def _one_gradient(model: nn.Module, x: Tensor, loss_fn: LossFn) -> Looked:
    with torch.enable_grad():
        x = x.clone() if x.is_inference() else x  # made under torch.inference_mode()
        x = x.detach().requires_grad_()
        logits = full_precision(model(x))
        losses = loss_fn(logits)
        grad = None
        if losses.requires_grad:
            (grad,) = torch.autograd.grad(losses.sum(), x, allow_unused=True)
    grad = torch.zeros_like(x) if grad is None else grad.nan_to_num(nan=0.0)
    return grad.detach(), losses.detach(), logits.detach()


def gradient_reaches(model: nn.Module, x: Tensor) -> bool:
    """Do the logits depend on the images `x` (B, C, H, W) through a gradient, even a zero one?

    False where the model cuts the graph (`detach`, `no_grad`, a detour through NumPy).
    """
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        logits = model(x)
        return (
            bool(logits.requires_grad)
            and torch.autograd.grad(logits.sum(), x, allow_unused=True)[0] is not None
        )


@torch.no_grad()
def forward(model: nn.Module, x: Tensor) -> Tensor:
    """One forward pass without a graph, in the mode the model is in.

    `x` is (B, C, H, W); the logits are (B, classes), in float32 or more.
    """
    logits = full_precision(model(x))
    # Older versions of torch reuse autocast's half-precision copies of the weights, made here
    # without a graph, for the training pass in the same region, whose parameters then get no
    # gradient. Where that is fixed, this costs nothing.
    torch.clear_autocast_cache()
    return logits


def full_precision(logits: Tensor) -> Tensor:
    """Half-precision logits as float32, others as they are: losses of nearly equal logits need the
    digits."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
