"""Robust alignment adversarial training (RAAT), the successor of RPAT: Wang et al. 2026, arXiv
2604.26496. Written from its formulas; the three forms are those of the published programs."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from rpat_cli.attacks.forward import forward, full_precision
from rpat_cli.attacks.losses import hard_labels
from rpat_cli.attacks.side_effects import attack_mode
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs, attack_settings
from rpat_cli.methods.losses import jsd
from rpat_cli.methods.mart import boosted_cross_entropy, misclassification_aware_kl
from rpat_cli.methods.rebat import BetaSchedule, beta_at

Range = Annotated[
    float, Field(ge=0, le=1, description="share of the perturbation that boundary images keep")
]
BetaAlpha = Annotated[
    float, Field(gt=0, description="both parameters of the Beta distribution of the mix")
]
Weight = Annotated[float, Field(ge=0, description="weight of the domain interpolation term")]
Temperature = Annotated[float, Field(gt=0, description="temperature of its two predictions")]


@dataclass(frozen=True)
class Boundary:
    """What two views [x1; x2] and their adversarial images are taken for, all (2B,) bool.

    misclassified: wrong already on x. boundary: right on x, wrong on x' and on the near point x +
    boundary_range · (x' - x) as well.
    """

    misclassified: Tensor
    boundary: Tensor

    @property
    def pairs(self) -> Tensor:
        """(B,) neither view misclassified: the images that the interpolation term is taken over."""
        first, second = self.misclassified.chunk(2)
        return ~(first | second)


def boundary_of(model: nn.Module, x: Tensor, x_adv: Tensor, near: Tensor, y: Tensor) -> Boundary:
    """Three passes of the model, in eval mode, without a gradient."""
    classes = hard_labels(y)
    with attack_mode(model) as model:
        clean, adv, nearby = (forward(model, z).argmax(dim=1) != classes for z in (x, x_adv, near))
    return Boundary(clean, ~clean & adv & nearby)


def chosen(boundary: Tensor, near: Tensor, x_adv: Tensor) -> Tensor:
    """S: the near point where an image is on the boundary, its adversarial image elsewhere."""
    return torch.where(boundary.view(-1, *[1] * (x_adv.ndim - 1)), near, x_adv)


def drawn_mix(beta_alpha: float) -> float:
    """max(λ, 1 - λ) with one λ ~ Beta(alpha, alpha) for the batch."""
    parameter = torch.tensor(beta_alpha, dtype=torch.float64)
    draw = float(torch.distributions.Beta(parameter, parameter).sample())
    return max(draw, 1 - draw)


def interpolation_term(
    step: StepContext,
    x_adv: Tensor,
    pairs: Tensor,
    mix: float,
    temperature: float,
    *,
    views_apart: bool = False,
) -> Tensor | None:
    """JSD between f(m x1' + (1 - m) x2') and m f(x1) + (1 - m) f(x2) over the images `pairs`
    (DICAR); gradients through both. None, and no pass, where there are none.

    The clean views pass as one batch or, with `views_apart`, as two.
    """
    if not pairs.any():
        return None
    adv_1, adv_2 = x_adv.chunk(2)
    mixed = step.model((mix * adv_1 + (1 - mix) * adv_2)[pairs])
    if views_apart:
        clean_1, clean_2 = (step.model(view) for view in step.x.chunk(2))
    else:
        clean_1, clean_2 = step.model(step.x).chunk(2)
    return jsd(mixed, (mix * clean_1 + (1 - mix) * clean_2)[pairs], temperature)


@dataclass(frozen=True)
class Raat(Needs):
    """CE(f(S), y) + weight · DICAR, over two augmented views [x1; x2].

    S is x' = PGD on the cross-entropy, but for images on the boundary (see `Boundary`) only
    boundary_range of that perturbation. DICAR is the JSD between f(m x1' + (1 - m) x2') and
    m f(x1) + (1 - m) f(x2), over the images of which neither view is misclassified, m = max(λ, 1 -
    λ), λ ~ Beta. Over 2B images: three forward passes in eval mode, and three in train mode in the
    order S, mix, x.
    """

    views: ClassVar[int] = 2
    needs_class: ClassVar[bool] = True

    boundary_range: Range = 0.1
    beta_alpha: BetaAlpha = 0.75
    weight: Weight = 1.0
    temperature: Temperature = 0.5

    def __call__(self, step: StepContext) -> Outcome:
        x_adv = step.attack(step.model, step.x, step.y)
        near = step.x + self.boundary_range * (x_adv - step.x)
        found = boundary_of(step.model, step.x, x_adv, near, step.y)
        x_chosen = chosen(found.boundary, near, x_adv)
        logits_chosen = step.model(x_chosen)
        terms = {"ce": F.cross_entropy(full_precision(logits_chosen), step.y)}
        term = interpolation_term(
            step, x_adv, found.pairs, drawn_mix(self.beta_alpha), self.temperature
        )
        if term is not None:
            terms["dicar"] = self.weight * term
        return Outcome(terms, step.x, x_chosen, logits_chosen)


@dataclass(frozen=True)
class RaatMart(Needs):
    """RAAT on MART (called RAAT++): boosted CE(f(S), y) + beta · misclassification-aware KL on the
    full x' + weight · DICAR.

    Train-mode passes in the order x', x, S, mix, x. `late_selection` chooses DICAR's images anew,
    by one more pass in eval mode after the first three train passes have moved BatchNorm's running
    statistics, as the published code does.
    """

    views: ClassVar[int] = 2
    needs_class: ClassVar[bool] = True
    attack_defaults = attack_settings(start="gaussian")

    beta: Annotated[
        float, Field(ge=0, description="weight of the misclassification-aware robust term")
    ] = 6.0
    boundary_range: Range = 0.1
    beta_alpha: BetaAlpha = 0.75
    weight: Weight = 1.0
    temperature: Temperature = 0.5
    late_selection: Annotated[
        bool,
        Field(description="choose the interpolated images after the passes, as the published code"),
    ] = False

    def __call__(self, step: StepContext) -> Outcome:
        x_adv = step.attack(step.model, step.x, step.y)
        near = step.x + self.boundary_range * (x_adv - step.x)
        found = boundary_of(step.model, step.x, x_adv, near, step.y)
        logits_adv, logits = step.model(x_adv), step.model(step.x)
        logits_chosen = step.model(chosen(found.boundary, near, x_adv))
        ce, margin = boosted_cross_entropy(logits_chosen, step.y)
        terms = {
            "ce": ce,
            "margin": margin,
            "mart": self.beta * misclassification_aware_kl(logits, logits_adv, step.y),
        }
        if self.late_selection:
            with attack_mode(step.model) as model:
                wrong = forward(model, step.x).argmax(dim=1) != hard_labels(step.y)
            found = replace(found, misclassified=wrong)
        term = interpolation_term(
            step, x_adv, found.pairs, drawn_mix(self.beta_alpha), self.temperature
        )
        if term is not None:
            terms["dicar"] = self.weight * term
        return Outcome(terms, step.x, x_adv, logits_adv, logits)


@dataclass(frozen=True)
class RaatWa(Needs):
    """CE(f(S), y) on the first view + beta_t · DICAR, where the weight-averaged teacher decides
    which images are misclassified or on the boundary (called RAAT#, on the code of ReBAT).

    The attack runs with BatchNorm in train mode, on each view alone. beta_t is 0 before averaging
    starts, with the constant schedule; where it is 0, DICAR's passes are skipped. Train-mode passes
    in the order S, mix, x1, x2, x1'. The published attack makes one more pass at its end, which
    changes no loss, but BatchNorm's running statistics: `extra_attack_pass` does the same.
    """

    views: ClassVar[int] = 2
    needs_class: ClassVar[bool] = True
    attack_defaults = attack_settings(bn_mode="train")

    beta: Annotated[float, Field(ge=0, description="weight of the interpolation term")] = 1.0
    beta_schedule: BetaSchedule = "constant"
    boundary_range: Range = 0.1
    beta_alpha: BetaAlpha = 0.75
    temperature: Temperature = 0.5
    extra_attack_pass: Annotated[
        bool, Field(description="pass x' once more after the attack: it moves BatchNorm")
    ] = False

    @property
    def needs_teacher(self) -> bool:
        return True

    def __call__(self, step: StepContext) -> Outcome:
        y = step.y.chunk(2)[0]
        x, x_adv = step.x, torch.cat([self._attacked(step, view, y) for view in step.x.chunk(2)])
        x_1, adv_1 = x.chunk(2)[0], x_adv.chunk(2)[0]
        near = x_1 + self.boundary_range * (adv_1 - x_1)
        boundary, pairs = self._seen_by_teacher(step, adv_1, near, y)
        logits_chosen = step.model(chosen(boundary, near, adv_1))
        terms = {"ce": F.cross_entropy(full_precision(logits_chosen), y)}
        beta = self._beta(step)
        if beta:
            mix = drawn_mix(self.beta_alpha)
            term = interpolation_term(step, x_adv, pairs, mix, self.temperature, views_apart=True)
            if term is not None:
                terms["dicar"] = beta * term
        return Outcome(terms, x_1, adv_1, step.model(adv_1))

    def _beta(self, step: StepContext) -> float:
        if self.beta_schedule == "constant" and step.teacher is None:
            return 0.0
        return beta_at(step, self.beta, self.beta_schedule)

    def _attacked(self, step: StepContext, x: Tensor, y: Tensor) -> Tensor:
        x_adv = step.attack(step.model, x, y)
        if self.extra_attack_pass:
            forward(step.model, x_adv)
        return x_adv

    def _seen_by_teacher(
        self, step: StepContext, adv_1: Tensor, near: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B,) first views on the boundary; (B,) images with both views classified right."""
        x_1, x_2 = step.x.chunk(2)
        # Before averaging has started the average is a copy of the model.
        with attack_mode(step.teacher or step.model) as teacher:
            found = boundary_of(teacher, x_1, adv_1, near, y)
            wrong_2 = forward(teacher, x_2).argmax(dim=1) != hard_labels(y)
        return found.boundary, ~(found.misclassified | wrong_2)
