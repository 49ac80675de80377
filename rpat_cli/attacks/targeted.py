"""Attacks toward one class after another, each on the images that no class before has broken.

- APGD-T: AutoPGD on the targeted DLR loss, the likeliest classes first (Croce & Hein, ICML 2020,
  arXiv 2003.01690).
- MM: AutoPGD on the plain margin, three or nine classes, 20 steps each (Minimum-Margin attack, Gao
  et al., ICML 2022).
- MALT: the classes nearest by a linear estimate first (Melamed, Yehudai & Shamir, 2024).
- MultiTargeted: PGD on the margin toward every other class (Gowal et al., 2019, arXiv 1910.09338).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rpat_cli.attacks.autopgd import AutoPGD, Kept
from rpat_cli.attacks.base import check_pixels
from rpat_cli.attacks.best import Best
from rpat_cli.attacks.forward import input_losses
from rpat_cli.attacks.losses import TARGETED_LOSSES, replaced
from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.pgd_settings import below, not_among
from rpat_cli.attacks.side_effects import attack_mode
from rpat_cli.attacks.start import Start
from rpat_cli.attacks.targets import Order, by_logits, by_malt
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError


@dataclass(frozen=True)
class Targeted:
    """`targets` classes, one after another, `steps` steps toward each from each of `restarts`
    starts; with fewer classes, all others.

    loss: a key of `TARGETED_LOSSES`.
    order: "logits", or "malt", which looks at the `candidates` likeliest classes.
    by: "apgd", or "pgd" with `step_size` (default: the threat's usual one).
    start, keep, eot, rho: as in `AutoPGD`; a tensor is (targets, B, C, H, W).

    An image that the model gets wrong comes back as it is. Raises `ConfigError` for values outside
    these.
    """

    threat: Threat
    steps: int = 100
    targets: int = 9
    loss: str = "dlr"
    restarts: int = 1
    order: Literal["logits", "malt"] = "logits"
    candidates: int = 100
    by: Literal["apgd", "pgd"] = "apgd"
    step_size: float | None = None
    start: Start | Tensor = "boundary"
    keep: Kept = "worst"
    eot: int = 1
    rho: float = 0.75

    def __post_init__(self) -> None:
        problems = [
            *not_among("loss", self.loss, tuple(TARGETED_LOSSES)),
            *not_among("order", self.order, ("logits", "malt")),
            *not_among("by", self.by, ("apgd", "pgd")),
            *below("steps", self.steps, 0),
            *below("targets", self.targets, 1),
            *below("candidates", self.candidates, 1),
            *below("restarts", self.restarts, 1),
            *below("eot", self.eot, 1),
        ]
        if problems:
            raise ConfigError(*problems)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Attack `x` (B, C, H, W) with classes `y` (B,). Returns x_adv in ball and box: the image
        itself where no target was reached."""
        x = x.detach()
        check_pixels(model, x)
        found = x.clone()
        with attack_mode(model) as model:
            _, logits = input_losses(model, x, lambda logits: logits, self.eot)
            left = (logits.argmax(dim=1) == y).nonzero().squeeze(1)
            for number, target in enumerate(self.plan(model, x, y, logits, left)):
                # The classes of all images, of which only those that are left count.
                if not len(left):
                    break
                best = self._toward(model, x, y, target, number, left)
                found[left[best.fooled]] = best.x_adv[best.fooled]
                left = left[~best.fooled]
        return found

    def plan(
        self, model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, left: Tensor
    ) -> list[Tensor]:
        """(B,) classes to try first, second, ...; -1 for images that are not `left`."""
        columns = min(self.targets, logits.shape[1] - 1)
        planned = torch.full((columns, len(x)), -1, device=x.device)
        if len(left):
            order = self._order(model, x[left], y[left], logits[left])[:, :columns]
            columns = order.shape[1]  # fewer candidates than targets
            planned[:columns, left] = order.T
        return list(planned[:columns])

    def remarks(self, classes: int) -> tuple[str, ...]:
        """What is to be said of this attack on a model of so many classes."""
        return replaced(self.loss, classes, targeted=True)

    @property
    def _order(self) -> Order:
        if self.order == "logits":
            return by_logits
        return partial(by_malt, candidates=self.candidates, norm=self.threat.norm)

    def _toward(
        self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor, number: int, left: Tensor
    ) -> Best:
        start = self.start[number][left] if isinstance(self.start, Tensor) else self.start
        y, target, loss = y[left], target[left], TARGETED_LOSSES[self.loss]

        def loss_at(at: Tensor) -> Callable[[Tensor], Tensor]:
            return lambda logits: loss(logits, y[at], target[at])

        return self._climber(start).search(model, x[left], loss_at, y)

    def _climber(self, start: Start | Tensor) -> AutoPGD | PGD:
        same: dict[str, Any] = {"start": start, "restarts": self.restarts, "eot": self.eot}
        if self.by == "apgd":
            return AutoPGD(self.threat, self.steps, keep=self.keep, rho=self.rho, **same)
        step_size = self.threat.default_step_size() if self.step_size is None else self.step_size
        return PGD(self.threat, step_size, self.steps, keep="worst", **same)


def apgd_t(threat: Threat, **settings: Any) -> Targeted:
    """AutoAttack's targeted AutoPGD: nine classes, five in L1."""
    return Targeted(threat, **{"targets": 5 if threat.norm == "L1" else 9, **settings})


def mm(threat: Threat, **settings: Any) -> Targeted:
    """The Minimum-Margin attack: every step is taken, and the last wrong point is kept."""
    published = {"steps": 20, "loss": "margin", "keep": "last-wrong"}
    return Targeted(threat, **{**published, **settings})


def malt(threat: Threat, **settings: Any) -> Targeted:
    """MALT. Published, it goes on with images that are wrong but not in the target class; an image
    that is wrong is broken here."""
    return Targeted(threat, **{"order": "malt", **settings})


def multitargeted(threat: Threat, **settings: Any) -> Targeted:
    """MultiTargeted, PGD: every class other than the true one, unless `targets` says how many."""
    return Targeted(threat, **{"by": "pgd", "loss": "margin", "start": "uniform", **settings})
