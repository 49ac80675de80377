"""Adaptive Auto Attack, A3: Liu et al., CVPR 2022, arXiv 2203.05154.

Rounds of short descents on the margin, each from a start that walks in a random direction of the
logits first (ADI). Which directions have broken images decides on those of later rounds; images
far from the boundary are attacked less and less often.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rpat_cli.attacks.a3_rounds import Aim, Round, final_aim, is_biased, rounds_of
from rpat_cli.attacks.base import LossFn, check_pixels
from rpat_cli.attacks.forward import input_gradient, input_losses
from rpat_cli.attacks.losses import margin_loss
from rpat_cli.attacks.pgd_settings import below
from rpat_cli.attacks.side_effects import attack_mode
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError

NEVER_ATTACKED = -1e5
"""The best margin of an image that no descent has tried."""

FEW_LEFT, MORE_RESTARTS = 0.1, 10
"""With less than this share of all images left, each of them is attacked, with more restarts."""

LEAST_SHARE = 0.01
"""Of all images, so many are attacked at least: published as 100 of 10,000."""


@dataclass(frozen=True)
class A3:
    """The whole algorithm, in Linf and L2; `rounds`: how many of its 13.

    eot: each gradient is the mean over so many passes. It adapts to the images that it is given
    together: to a batch, here. Raises `ConfigError` for fewer than one round.
    """

    threat: Threat
    rounds: int = 13
    eot: int = 1

    def __post_init__(self) -> None:
        problems = [*below("rounds", self.rounds, 1), *below("eot", self.eot, 1)]
        if problems:
            raise ConfigError(*problems)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Attack `x` (B, C, H, W) with classes `y` (B,). Returns x_adv in ball and box: the image
        itself where nothing was found."""
        x = x.detach()
        check_pixels(model, x)
        with attack_mode(model) as model:
            hunt = _Hunt.begin(self, model, x, y)
            for number in range(self.rounds):
                hunt.round(number)
            return hunt.found


@dataclass(frozen=True)
class Descended:
    """Where a descent on M images has ended. `x_adv`: the first wrong point, or the last.
    `wrong` (M,); `margin` (M,): the highest max_{k≠y} z_k - z_y on the way; `fell_to` (M,): the
    class of a wrong point. `in_adi` (M,): was it wrong before the descent proper began?"""

    x_adv: Tensor
    wrong: Tensor
    margin: Tensor
    fell_to: Tensor
    in_adi: Tensor


def descend(
    attack: A3, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, w: Tensor, plan: Round
) -> Descended:
    """A restart: from `x_adv`, `plan.adi` steps of eps up Σ_k w_k z_k, then `plan.steps` on the
    margin, whose size falls from eps like a cosine. A wrong image takes no further step."""
    eps, everything = attack.threat.eps, torch.arange(len(x), device=x.device)
    result = Descended(
        x_adv=x_adv.clone(),
        wrong=torch.zeros_like(y, dtype=torch.bool),
        margin=torch.full_like(x.flatten(1)[:, 0], NEVER_ATTACKED),
        fell_to=torch.full_like(y, -1),
        in_adi=torch.zeros_like(y, dtype=torch.bool),
    )

    def rises(at: Tensor, step: int) -> LossFn:
        if step < plan.adi:
            return lambda logits: (w[at] * logits).sum(dim=1)
        return lambda logits: margin_loss(logits, y[at])

    at, x_adv = everything, x_adv
    grad, _, _ = input_gradient(model, x_adv, rises(at, 0), attack.eot)
    for step in range(plan.adi + plan.steps):
        size = eps if step < plan.adi else _size(eps, step - plan.adi, plan.steps)
        direction = attack.threat.geometry.step(grad, x_adv)
        x_adv = attack.threat.ball_then_box(x[at], x_adv + size * direction)
        # One pass shows what became of this step, and where the next one leads.
        if step == plan.adi + plan.steps - 1:
            _, logits = input_losses(model, x_adv, rises(at, step), attack.eot)
        else:
            grad, _, logits = input_gradient(model, x_adv, rises(at, step + 1), attack.eot)
        margin = margin_loss(logits, y[at])
        wrong = logits.argmax(dim=1) != y[at]
        result.x_adv[at] = x_adv
        result.margin[at] = torch.maximum(result.margin[at], margin.to(result.margin))
        result.wrong[at], result.fell_to[at] = wrong, logits.argmax(dim=1)
        result.in_adi[at] = wrong & (step < plan.adi)
        at, x_adv, grad = at[~wrong], x_adv[~wrong], grad[~wrong]
        if not len(at):
            break
    return result


def _size(eps: float, s: int, steps: int) -> float:
    least = 0.1 * eps if steps <= 10 else 0.001 * eps
    return least + (eps - least) * (1 + math.cos(math.pi * s / (steps + 1))) / 2


