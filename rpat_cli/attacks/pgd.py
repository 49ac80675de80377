"""Projected gradient descent (Madry et al., ICLR 2018, arXiv 1706.06083), the loop of every
gradient attack here."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rpat_cli.attacks import pgd_settings
from rpat_cli.attacks.base import LossAt, LossFn, check_pixels
from rpat_cli.attacks.best import Best
from rpat_cli.attacks.forward import input_gradient, input_losses
from rpat_cli.attacks.geometry import to_unit_l1
from rpat_cli.attacks.losses import INNER_LOSSES, hard_labels
from rpat_cli.attacks.pgd_settings import Keep
from rpat_cli.attacks.projection import Projection, Reach, around
from rpat_cli.attacks.side_effects import BnMode, attack_mode
from rpat_cli.attacks.start import Start, first_delta
from rpat_cli.attacks.threat import Threat


@dataclass(frozen=True)
class PGD:
    """`steps` steps of `step_size` (pixels in [0, 1]) up the inner loss, projected after each.

    start: where in the ball to begin: "uniform", "gaussian" (0.001 N(0, 1)), "sign" (plus or minus
    one length in every pixel value; GAT), "positive" (0.001 U(0, 1); ADR), "zero", or a tensor,
    the perturbation itself.
    start_scale: the radius of a uniform start, or the length of "sign", as a multiple of eps.
    restarts: each sample keeps the run that fools the model, or else has the highest loss.
    bn_mode: "train" attacks the model with batch statistics and moves its running ones (ReBAT,
    arXiv 2301.00633); "batch" uses batch statistics and moves nothing; "eval" moves nothing.
    keep: "last" returns the point after the last step: `steps` forward and backward passes, and one
    forward more to compare restarts. "worst" is for evaluation: the first point that fools the
    model is final, and the sample takes no further step; others keep their point of highest loss.
    loss: inner loss of `__call__`, a key of `INNER_LOSSES`: "ce" or "margin".
    decay: above 0, gradients are accumulated, each at unit L1 norm (momentum; Dong et al., CVPR
    2018, arXiv 1710.06081).
    projection: "exact" is the nearest point of ball and box; see `rpat_cli.attacks.projection` for
    the others.
    reach: the radius of the ball that a step stays in, as a multiple of eps; "box": the box alone.
    Above 1 for training methods that leave the ball on purpose (N-FGSM), never for evaluation.
    eot: each gradient is the mean over so many passes, for models that are random.

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
    start_scale: float = 1.0
    projection: Projection = "exact"
    reach: Reach = 1.0
    eot: int = 1

    def __post_init__(self) -> None:
        pgd_settings.check(self)

    def scaled(self, share: float) -> "PGD":
        """The same attack with radius and step size times `share`."""
        threat = replace(self.threat, eps=share * self.threat.eps)
        return replace(self, threat=threat, step_size=share * self.step_size)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Attack `x` (B, C, H, W); `y` are (B,) classes or (B, classes) probabilities.

        Returns x_adv, shaped like `x`, detached, in ball and box.
        """
        inner = INNER_LOSSES[self.loss]
        return self.climb(model, x, lambda at: lambda logits: inner(logits, y[at]), hard_labels(y))

    def perturb(
        self, model: nn.Module, x: Tensor, loss_fn: LossFn, *, start: Tensor | None = None
    ) -> Tensor:
        """Attack with another inner loss, from logits (B, classes) to a scalar or to (B,) losses.

        With (B,) losses, restarts and "worst" choose per sample; with a scalar, the whole batch.
        """
        attack = self if start is None else replace(self, start=start, restarts=1)
        return attack.climb(model, x, lambda _: loss_fn, None)

    def climb(self, model: nn.Module, x: Tensor, loss_at: LossAt, y: Tensor | None) -> Tensor:
        """The same with an inner loss of their own for samples: `loss_at` gives that of some.

        `y` are the classes (B,) that a fooled model misses; without them the loss alone counts.
        """
        if self.keep == "worst" or self.restarts > 1:
            return self.search(model, x, loss_at, y).x_adv
        x = x.detach()
        check_pixels(model, x)
        with attack_mode(model, self.bn_mode) as model:
            return self._climb(model, x, loss_at(torch.arange(len(x), device=x.device)))

    def search(self, model: nn.Module, x: Tensor, loss_at: LossAt, y: Tensor | None) -> Best:
        """`climb`, with which samples were fooled, as seen at points that may be returned."""
        x = x.detach()
        check_pixels(model, x)
        everything, best = torch.arange(len(x), device=x.device), Best(x, y)
        with attack_mode(model, self.bn_mode) as model:
            for _ in range(self.restarts):
                if self.keep == "worst":
                    self._climb_until_fooled(model, x, loss_at, best)
                else:
                    x_adv = self._climb(model, x, loss_at(everything))
                    losses, logits = input_losses(model, x_adv, loss_at(everything), self.eot)
                    best.update(everything, x_adv, losses, logits)
        return best

    def _climb(self, model: nn.Module, x: Tensor, loss_fn: LossFn) -> Tensor:
        """PGD as in the paper: x_adv <- project(x_adv + step_size * direction of the gradient)."""
        x_adv, velocity = self._start(x), torch.zeros_like(x)
        inside = around(self.threat, x, self.projection, self.reach)
        for _ in range(self.steps):
            grad, _, _ = input_gradient(model, x_adv, loss_fn, self.eot)
            velocity = self._accumulate(velocity, grad)
            x_adv = inside((x_adv - x).add_(self._move(x_adv, velocity)))
        return x_adv

    def _climb_until_fooled(self, model: nn.Module, x: Tensor, loss_at: LossAt, best: Best) -> None:
        """The same for keep "worst": a sample leaves the batch as soon as it is fooled.

        The losses and logits of a step belong to the point that it starts from, so the last point
        needs a forward pass of its own.
        """
        at = (~best.fooled).nonzero().squeeze(1)
        if not len(at):
            return
        x_adv, velocity = self._start(x[at]), torch.zeros_like(x[at])
        for _ in range(self.steps):
            grad, losses, logits = input_gradient(model, x_adv, loss_at(at), self.eot)
            going = ~best.update(at, x_adv, losses, logits)
            velocity = self._accumulate(velocity, grad)
            inside = around(self.threat, x[at], self.projection, self.reach)
            x_adv = inside((x_adv - x[at]).add_(self._move(x_adv, velocity)))
            at, x_adv, velocity = at[going], x_adv[going], velocity[going]
            if not len(at):
                return
        losses, logits = input_losses(model, x_adv, loss_at(at), self.eot)
        best.update(at, x_adv, losses, logits)

    def _start(self, x: Tensor) -> Tensor:
        delta = first_delta(self.threat, self.start, x, self.start_scale)
        # TRADES and MART take their first gradient at the noise as drawn, a little of it outside
        # the box; a start that may itself be returned has to be an image.
        if isinstance(self.start, Tensor) or self.start not in ("uniform", "sign", "boundary"):
            is_returned = self.steps == 0 or self.keep == "worst"
            return self.threat.apply(x, delta) if is_returned else x + delta
        drawn_in = replace(self.threat, eps=max(1.0, self.start_scale) * self.threat.eps)
        return drawn_in.apply(x, delta)

    def _accumulate(self, velocity: Tensor, grad: Tensor) -> Tensor:
        return self.decay * velocity + to_unit_l1(grad) if self.decay else grad

    def _move(self, x_adv: Tensor, velocity: Tensor) -> Tensor:
        # In place, here and above: a small network on a CPU waits for the memory of new tensors.
        return self.threat.geometry.step(velocity, x_adv).mul_(self.step_size)
