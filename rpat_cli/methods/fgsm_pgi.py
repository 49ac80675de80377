"""FGSM-PGI: Jia et al., "Prior-Guided Fast Adversarial Training", ECCV 2022, arXiv 2207.08859; the
form with the momentum of all epochs (MEP)."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rpat_cli.attacks.forward import full_precision
from rpat_cli.attacks.pgd import PGD
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs, attack_settings
from rpat_cli.methods.losses import label_probabilities, mse


@dataclass(frozen=True)
class FgsmPgi(Needs):
    """softCE(f(x'), Y) + weight · MSE(f(x'), f(x + δ_mem)), gradients through both.

    Every image remembers a perturbation δ_mem and a momentum μ. With g the gradient of softCE at
    x + δ_mem: x' = δ_mem one step along g, and for the next time μ ← g / ‖g‖₁ + momentum_decay · μ
    (the norm over the whole batch) and δ_mem one step along μ, both kept in ball and box. Every
    `reset_every` epochs μ is 0 again and δ_mem random signs of length eps. Y gives `label_factor`
    to the label and the rest evenly to the other classes. The memory belongs to the crop and flip
    that an image had last time, as in the published code. Two forward and two backward passes a
    step, all in train mode; two float tensors of the size of the training set.
    """

    own_examples: ClassVar[bool] = True
    needs_class: ClassVar[bool] = True
    remembers: ClassVar[tuple[str, ...]] = ("delta", "momentum")
    attack_defaults = attack_settings(steps=1, step_per_eps=1.0, bn_mode="train")

    weight: Annotated[
        float, Field(ge=0, description="weight of the squared distance of logits")
    ] = 10.0
    label_factor: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="probability that the label keeps; the rest goes to the other classes",
        ),
    ] = 0.6
    momentum_decay: Annotated[
        float,
        Field(
            ge=0, lt=1, description="share of the momentum that is kept from one epoch to the next"
        ),
    ] = 0.3
    reset_every: Annotated[
        int, Field(ge=1, description="epochs after which the remembered perturbations start anew")
    ] = 40

    def __call__(self, step: StepContext) -> Outcome:
        attack = step.attack
        assert isinstance(attack, PGD)  # the recipe allows no other: `own_examples`
        delta, momentum = self._remembered(step, attack)
        x_start = (step.x + delta).detach().requires_grad_()
        logits_start = step.model(x_start)
        target = self._soft_labels(step.y, logits_start.detach())
        ce = F.cross_entropy(full_precision(logits_start), target)
        # retain_graph: the loss goes through logits_start once more.
        (grad,) = torch.autograd.grad(ce, x_start, retain_graph=True)
        momentum = grad / grad.abs().sum().clamp_min(1e-30) + self.momentum_decay * momentum
        x_adv = self._moved(attack, step.x, delta, grad)
        x_next = self._moved(attack, step.x, delta, momentum)
        logits_adv = step.model(x_adv)
        terms = {
            "ce": F.cross_entropy(full_precision(logits_adv), target),
            "pgi": self.weight * mse(logits_start, logits_adv),
        }
        memory = {"delta": (x_next - step.x).detach(), "momentum": momentum.detach()}
        return replace(Outcome(terms, step.x, x_adv, logits_adv), memory=memory)

    def _remembered(self, step: StepContext, attack: PGD) -> tuple[Tensor, Tensor]:
        if step.epoch % self.reset_every:
            return step.memory["delta"], step.memory["momentum"]
        # Every image is visited once an epoch, so a reset epoch is a fresh start for each of them.
        signs = torch.empty_like(step.x).uniform_(-1, 1).sign()
        return attack.threat.project(attack.step_size * signs), torch.zeros_like(step.x)

    @staticmethod
    def _moved(attack: PGD, x: Tensor, delta: Tensor, gradient: Tensor) -> Tensor:
        direction = attack.threat.geometry.step(gradient, x + delta)
        return attack.threat.apply(x, delta + attack.step_size * direction)

    def _soft_labels(self, y: Tensor, like: Tensor) -> Tensor:
        rest = (1 - self.label_factor) / max(1, like.shape[1] - 1)
        hard = label_probabilities(y, full_precision(like))
        return hard * (self.label_factor - rest) + rest
