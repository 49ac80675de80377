"""MART: Wang et al., "Improving Adversarial Robustness Requires Revisiting Misclassified Examples",
ICLR 2020 (openreview.net, rklOg6EFwS)."""

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rpat_cli.attacks.forward import full_precision
from rpat_cli.attacks.losses import best_wrong_class, hard_labels
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs, attack_settings
from rpat_cli.methods.losses import probabilities


def boosted_cross_entropy(logits_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """CE(f(x'), y), and -mean log(1.0001 - p'_k + 1e-12) with k the most likely wrong class."""
    p_adv = probabilities(logits_adv)
    p_wrong = p_adv.gather(1, best_wrong_class(p_adv.detach(), y)[:, None]).squeeze(1)
    ce = F.cross_entropy(full_precision(logits_adv), y)
    return ce, -(1.0001 - p_wrong + 1e-12).log().mean()


def misclassification_aware_kl(logits: Tensor, logits_adv: Tensor, y: Tensor) -> Tensor:
    """mean KL(p_i ‖ p'_i + 1e-12) (1.0000001 - p_i[y_i])."""
    # Written with log p: the gradient of p log p in p is infinite where p underflows to 0.
    log_p = F.log_softmax(full_precision(logits), dim=1)
    p = log_p.exp()
    p_true = p.gather(1, hard_labels(y)[:, None]).squeeze(1)
    kl = (p * (log_p - (probabilities(logits_adv) + 1e-12).log())).sum(dim=1)
    return (kl * (1.0000001 - p_true)).mean()


@dataclass(frozen=True)
class Mart(Needs):
    """Boosted CE(f(x'), y) + beta/B Σ_i KL(p_i ‖ p'_i) (1 - p_i[y_i]): the KL to the clean
    prediction p weighs more where that prediction is wrong.

    Boosted: - mean log(1.0001 - p'_k + 1e-12) is added, k the most likely wrong class of x'. With
    soft labels (B, classes), the most probable label is the right one. The constants 1.0001, 1e-12
    and 1.0000001 are those of the published code.
    """

    needs_class = True  # it weighs by the misclassification
    attack_defaults = attack_settings(start="gaussian")

    beta: Annotated[
        float, Field(ge=0, description="weight of the misclassification-aware robust term")
    ] = 6.0

    def __call__(self, step: StepContext) -> Outcome:
        x_adv = step.attack(step.model, step.x, step.y)
        logits_adv, logits = step.model(x_adv), step.model(step.x)
        ce, margin = boosted_cross_entropy(logits_adv, step.y)
        terms = {
            "ce": ce,
            "margin": margin,
            "mart": self.beta * misclassification_aware_kl(logits, logits_adv, step.y),
        }
        return Outcome(terms, step.x, x_adv, logits_adv, logits)
