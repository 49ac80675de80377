"""Attacks that look for the *smallest* perturbation, from foolbox (extra `attacks`; Rauber et al.,
JOSS 2020).

None of them knows a radius: a sample counts as broken when the adversarial image found lies within
the threat model. An attack that minimizes one norm says nothing about another, so the catalogue
lists the norms of each.
"""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from rpat_cli.attacks.base import check_pixels
from rpat_cli.attacks.forward import forward
from rpat_cli.attacks.side_effects import frozen
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError, Problem

DECISION_BASED = ("hopskipjump", "boundary")
"""They see nothing but the predicted class, and walk in from an image of another class."""

NOISE_STARTS = 64
"""Images of noise that the decision-based attacks may start from, besides those of the batch."""


@dataclass(frozen=True)
class MinimumNorm:
    """`steps` steps toward the smallest adversarial perturbation; where it fails, x itself.

    `name` is one of the catalogue's, which also says for which norms each is defined. Raises
    `ConfigError` for fewer than one step.
    """

    threat: Threat
    name: str
    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(Problem("steps", f"must be at least 1, given {self.steps}."))

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The nearest adversarial images found, where they lie within the threat; elsewhere `x`.
        `y` is (B,) classes.

        A sample that the model gets wrong already comes back as it is.
        """
        x = x.detach()
        check_pixels(model, x)
        nearest = x.clone()
        with frozen(model) as model, torch.enable_grad():
            predicted = forward(model, x).argmax(dim=1)
            todo = predicted == y
            starts = None
            if self.name in DECISION_BASED:
                starts, found = _starts(model, x, predicted, y)
                todo &= found
                starts = starts[todo]
            if todo.any():
                nearest[todo] = self._run(model, x[todo], y[todo], starts)
        within = self.threat.contains(x, nearest).view(-1, *[1] * (x.ndim - 1))
        return torch.where(within, nearest, x)

    def _run(self, model: nn.Module, x: Tensor, y: Tensor, starts: Tensor | None) -> Tensor:
        foolbox = import_module("foolbox")
        attack = self._build(foolbox.attacks)
        target = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
        criterion = foolbox.criteria.Misclassification(y)
        options = {} if starts is None else {"starting_points": starts}
        found: Tensor = attack.run(target, x, criterion, **options)
        return found.detach().to(x)

    def _build(self, attacks: ModuleType) -> Any:
        if self.name == "cw-l2":
            return attacks.L2CarliniWagnerAttack(steps=self.steps)
        if self.name == "ddn":
            return attacks.DDNAttack(steps=self.steps)
        if self.name == "fmn":
            family = {
                "Linf": attacks.LInfFMNAttack,
                "L2": attacks.L2FMNAttack,
                "L1": attacks.L1FMNAttack,
            }
            attack = family[self.threat.norm](steps=self.steps)
            if self.threat.norm == "L2":
                attack.project = _onto_l2_ball
            return attack
        if self.name == "hopskipjump":
            return attacks.HopSkipJumpAttack(steps=self.steps, constraint=self.threat.norm.lower())
        return attacks.BoundaryAttack(steps=self.steps)


def cw_l2(threat: Threat, *, steps: int = 1000) -> MinimumNorm:
    """Carlini & Wagner, IEEE S&P 2017, arXiv 1608.04644: the L2 attack, nine constants by binary
    search."""
    return MinimumNorm(threat, "cw-l2", steps)


def ddn(threat: Threat, *, steps: int = 100) -> MinimumNorm:
    """Decoupled direction and norm (Rony et al., CVPR 2019, arXiv 1811.09600)."""
    return MinimumNorm(threat, "ddn", steps)


def fmn(threat: Threat, *, steps: int = 100) -> MinimumNorm:
    """Fast minimum-norm (Pintor et al., NeurIPS 2021, arXiv 2102.12827)."""
    return MinimumNorm(threat, "fmn", steps)


def hopskipjump(threat: Threat, *, steps: int = 64) -> MinimumNorm:
    """HopSkipJump (Chen et al., IEEE S&P 2020, arXiv 1904.02144): sees the predicted class only."""
    return MinimumNorm(threat, "hopskipjump", steps)


def boundary(threat: Threat, *, steps: int = 5000) -> MinimumNorm:
    """The boundary attack (Brendel et al., ICLR 2018, arXiv 1712.04248): sees the predicted class
    only."""
    return MinimumNorm(threat, "boundary", steps)


def _onto_l2_ball(x: Any, x0: Any, epsilon: Any) -> Any:
    """foolbox's own projection (up to 3.3.4) divides the norms by themselves and so leaves x where
    it is."""
    center, radius = x0.raw, epsilon.raw
    delta = x.raw - center
    factor = (radius / delta.flatten(1).norm(dim=1).clamp_min(1e-12)).clamp_max(1)
    return type(x)(center + delta * factor.view(-1, *[1] * (center.ndim - 1)))


def _starts(model: nn.Module, x: Tensor, predicted: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """For each image the nearest one, of this batch or of noise, that the model does not classify
    as y.

    Returns the starts (B, ...) and whether there is one (B,). foolbox itself would draw noise only,
    all of which a model may put in one class, and then gives up on the whole batch.
    """
    noise = torch.rand(NOISE_STARTS, *x.shape[1:], device=x.device, dtype=x.dtype)
    candidates = torch.cat([x, noise])
    classes = torch.cat([predicted, forward(model, noise).argmax(dim=1)])
    distances = torch.cdist(x.flatten(1), candidates.flatten(1))
    distances = distances.masked_fill(classes[None] == y[:, None], torch.inf)
    shortest, which = distances.min(dim=1)
    return candidates[which], shortest.isfinite()
