"""What AutoPGD does differently in each norm: how far and where to step, how to come back, and what
follows from a check.

Tensors are (M, C, H, W), or (M,) a number for each image.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

import torch
from torch import Tensor

from rpat_cli.attacks.geometry import per_sample
from rpat_cli.attacks.threat import Threat

MOMENTUM = 0.75
"""The paper's alpha: the share of the new step; the rest repeats the one before."""

SPARSER, LEAST_SHARE, STAYED, TEN = 1.5, 0.1, 0.95, 10


class Norm(Protocol):
    """How AutoPGD moves in one norm, and the step sizes of the images that are attacked."""

    def move(self, x: Tensor, x_adv: Tensor, x_old: Tensor, grad: Tensor, first: bool) -> Tensor:
        """The next point, from `x_adv` and the one before it."""
        ...

    def look(self, losses: Tensor) -> None:
        """Take the losses of the points that `move` has made into account."""
        ...

    def check(self, x: Tensor, top: Tensor, top_loss: Tensor) -> Tensor | None:
        """After each step. At a checkpoint, adapt the step sizes: (M,) bool, which images go back
        to their best point `top`; None between checkpoints."""
        ...

    def keep(self, which: Tensor) -> None:
        """Forget all images but those."""
        ...


def norm_of(
    threat: Threat, steps: int, rho: float, sparsity: float | Tensor, x: Tensor
) -> "Halving | Sparse":
    """The rules for a run of so many steps on images `x`."""
    if threat.norm == "L1":
        shares = torch.as_tensor(sparsity, dtype=x.dtype, device=x.device).expand(len(x)).clone()
        return Sparse.begin(threat, steps, shares, x)
    return Halving.begin(threat, steps, rho, x)


@dataclass
class Halving:
    """Linf and L2 (Croce & Hein, ICML 2020, arXiv 2003.01690, section 3): steps of 2 eps at first,
    with momentum, halved where they bring little.

    A check halves the step of an image whose loss rose in no more than `rho` of the steps since the
    last one, or whose best loss has not improved although the last check left its step alone. The
    loss before the very first step counts as 0, as in the published code.
    """

    threat: Threat
    rho: float
    interval: int
    shrink: int
    shortest: int
    step: Tensor
    rises: Tensor
    last_loss: Tensor
    checked: Tensor
    was_halved: Tensor
    since: int = 0

    @classmethod
    def begin(cls, threat: Threat, steps: int, rho: float, x: Tensor) -> "Halving":
        nothing = x.new_zeros(len(x))
        return cls(
            threat,
            rho,
            interval=max(int(0.22 * steps), 1),
            shrink=max(int(0.03 * steps), 1),
            shortest=max(int(0.06 * steps), 1),
            step=torch.full_like(nothing, 2 * threat.eps),
            rises=nothing,
            last_loss=nothing,
            checked=torch.full_like(nothing, -torch.inf),
            was_halved=torch.ones_like(nothing, dtype=torch.bool),
        )

    def move(self, x: Tensor, x_adv: Tensor, x_old: Tensor, grad: Tensor, first: bool) -> Tensor:
        """z = P(x_adv + step * direction); P(x_adv + a (z - x_adv) + (1 - a)(x_adv - x_old))."""
        direction = self.threat.geometry.step(grad, x_adv)
        bring = self.threat.ball_then_box
        ahead = bring(x, x_adv + per_sample(self.step, x) * direction)
        share = 1.0 if first else MOMENTUM
        return bring(x, x_adv + share * (ahead - x_adv) + (1 - share) * (x_adv - x_old))

    def look(self, losses: Tensor) -> None:
        self.rises = self.rises + (losses > self.last_loss)
        self.last_loss = losses

    def check(self, x: Tensor, top: Tensor, top_loss: Tensor) -> Tensor | None:  # noqa: ARG002
        self.since += 1
        if self.since < self.interval:
            return None
        halved = self.rises <= self.rho * self.interval
        halved |= ~self.was_halved & (self.checked >= top_loss)
        self.step = torch.where(halved, self.step / 2, self.step)
        self.checked, self.was_halved = top_loss.clone(), halved
        self.rises, self.since = torch.zeros_like(self.rises), 0
        self.interval = max(self.interval - self.shrink, self.shortest)
        return halved

    def keep(self, which: Tensor) -> None:
        _narrow(self, which, "step", "rises", "last_loss", "checked", "was_halved")