def statistics(w: Tensor, order: Tensor, fell_to: Tensor) -> Tensor:
    """What restarts tell about directions: (K, K + 1), from the directions (M, K) of images that
    fell, their classes in ascending order of their logits (M, K), and the classes they fell to.

    Each row is the sum of directions, entries in that order, and a count: row 0 of all images, row
    i of those that fell to the i-th likeliest class after the top one.
    """
    classes = w.shape[1]
    table = w.new_zeros(classes, classes + 1)
    sorted_w = torch.cat([w.gather(1, order), torch.ones_like(w[:, :1])], dim=1)
    row = classes - 1 - (order == fell_to[:, None]).int().argmax(dim=1)
    table[0] = sorted_w.sum(dim=0)
    return table.index_add(0, row, sorted_w)


@dataclass
class _Hunt:
    """The state of an attack on one batch."""

    attack: A3
    model: nn.Module
    x: Tensor
    y: Tensor
    found: Tensor
    left: Tensor
    order: Tensor
    margin: Tensor
    table: Tensor
    counter: int = -1
    biased: bool = False
    attacked: dict[int, int] = field(default_factory=dict)

    @classmethod
    def begin(cls, attack: A3, model: nn.Module, x: Tensor, y: Tensor) -> "_Hunt":
        """Images that are wrong as they are, or at a random corner of the ball, are done."""
        _, clean = input_losses(model, x, lambda logits: logits, attack.eot)
        corner = x
        if attack.threat.norm == "Linf":
            sign = torch.randint_like(x, 2) * 2 - 1
            corner = (x + attack.threat.eps * sign).clamp(0, 1)
        _, logits = input_losses(model, corner, lambda logits: logits, attack.eot)
        right = clean.argmax(dim=1) == y
        fooled = right & (logits.argmax(dim=1) != y)
        found = x.clone()
        found[fooled] = corner[fooled]
        classes = logits.shape[1]
        return cls(
            attack,
            model,
            x,
            y,
            found=found,
            left=right & ~fooled,
            order=logits.argsort(dim=1),
            margin=torch.full_like(x.flatten(1)[:, 0], NEVER_ATTACKED),
            table=logits.new_zeros(classes, classes + 1),
        )

    def round(self, number: int) -> None:
        """All restarts of a round."""
        classes = self.order.shape[1]
        plan = rounds_of(self.biased, classes)[number]
        left = int(self.left.sum())
        few = left < FEW_LEFT * len(self.x)
        fraction = 1.0 if few else plan.fraction
        fell_in_adi = tried = 0
        for _ in range(plan.restarts + MORE_RESTARTS * (few and number > 2)):
            at = self._chosen(fraction)
            if not len(at):
                break
            w = torch.empty_like(self.order[at], dtype=self.x.dtype).uniform_(-1, 1)
            aim = self._aim(number, plan, classes)
            if aim is not None:
                w = aim.applied(w, self.order[at], self.y[at], self.counter)
            result = descend(
                self.attack, self.model, self.x[at], self.y[at], self._start(at), w, plan
            )
            self._take(at, w, result, learns=number >= 1 and plan.adi > 0)
            fell_in_adi, tried = fell_in_adi + int(result.in_adi.sum()), tried + len(at)
            self.counter += 1
        if number == 1 and tried:
            self.biased = is_biased(fell_in_adi / tried)

    def _aim(self, number: int, plan: Round, classes: int) -> Aim | None:
        """What is known of good directions; nothing in the first two rounds."""
        if number < 2:
            return None
        toward = sum(float(self.table[i, classes - 1 - i]) for i in range(1, classes))
        own = float(self.table[1:, classes - 1].sum())
        u = float(torch.rand(()))
        if plan.is_final:
            return final_aim(classes, self.biased, u)
        if self.biased and number > 2:
            return Aim.drawn(classes, 1, 1, u)
        return Aim.drawn(classes, toward, own, u) if classes <= 10 else Aim.drawn(classes, 1, -1, u)

    def _chosen(self, fraction: float) -> Tensor:
        """The images to attack: those that are left, closest to the boundary."""
        at = self.left.nonzero().squeeze(1)
        least = math.ceil(LEAST_SHARE * len(self.x))
        count = min(len(at), max(least, math.ceil(fraction * len(at))))
        return at[self.margin[at].argsort(descending=True, stable=True)[:count]]

    def _start(self, at: Tensor) -> Tensor:
        x, threat = self.x[at], self.attack.threat
        return (x + threat.geometry.random(x, threat.eps)).clamp(0, 1)

    def _take(self, at: Tensor, w: Tensor, result: Descended, *, learns: bool) -> None:
        self.margin[at] = torch.maximum(self.margin[at], result.margin)
        fallen = at[result.wrong]
        self.found[fallen] = result.x_adv[result.wrong]
        self.left[fallen] = False
        if learns and len(fallen):
            which = result.wrong
            self.table += statistics(w[which], self.order[fallen], result.fell_to[which])
