"""Adversarial training: Madry et al., "Towards Deep Learning Models Resistant to Adversarial
Attacks", ICLR 2018, arXiv 1706.06083."""

from dataclasses import dataclass

import torch.nn.functional as F

from rpat_cli.attacks.forward import full_precision
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs, attack_settings


def adversarial_cross_entropy(step: StepContext) -> Outcome:
    """CE(f(x'), y) with x' from the step's attack on the cross-entropy."""
    x_adv = step.attack(step.model, step.x, step.y)
    logits_adv = step.model(x_adv)
    ce = F.cross_entropy(full_precision(logits_adv), step.y)
    return Outcome({"ce": ce}, step.x, x_adv, logits_adv)


@dataclass(frozen=True)
class Pgd(Needs):
    """CE(f(x'), y), PGD from a uniform start, BatchNorm in eval mode during the attack."""

    def __call__(self, step: StepContext) -> Outcome:
        return adversarial_cross_entropy(step)


@dataclass(frozen=True)
class Noise(Needs):
    """CE(f(clip(x + U(ball))), y): as `Pgd`, with an attack of no steps, which leaves its uniform
    start as it is."""

    attack_defaults = attack_settings(steps=0)

    def __call__(self, step: StepContext) -> Outcome:
        return adversarial_cross_entropy(step)