@dataclass
class Sparse:
    """L1 (Croce & Hein, "Mind the box", ICML 2021, arXiv 2103.01208): a step moves the pixels of
    the largest gradients, all equally far, `share` of all.

    At a check the share follows how many pixels the best point has changed. Where they have become
    fewer, the step is long again (eps) and goes on from the best point; elsewhere it shrinks.
    """

    threat: Threat
    interval: int
    step: Tensor
    share: Tensor
    changed: Tensor
    since: int = 0

    @classmethod
    def begin(cls, threat: Threat, steps: int, share: Tensor, x: Tensor) -> "Sparse":
        pixels = x.flatten(1).shape[1]
        return cls(
            threat,
            interval=max(int(0.04 * steps), 1),
            step=torch.full_like(share, threat.eps),
            share=share,
            changed=torch.full_like(share, pixels),
        )

    def goes_on_from(self, x: Tensor, x_adv: Tensor) -> None:
        """Take the sparsity of a start into account: that of the end of a run before."""
        self.changed = _changed(x, x_adv)
        self.share = self.changed / x.flatten(1).shape[1] / SPARSER

    def move(self, x: Tensor, x_adv: Tensor, x_old: Tensor, grad: Tensor, first: bool) -> Tensor:  # noqa: ARG002
        size = grad.flatten(1).abs()
        pixels = size.shape[1]
        rank = ((1 - self.share) * pixels).clamp(0, pixels - 1).long()
        threshold = size.sort(dim=1).values.gather(1, rank[:, None])
        sign = grad.sign() * (size >= threshold).view_as(grad)
        count = sign.flatten(1).abs().sum(dim=1).clamp_min(1)
        delta = x_adv + per_sample(self.step / count, x) * sign - x
        return as_published(self.threat, x, x + delta)

    def look(self, losses: Tensor) -> None:
        """The sparsity is all that counts here."""

    def check(self, x: Tensor, top: Tensor, top_loss: Tensor) -> Tensor | None:  # noqa: ARG002
        self.since += 1
        if self.since < self.interval:
            return None
        changed, eps = _changed(x, top), self.threat.eps
        fewer = changed / self.changed < STAYED
        self.share = changed / x.flatten(1).shape[1] / SPARSER
        shorter = (self.step / SPARSER).clamp_min(eps / TEN)
        self.step = torch.where(fewer, torch.full_like(self.step, eps), shorter)
        self.changed, self.since = changed, 0
        return fewer

    def keep(self, which: Tensor) -> None:
        _narrow(self, which, "step", "share", "changed")


def as_published(threat: Threat, x: Tensor, ahead: Tensor) -> Tensor:
    """The point nearest to `ahead` in ball and box, by adding the way there.

    So pixels that go back to those of x may miss them by a rounding, and count as changed, on which
    the sparsity of later steps depends. x + clip(ahead - x) would not miss them, and find other
    images than AutoAttack does.
    """
    delta = ahead - x
    return ahead + (threat.clip(x, delta) - delta)


def radii(threat: Threat, steps: int) -> list[tuple[Threat, int]]:
    """L1's start with larger radii: 3 eps and 2 eps for 3 in 10 of the steps each, then eps."""
    part = ceil(0.3 * steps)
    rest = max(0, steps - 2 * part)
    wider = [(Threat(threat.norm, factor * threat.eps), part) for factor in (3, 2)]
    return [*wider, (threat, rest)]


def _changed(x: Tensor, x_adv: Tensor) -> Tensor:
    """(M,) how many pixel values differ."""
    return (x_adv != x).flatten(1).sum(dim=1).to(x.dtype)


def _narrow(rules: Any, which: Tensor, *names: str) -> None:
    for name in names:
        setattr(rules, name, getattr(rules, name)[which])
