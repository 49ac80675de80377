"""SCORE: Pang et al., "Robustness and Accuracy Could Be Reconcilable by (Proper) Definition", ICML
2022, arXiv 2202.10103. The squared distance of predictions, LSE(a, b) = Σ_k (a_k - b_k)², in the
place of every cross-entropy and KL."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs, attack_settings
from rpat_cli.methods.losses import label_probabilities, probabilities, squared_distance
from rpat_cli.methods.trades import clean_prediction

Clip = Annotated[
    float,
    Field(ge=0, description="what is subtracted from each image's squared distance, down to 0"),
]


@dataclass(frozen=True)
class Score(Needs):
    """mean LSE(p(x), Y) + beta · mean relu(LSE(p(x'), p(x)) - clip), with p = softmax f and Y the
    labels' probabilities; x' maximizes LSE(p(x'), p(x) (no grad)).

    This is the form for training with generated data, with BatchNorm's batch statistics in the
    attack. `clipped: sum` is the paper's TRADES form without extra data, mean relu(LSE(p(x), Y) +
    beta · LSE(p(x'), p(x)) - clip), whose attack runs in eval mode from 0.001 N(0, 1);
    `clipped: weighted` clips only its second term. Two forward passes in train
    mode, x first; x' first in the forms without extra data.
    """

    inner_loss = True
    attack_defaults = attack_settings(bn_mode="batch")

    beta: Annotated[float, Field(ge=0, description="weight of the robust term")] = 4.0
    clip: Clip = 0.0
    clipped: Annotated[
        Literal["robust", "sum", "weighted"],
        Field(
            description="what clip is subtracted from: the distance, the sum, or beta · distance"
        ),
    ] = "robust"

    def __call__(self, step: StepContext) -> Outcome:
        target = probabilities(clean_prediction(step))
        x_adv = step.attack.perturb(
            step.model, step.x, lambda logits: squared_distance(probabilities(logits), target)
        )
        # The order of the published programs: it decides on BatchNorm's running statistics alone.
        if self.clipped == "robust":
            logits, logits_adv = step.model(step.x), step.model(x_adv)
        else:
            logits_adv, logits = step.model(x_adv), step.model(step.x)
        p, p_adv = probabilities(logits), probabilities(logits_adv)
        accuracy = squared_distance(p, label_probabilities(step.y, p))
        robust = squared_distance(p_adv, p)
        return Outcome(self._terms(accuracy, robust), step.x, x_adv, logits_adv, logits)

    def _terms(self, accuracy: Tensor, robust: Tensor) -> dict[str, Tensor]:
        if self.clipped == "sum":
            return {"score": (accuracy + self.beta * robust - self.clip).relu().mean()}
        if self.clipped == "weighted":
            weighted = (self.beta * robust - self.clip).relu().mean()
        else:
            weighted = self.beta * (robust - self.clip).relu().mean()
        return {"lse": accuracy.mean(), "score": weighted}


@dataclass(frozen=True)
class ScorePgd(Needs):
    """mean relu(LSE(p(x'), Y) - clip): SCORE in the place of PGD-AT's cross-entropy, in the attack
    (BatchNorm in train mode) and in the loss. One forward pass."""

    inner_loss = True
    attack_defaults = attack_settings(bn_mode="train")

    clip: Clip = 0.4

    def __call__(self, step: StepContext) -> Outcome:
        def to_labels(logits: Tensor) -> Tensor:
            p = probabilities(logits)
            return squared_distance(p, label_probabilities(step.y, p))

        x_adv = step.attack.perturb(step.model, step.x, to_labels)
        logits_adv = step.model(x_adv)
        loss = (to_labels(logits_adv) - self.clip).relu().mean()
        return Outcome({"score": loss}, step.x, x_adv, logits_adv)
