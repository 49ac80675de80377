"""Projected gradient ascent (Madry et al., ICLR 2018): the one loop behind every gradient attack of
this package."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from rpat_cli.attacks.base import LossFn
from rpat_cli.attacks.forward import BnMode, attack_mode, input_gradient, predict
from rpat_cli.attacks.geometry import largest_to_one, nonzero, per_sample
from rpat_cli.attacks.losses import INNER_LOSSES, hard_labels
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError, Problem, did_you_mean

Start = Literal["uniform", "gaussian", "zero"]
Keep = Literal["last", "worst"]

GAUSSIAN_START = 0.001
"""Of TRADES (Zhang et al., ICML 2019) and MART (Wang et al., ICLR 2020): 0.001 N(0, 1) a pixel."""


class _Climb(NamedTuple):
    """Where a batch stands on its way up: clean images, perturbed images, accumulated gradient."""

    x: Tensor
    x_adv: Tensor
    velocity: Tensor

    def only(self, keep: Tensor) -> "_Climb":
        return _Climb(self.x[keep], self.x_adv[keep], self.velocity[keep])


@dataclass(frozen=True)
class PGD:
    """`steps` steps of size `step_size` (pixels) up the inner loss, each brought back into ball and
    box.

    start: where in the ball to begin: "uniform", "gaussian" (0.001 N(0, 1)), "zero", or the
    perturbation itself.
    restarts: runs from as many starts; each sample keeps the one that fools the model, or else has
    the highest loss.
    bn_mode: "train" attacks the model with batch statistics and moves its running ones (ReBAT);
    "eval" moves nothing.
    keep: "last" returns where the last step ends, after exactly `steps` forward and backward passes
    (one more forward
        if restarts are to be compared). "worst" is for evaluation: the first point at which a
        sample is fooled is final, and the sample takes no further step; others keep their point of
        highest loss.
    loss: inner loss of `__call__`, a key of `INNER_LOSSES`: "ce" or "margin".
    decay: above 0, gradients are accumulated, each at unit L1 norm (momentum; Dong et al., CVPR
    2018).

    Raises `ConfigError` for values outside these.
    """

    threat: Threat
    step_size: float
    steps: int
    start: Start | Tensor = "uniform"
    restarts: int = 1
    bn_mode: BnMode = "eval"
    keep: Keep = "last"
    loss: str = "ce"
    decay: float = 0.0

    def __post_init__(self) -> None:
        problems = [
            *_not_among("start", self.start, get_args(Start)),
            *_not_among("bn_mode", self.bn_mode, get_args(BnMode)),
            *_not_among("keep", self.keep, get_args(Keep)),
            *_not_among("loss", self.loss, tuple(INNER_LOSSES)),
            *_below("step_size", self.step_size, 0),
            *_below("steps", self.steps, 0),
            *_below("restarts", self.restarts, 1),
            *_below("decay", self.decay, 0),
        ]
        if self.restarts > 1 and (isinstance(self.start, Tensor) or self.start == "zero"):
            message = f"{self.restarts} restarts from one fixed start all end at the same point."
            problems.append(
                Problem(
                    "restarts", message, hint="Use start 'uniform' or 'gaussian', or restarts 1."
                )
            )
        if self.keep == "worst" and self.bn_mode == "train":
            message = (
                "'worst' drops fooled samples from the batch, which would change the batch "
                "statistics of the rest."
            )
            problems.append(Problem("keep", message, hint="Use bn_mode 'eval', or keep 'last'."))
        if problems:
            raise ConfigError(*problems)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Attack labels `y`, (B,) classes or (B, classes) probabilities. Returns x_adv, detached,
        in ball and box."""
        inner = INNER_LOSSES[self.loss]

        def loss_at(at: Tensor) -> LossFn:
            target = y[at]
            return lambda logits: inner(logits, target)

        return self._search(model, x, loss_at, hard_labels(y))

    def perturb(
        self, model: nn.Module, x: Tensor, loss_fn: LossFn, *, start: Tensor | None = None
    ) -> Tensor:
        """Attack with an inner loss of one's own, from logits (B, classes) to a scalar, or to (B,)
        losses.

        With (B,) losses, restarts and "worst" choose per sample; with a scalar, the batch as a
        whole.
        """
        attack = self if start is None else replace(self, start=start, restarts=1)
        return attack._search(model, x, lambda _: loss_fn, None)

    def _search(
        self, model: nn.Module, x: Tensor, loss_at: Callable[[Tensor], LossFn], y: Tensor | None
    ) -> Tensor:
        """`loss_at(indices)` is the inner loss of that part of the batch; without labels nothing
        counts as fooled."""
        x = x.detach()
        with attack_mode(model, self.bn_mode) as model:
            if self.keep == "last" and self.restarts == 1:
                everything = torch.arange(len(x), device=x.device)
                return self._last(model, self._begin(x), loss_at(everything)).x_adv
            best = _Best(x)
            todo = torch.arange(len(x), device=x.device)
            for _ in range(self.restarts):
                if len(todo):
                    self._run(model, self._begin(x[todo]), todo, loss_at, y, best)
                if self.keep == "worst":
                    todo = todo[~best.fooled[todo]]
            return best.x_adv

    def _last(self, model: nn.Module, climb: _Climb, loss_fn: LossFn) -> _Climb:
        for _ in range(self.steps):
            climb, _, _ = self._advance(model, climb, loss_fn)
        return climb

    def _run(
        self,
        model: nn.Module,
        climb: _Climb,
        at: Tensor,
        loss_at: Callable[[Tensor], LossFn],
        y: Tensor | None,
        best: "_Best",
    ) -> None:
        """One run of the samples `at`, entering into `best` what `keep` asks for."""
        if self.keep == "last":
            climb = self._last(model, climb, loss_at(at))
        else:
            for _ in range(self.steps):
                after, losses, logits = self._advance(model, climb, loss_at(at))
                going = ~best.enter(at, climb.x_adv, losses, logits, y)
                climb, at = after.only(going), at[going]
                if not len(at):
                    return
        logits = predict(model, climb.x_adv)
        best.enter(at, climb.x_adv, loss_at(at)(logits), logits, y)

    def _begin(self, x: Tensor) -> _Climb:
        if isinstance(self.start, Tensor):
            delta = self.start.detach().to(x)
        elif self.start == "uniform":
            delta = self.threat.geometry.random(x, self.threat.eps)
        elif self.start == "gaussian":
            delta = GAUSSIAN_START * torch.randn_like(x)
        else:
            delta = torch.zeros_like(x)
        # TRADES and MART take their first gradient at the noise as drawn, some of it a little
        # outside the box; a start that may itself be returned has to be an image
        is_uniform = isinstance(self.start, str) and self.start == "uniform"
        as_drawn = not is_uniform and self.steps > 0 and self.keep == "last"
        return _Climb(
            x, x + delta if as_drawn else self.threat.apply(x, delta), torch.zeros_like(x)
        )

    def _advance(
        self, model: nn.Module, climb: _Climb, loss_fn: LossFn
    ) -> tuple[_Climb, Tensor, Tensor]:
        """One step; the losses and logits belong to the point it starts from."""
        x, x_adv, velocity = climb
        grad, losses, logits = input_gradient(model, x_adv, loss_fn)
        if self.decay:
            grad = largest_to_one(grad)
            velocity = self.decay * velocity + grad / per_sample(
                nonzero(grad.flatten(1).abs().sum(dim=1)), grad
            )
        else:
            velocity = grad
        direction = self.threat.geometry.step(velocity, x_adv)
        x_adv = self.threat.apply(x, x_adv - x + self.step_size * direction)
        return _Climb(x, x_adv, velocity), losses, logits


