"""AutoPGD: projected gradient ascent whose step sizes follow from the losses (Croce & Hein, ICML
2020, arXiv 2003.01690; in L1 "Mind the box", ICML 2021, arXiv 2103.01208)."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from rpat_cli.attacks.autopgd_norms import Halving, Sparse, as_published, norm_of, radii
from rpat_cli.attacks.base import LossAt, LossFn, check_pixels
from rpat_cli.attacks.best import Best
from rpat_cli.attacks.forward import input_gradient, input_losses
from rpat_cli.attacks.geometry import per_sample
from rpat_cli.attacks.losses import INNER_LOSSES, hard_labels, replaced
from rpat_cli.attacks.pgd_settings import below, not_among
from rpat_cli.attacks.side_effects import BnMode, attack_mode
from rpat_cli.attacks.start import Start, first_delta
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError, Problem

Kept = Literal["worst", "loss", "last-wrong"]


@dataclass(frozen=True)
class AutoPGD:
    """`steps` steps up the inner loss; the step size begins at 2 eps (L1: eps) and adapts itself.

    loss: inner loss of `__call__`, a key of `INNER_LOSSES`.
    restarts: each image keeps the run that fools the model, or else has the highest loss.
    start: "boundary" (the paper's), "uniform", "gaussian", "zero", or a perturbation.
    keep: "worst": the first point that fools the model is final, and the image takes no further
    step; others keep their point of highest loss. "loss": the point of highest loss, for training.
    "last-wrong": all steps are taken, and the last point that fools it is kept, as published.
    eot: each gradient is the mean over so many passes, for models that are random.
    rho: the step is halved where fewer than this share of the steps raised the loss.
    sparsity: in L1, the share of the pixels that the first step moves.
    large_radii: in L1, begin with 3 eps and 2 eps.

    `steps` + 1 forward and `steps` backward passes for an image that resists. Raises `ConfigError`
    for values outside these.
    """

    threat: Threat
    steps: int = 100
    loss: str = "ce"
    restarts: int = 1
    start: Start | Tensor = "boundary"
    keep: Kept = "worst"
    bn_mode: BnMode = "eval"
    eot: int = 1
    rho: float = 0.75
    sparsity: float = 0.2
    large_radii: bool = True

    def __post_init__(self) -> None:
        problems = [
            *not_among("start", self.start, get_args(Start)),
            *not_among("keep", self.keep, get_args(Kept)),
            *not_among("bn_mode", self.bn_mode, get_args(BnMode)),
            *not_among("loss", self.loss, tuple(INNER_LOSSES)),
            *below("steps", self.steps, 0),
            *below("restarts", self.restarts, 1),
            *below("eot", self.eot, 1),
        ]
        if self.keep == "worst" and self.bn_mode == "train":
            message = "'worst' drops fooled images, which changes the batch statistics of the rest."
            problems.append(Problem("keep", message, hint="Use bn_mode 'eval', or keep 'loss'."))
        if problems:
            raise ConfigError(*problems)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Attack `x` (B, C, H, W); `y` are (B,) classes or (B, classes) probabilities.

        Returns x_adv, shaped like `x`, detached, in ball and box.
        """
        inner = INNER_LOSSES[self.loss]
        return self.climb(model, x, lambda at: lambda logits: inner(logits, y[at]), hard_labels(y))

    def perturb(
        self, model: nn.Module, x: Tensor, loss_fn: LossFn, *, start: Tensor | None = None
    ) -> Tensor:
        """The points of the highest loss, from logits to (B,) losses, or to a scalar: then the
        whole batch has one loss, and one step size."""
        attack = self if start is None else replace(self, start=start, restarts=1)
        return attack.climb(model, x, lambda _: loss_fn, None)

    def climb(self, model: nn.Module, x: Tensor, loss_at: LossAt, y: Tensor | None) -> Tensor:
        """The same with an inner loss of their own for samples: `loss_at` gives that of some.

        `y` are the classes (B,) that a fooled model misses; without them the loss alone counts.
        """
        return self.search(model, x, loss_at, y).x_adv

    def search(self, model: nn.Module, x: Tensor, loss_at: LossAt, y: Tensor | None) -> Best:
        """`climb`, with which samples were fooled, as seen on the way."""
        x = x.detach()
        check_pixels(model, x)
        best = Best(x, None if self.keep == "loss" else y)
        with attack_mode(model, self.bn_mode) as model:
            for _ in range(self.restarts):
                at = (~best.fooled).nonzero().squeeze(1)
                if not len(at):
                    break
                self._from_start(model, x, loss_at, at, best)
        return best

    def remarks(self, classes: int) -> tuple[str, ...]:
        """What is to be said of this attack on a model of so many classes."""
        return replaced(self.loss, classes)

    def _from_start(
        self, model: nn.Module, x: Tensor, loss_at: LossAt, at: Tensor, best: Best
    ) -> None:
        """A run on the images `at`; in L1 with large radii first, where no point counts yet."""
        own = x[at]
        if self.threat.norm != "L1" or not self.large_radii or self._is_fixed:
            x_adv = (own + first_delta(self.threat, self.start, own)).clamp(0, 1)
            run = _Run(self, self.threat, self.steps, model, loss_at, best, at, own, x_adv)
            run.climb()
            return
        phases = radii(self.threat, self.steps)
        widest = phases[0][0]
        is_drawn = self.start == "boundary"
        far = torch.randn_like(own) if is_drawn else first_delta(widest, self.start, own)
        x_adv = as_published(widest, own, own + far)
        for number, (threat, steps) in enumerate(phases):
            x_adv = as_published(threat, own, x_adv).clamp(0, 1)
            counted = best if number == len(phases) - 1 else Best(x, None)
            run = _Run(self, threat, steps, model, loss_at, counted, at, own, x_adv)
            run.goes_on = True
            x_adv = run.climb()

    @property
    def _is_fixed(self) -> bool:
        return isinstance(self.start, Tensor) or self.start == "zero"


@dataclass
class _Run:
    """One run on the images `at` of a batch, which are `x`, from `x_adv`. An image that is done
    leaves all tensors. `goes_on`: an earlier run has ended at `x_adv`."""

    attack: AutoPGD
    threat: Threat
    steps: int
    model: nn.Module
    loss_at: LossAt
    best: Best
    at: Tensor
    x: Tensor
    x_adv: Tensor
    goes_on: bool = False

    def climb(self) -> Tensor:
        """Returns the points of highest loss of the images that were not done before the end."""
        attack = self.attack
        rules = norm_of(self.threat, self.steps, attack.rho, attack.sparsity, self.x)
        if self.goes_on and isinstance(rules, Sparse):
            rules.goes_on_from(self.x, self.x_adv)
        self.x_old = self.x_adv
        self.top, self.top_loss = self.x_adv, self.x.new_full((len(self.x),), -torch.inf)
        self.grad = self.top_grad = torch.zeros_like(self.x)
        self._look(rules, is_last=self.steps == 0)
        for i in range(self.steps):
            if not len(self.at):
                break
            moved = rules.move(self.x, self.x_adv, self.x_old, self.grad, first=i == 0)
            self.x_old, self.x_adv = self.x_adv, moved
            losses = self._look(rules, is_last=i == self.steps - 1)
            rules.look(losses)
            back = rules.check(self.x, self.top, self.top_loss)
            if back is not None:
                where = per_sample(back, self.x)
                self.x_adv = torch.where(where, self.top, self.x_adv)
                self.grad = torch.where(where, self.top_grad, self.grad)
        resisted = torch.zeros_like(self.at, dtype=torch.bool)
        self.best.settle(self.at, self.top, self.top_loss, resisted)
        return self.top

    def _look(self, rules: Halving | Sparse, *, is_last: bool) -> Tensor:
        """What the model makes of the current points; the losses of the images that stay. The last
        points need no gradient."""
        loss_fn, eot = self.loss_at(self.at), self.attack.eot
        if is_last:
            losses, logits = input_losses(self.model, self.x_adv, loss_fn, eot)
        else:
            self.grad, losses, logits = input_gradient(self.model, self.x_adv, loss_fn, eot)
        # A model that overflows has losses without a value; no point of it is the best.
        losses = losses.to(self.x).expand(len(self.x)).nan_to_num(nan=-torch.inf)
        losses = self._leave(rules, losses, self.best.fools(self.at, logits))
        higher = losses > self.top_loss
        where = per_sample(higher, self.x)
        self.top = torch.where(where, self.x_adv, self.top)
        self.top_grad = torch.where(where, self.grad, self.top_grad)
        self.top_loss = torch.where(higher, losses, self.top_loss)
        return losses

    def _leave(self, rules: Halving | Sparse, losses: Tensor, fooled: Tensor) -> Tensor:
        """Record the images that fool the model, and go on without them."""
        if not fooled.any():
            return losses
        if self.attack.keep == "last-wrong":
            where = self.at[fooled]
            self.best.x_adv[where], self.best.fooled[where] = self.x_adv[fooled], True
            return losses
        yes = torch.ones_like(self.at[fooled], dtype=torch.bool)
        self.best.settle(self.at[fooled], self.x_adv[fooled], losses[fooled], yes)
        stay = ~fooled
        for name in ("at", "x", "x_adv", "x_old", "grad", "top", "top_grad", "top_loss"):
            setattr(self, name, getattr(self, name)[stay])
        rules.keep(stay)
        return losses[stay]
