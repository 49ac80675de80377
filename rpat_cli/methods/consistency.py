"""Consistency regularization: Tack et al., "Consistency Regularization for Adversarial Robustness",
AAAI 2022, arXiv 2103.04623."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.compose import compose
from rpat_cli.methods.declare import Needs
from rpat_cli.methods.losses import jsd
from rpat_cli.methods.pgd import Pgd

Weight = Annotated[float, Field(ge=0, description="weight of the consistency term")]
Temperature = Annotated[float, Field(gt=0, description="temperature of the two predictions")]


@dataclass(frozen=True)
class Consistency(Needs):
    """weight · JSD(softmax(f(x'_1)/T), softmax(f(x'_2)/T)) between the adversarial examples of two
    augmented views.

    `outcome.logits_adv` is (2B, classes), the logits of [view1; view2]; the term is a scalar.
    """

    views = 2

    weight: Weight = 1.0
    temperature: Temperature = 0.5

    def __call__(self, step: StepContext, outcome: Outcome) -> dict[str, Tensor]:  # noqa: ARG002
        if self.weight == 0:
            return {}
        view_1, view_2 = outcome.logits_adv.chunk(2)
        return {"consistency": self.weight * jsd(view_1, view_2, self.temperature)}


@dataclass(frozen=True)
class ConsistencyPgd(Needs):
    """`Pgd` with the `Consistency` regularizer, whose hyper-parameters are this method's."""

    views = 2

    weight: Weight = 1.0
    temperature: Temperature = 0.5

    def __call__(self, step: StepContext) -> Outcome:
        return compose(Pgd(), Consistency(self.weight, self.temperature))(step)