class _Best:
    """The best adversarial example so far, per sample."""

    def __init__(self, x: Tensor) -> None:
        self.x_adv = x.clone()
        self.fooled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.loss = torch.full((len(x),), -torch.inf, device=x.device, dtype=x.dtype)

    def enter(
        self, at: Tensor, x_adv: Tensor, losses: Tensor, logits: Tensor, y: Tensor | None
    ) -> Tensor:
        """Enter the points x_adv of the samples `at` where they are better; returns which of them
        fool the model."""
        losses = losses.detach().to(self.loss).expand(len(at))
        fooled = torch.zeros_like(self.fooled[at]) if y is None else logits.argmax(dim=1) != y[at]
        was_fooled = self.fooled[at]
        better = (fooled & ~was_fooled) | ((fooled == was_fooled) & (losses > self.loss[at]))
        which = at[better]
        self.x_adv[which], self.loss[which], self.fooled[which] = (
            x_adv[better],
            losses[better],
            fooled[better],
        )
        return fooled


def _not_among(key: str, given: object, allowed: tuple[str, ...]) -> list[Problem]:
    if isinstance(given, Tensor) or given in allowed:
        return []
    return [
        Problem(
            key,
            f"{given!r} is none of {', '.join(allowed)}.",
            hint=did_you_mean(str(given), allowed),
        )
    ]


def _below(key: str, given: float, least: int) -> list[Problem]:
    return [] if given >= least else [Problem(key, f"must be at least {least}, given {given}.")]
