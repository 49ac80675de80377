"""Training losses for a loop of your own: one call a step, from a batch to a scalar.

Each attacks the batch, as its paper does, and computes the loss with the model in the mode that it
is in: call `model.train()` before. `eps`, `norm`, `steps` and `step_size` are those of the attack;
`attack` replaces it. `ra` is the weight of robust perception (RPAT, arXiv 2508.02186).
"""

from typing import TypedDict, Unpack

import torch.nn.functional as F
from torch import Tensor, nn

from rpat_cli.attacks.base import Attack
from rpat_cli.attacks.forward import full_precision
from rpat_cli.calls.attacks import AnyThreat, training_attack
from rpat_cli.calls.options import Norm, Number
from rpat_cli.methods import METHODS
from rpat_cli.methods.base import Method, Outcome, Regularizer, StepContext
from rpat_cli.methods.compose import compose
from rpat_cli.methods.mart import Mart
from rpat_cli.methods.pgd import Pgd
from rpat_cli.methods.robust_perception import RobustPerception
from rpat_cli.methods.trades import Trades


class AttackKeywords(TypedDict, total=False):
    """How the batch is attacked."""

    threat: AnyThreat
    norm: Norm
    eps: Number
    steps: int
    step_size: Number


def loss_of(
    method: "str | Method",
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    attack: Attack | None = None,
    regularizers: "tuple[Regularizer, ...]" = (),
    teacher: nn.Module | None = None,
    epoch: int = 0,
    **settings: Unpack[AttackKeywords],
) -> Outcome:
    """One step of a method, with regularizers or without: the named loss terms, whose sum is
    `.loss`, and the adversarial images.

    `x` (B, C, H, W) in [0, 1], `y` (B,) classes. `method` is a name of `--method`, with its default
    settings, or an object such as `rpat.methods.Trades(beta=3)`. Raises `ConfigError`.
    """
    made: Method = METHODS[method]() if isinstance(method, str) else method
    if attack is None:
        attack = training_attack(made, **settings)
    step = StepContext(model, attack, x, y, epoch=epoch, teacher=teacher)
    return compose(made, *regularizers)(step)


def standard(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """CE(f(x), y): no attack."""
    return F.cross_entropy(full_precision(model(x)), y)


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    ra: float = 0.0,
    attack: Attack | None = None,
    **settings: Unpack[AttackKeywords],
) -> Tensor:
    """CE(f(x'), y) (Madry et al., ICLR 2018, arXiv 1706.06083)."""
    return _loss(Pgd(), model, x, y, ra, attack, settings)


def trades(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    beta: float = 6.0,
    ra: float = 0.0,
    attack: Attack | None = None,
    **settings: Unpack[AttackKeywords],
) -> Tensor:
    """CE(f(x), y) + beta KL(softmax f(x) ‖ softmax f(x')) (Zhang et al., ICML 2019, arXiv
    1901.08573)."""
    return _loss(Trades(beta=beta), model, x, y, ra, attack, settings)


def mart(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    beta: float = 6.0,
    ra: float = 0.0,
    attack: Attack | None = None,
    **settings: Unpack[AttackKeywords],
) -> Tensor:
    """The boosted cross-entropy, and a KL weighted by what the model gets wrong (Wang et al., ICLR
    2020)."""
    return _loss(Mart(beta=beta), model, x, y, ra, attack, settings)


def _loss(
    method: Method,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ra: float,
    attack: Attack | None,
    settings: AttackKeywords,
) -> Tensor:
    terms = (RobustPerception(weight=ra),)
    return loss_of(method, model, x, y, attack=attack, regularizers=terms, **settings).loss
