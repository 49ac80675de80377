"""TRADES: Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy", ICML
2019, arXiv 1901.08573."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rpat_cli.attacks.forward import forward, full_precision
from rpat_cli.attacks.side_effects import attack_mode
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs, attack_settings
from rpat_cli.methods.losses import kl, kl_per_sample


def clean_prediction(step: StepContext) -> Tensor:
    """f(x) without a gradient, (B, classes), in the BatchNorm mode of the step's attack."""
    with attack_mode(step.model, getattr(step.attack, "bn_mode", "eval")) as model:
        return forward(model, step.x)


def kl_adversary(step: StepContext) -> Tensor:
    """x' that maximizes KL(softmax f(x) ‖ softmax f(x')); the clean prediction is a constant,
    computed once."""
    target = clean_prediction(step)
    return step.attack.perturb(step.model, step.x, lambda logits: kl_per_sample(target, logits))


@dataclass(frozen=True)
class Trades(Needs):
    """CE(f(x), y) + beta KL(softmax f(x) ‖ softmax f(x')), where x' maximizes that KL from a start
    of 0.001 N(0, 1).

    During the attack the clean prediction is a constant, computed once, with BatchNorm in eval
    mode. The published code computes f(x) twice, before and after f(x'). That changes no loss, but
    BatchNorm's running statistics: `extra_clean_pass` does the same, for one more forward pass.
    The code of AWP passes x' first (`passes`).
    """

    inner_loss = True
    attack_defaults = attack_settings(start="gaussian")

    beta: Annotated[
        float,
        Field(
            ge=0,
            description="weight of the robust term: trades accuracy for robustness",
        ),
    ] = 6.0

    extra_clean_pass: Annotated[
        bool,
        Field(
            description=(
                "pass the clean images a second time, as the published code does: it moves "
                "BatchNorm"
            )
        ),
    ] = False
    passes: Annotated[
        Literal["clean-first", "adversarial-first"],
        Field(description="which images pass first: BatchNorm's running statistics weigh the last"),
    ] = "clean-first"

    def __call__(self, step: StepContext) -> Outcome:
        x_adv = kl_adversary(step)
        if self.passes == "clean-first":
            logits, logits_adv = step.model(step.x), step.model(x_adv)
        else:
            logits_adv, logits = step.model(x_adv), step.model(step.x)
        if self.extra_clean_pass:
            forward(step.model, step.x)
        terms = {
            "ce": F.cross_entropy(full_precision(logits), step.y),
            "trades": self.beta * kl(logits, logits_adv),
        }
        return Outcome(terms, step.x, x_adv, logits_adv, logits)
