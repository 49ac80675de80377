"""Adversarial weight perturbation: Wu, Xia & Wang, "Adversarial Weight Perturbation Helps Robust
Generalization", NeurIPS 2020, arXiv 2004.05884. The loss and its gradient are computed where a
small step of the weights has made the loss worse."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from torch import Tensor

from rpat_cli.engine.worse_weights import LossOf, Mean, Statistics, perturbed
from rpat_cli.methods.base import StepContext
from rpat_cli.registry import SETTINGS_OF_ENTRIES


@dataclass(frozen=True)
class WeightPerturbation:
    """w ← w + gamma ‖w‖ g/‖g‖ for every weight tensor of two or more dimensions (biases and
    BatchNorm stay as they are), where g is the gradient of the whole loss: one ascent step, on the
    adversarial examples that the loss is then computed on.

    With `parameters: all` and `statistics: first` it is the form of ADR (arXiv 2305.12118).
    """

    __pydantic_config__: ClassVar[ConfigDict] = SETTINGS_OF_ENTRIES

    gamma: Annotated[
        float,
        Field(ge=0, description="length of the perturbation, relative to each layer's weights"),
    ] = 0.005
    start_epoch: Annotated[int, Field(ge=0, description="epochs before weights are perturbed")] = 0
    parameters: Annotated[
        Literal["weights", "all"],
        Field(description="what is perturbed: weights of layers, or BatchNorm and biases, too"),
    ] = "weights"
    statistics: Annotated[
        Statistics,
        Field(description="the pass that moves BatchNorm's statistics: at which weights it is"),
    ] = "perturbed"

    @contextmanager
    def worst_weights(
        self, step: StepContext, loss_of: LossOf, mean: Mean = lambda gradients: gradients
    ) -> Iterator[StepContext]:
        """Inside, the loss is to be taken: see `perturbed`."""
        if self.gamma == 0 or step.epoch < self.start_epoch:
            yield step
            return
        least = 2 if self.parameters == "weights" else 0
        weights = [p for p in step.model.parameters() if p.requires_grad and p.ndim >= least]
        with perturbed(step, weights, self._ascent, loss_of, mean, self.statistics) as step:
            yield step

    def _ascent(self, weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> Iterator[Tensor]:
        for weight, gradient in zip(weights, gradients, strict=True):
            length = self.gamma * weight.norm() / (gradient.norm() + 1e-12)
            yield length * gradient
