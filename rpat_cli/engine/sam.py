"""Sharpness-aware minimization: Foret et al., ICLR 2021, arXiv 2010.01412; adaptive: Kwon et al.,
ICML 2021, arXiv 2102.11600."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from rpat_cli.engine.worse_weights import LossOf, Mean, perturbed
from rpat_cli.methods.base import StepContext
from rpat_cli.registry import SETTINGS_OF_ENTRIES


@dataclass(frozen=True)
class SharpnessAware:
    """The optimizer, whichever it is, steps along the gradient at w + e, with g the gradient of the
    whole loss at w and norms over all parameters together:

        SAM   e = rho g / ‖g‖
        ASAM  e = rho T² g / ‖T g‖, T = |w| + eta

    Both gradients are of the same adversarial examples, as where SAM is compared with adversarial
    training (Zhang et al., "On the Duality Between Sharpness-Aware Minimization and Adversarial
    Training", ICML 2024, arXiv 2402.15152): the passes of the method but for its attack are made
    twice. The first of them moves BatchNorm's statistics. With `accumulate`, each part of a batch
    has an e of its own, which is the paper's m-sharpness; over several ranks e is that of all.
    """

    __pydantic_config__: ClassVar[ConfigDict] = SETTINGS_OF_ENTRIES

    rho: Annotated[
        Annotated[float, Field(ge=0)] | None,
        Field(description="L2 radius of the weight perturbation (default: 0.05; 0.5 if adaptive)"),
    ] = None
    adaptive: Annotated[
        bool, Field(description="ASAM: the radius is relative to each weight's size")
    ] = False
    eta: Annotated[float, Field(ge=0, description="ASAM: what is added to each weight's size")] = (
        0.01
    )

    @property
    def radius(self) -> float:
        if self.rho is None:
            return 0.5 if self.adaptive else 0.05
        return self.rho

    @contextmanager
    def worst_weights(
        self, step: StepContext, loss_of: LossOf, mean: Mean = lambda gradients: gradients
    ) -> Iterator[StepContext]:
        """Inside, the loss is to be taken: see `perturbed`."""
        if self.radius == 0:
            yield step
            return
        weights = [p for p in step.model.parameters() if p.requires_grad]
        with perturbed(step, weights, self._ascent, loss_of, mean, "first") as step:
            yield step

    def _ascent(self, weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> Iterator[Tensor]:
        scaled = list(gradients)
        if self.adaptive:
            scaled = [(w.abs() + self.eta) * g for w, g in zip(weights, gradients, strict=True)]
        length = self.radius / (torch.nn.utils.get_total_norm(scaled) + 1e-12)
        for weight, gradient in zip(weights, scaled, strict=True):
            yield length * gradient * (weight.abs() + self.eta if self.adaptive else 1)
