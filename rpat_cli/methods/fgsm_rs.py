"""Single-step adversarial training with a random start: FGSM-RS and N-FGSM."""

from dataclasses import dataclass
from typing import ClassVar

from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs, attack_settings
from rpat_cli.methods.pgd import adversarial_cross_entropy


@dataclass(frozen=True)
class FgsmRs(Needs):
    """CE(f(x'), y) with one step of 1.25 eps from a uniform start, projected onto ball and box;
    BatchNorm in train mode throughout.

    Wong, Rice & Kolter, "Fast is better than free: Revisiting adversarial training", ICLR 2020,
    arXiv 2001.03994. Two forward and two backward passes a step.
    """

    attack_defaults = attack_settings(steps=1, step_per_eps=1.25, bn_mode="train")

    def __call__(self, step: StepContext) -> Outcome:
        return adversarial_cross_entropy(step)


@dataclass(frozen=True)
class NFgsm(Needs):
    """CE(f(x'), y) with x' = box(x + η + eps · direction of ∇ CE(f(x + η), y)) and η uniform in the
    ball of 2 eps, clipped to the box: the noise counts into the perturbation, which may reach 3 eps
    and is not projected onto the ball.

    de Jorge et al., "Make Some Noise: Reliable and Efficient Single-Step Adversarial Training",
    NeurIPS 2022, arXiv 2202.01181. `attack.start_scale` is their k (2; 3 for SVHN at 12/255), and
    `attack.reach` their clip. Two forward and two backward passes a step.
    """

    leaves_ball: ClassVar[bool] = True
    attack_defaults = attack_settings(
        steps=1, step_per_eps=1.0, bn_mode="train", start_scale=2.0, reach="box"
    )

    def __call__(self, step: StepContext) -> Outcome:
        return adversarial_cross_entropy(step)
