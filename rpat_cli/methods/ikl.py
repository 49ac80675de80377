"""Improved and generalized Kullback-Leibler divergence: Cui et al., "Decoupled Kullback-Leibler
Divergence Loss", NeurIPS 2024, arXiv 2305.13948, and arXiv 2503.08038."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rpat_cli.attacks.forward import full_precision
from rpat_cli.attacks.losses import hard_labels
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.declare import Needs, attack_settings
from rpat_cli.methods.losses import probabilities
from rpat_cli.methods.trades import clean_prediction

Alpha = Annotated[float, Field(ge=0, description="weight of the soft cross-entropy")]
Beta = Annotated[float, Field(ge=0, description="weight of the pairwise term")]
InnerAlpha = Annotated[
    float, Field(ge=0, description="weight of the soft cross-entropy in the attack")
]
InnerBeta = Annotated[
    float, Field(ge=0, description="weight of the pairwise term in the attack (1 for CIFAR-100)")
]
Temperature = Annotated[
    float, Field(gt=0, description="temperature of the predictions in the class table")
]
ViewWeight = Annotated[
    float,
    Field(ge=0, description="weight of the second augmented view's robust terms; 0: one view only"),
]


def pairwise(difference: Tensor, weights: Tensor) -> Tensor:
    """(B,) ¼ Σ_jk w_j w_k (d_j - d_k)², for d = f(x) - f(x') and w, both (B, classes)."""
    squares = weights.sum(dim=1) * (weights * difference.square()).sum(dim=1)
    return 0.5 * (squares - (weights * difference).sum(dim=1).square())


def soft_cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    """-mean Σ_k q_k log p_k, with q = softmax of the target logits as a constant."""
    return F.cross_entropy(logits, probabilities(target.detach()))


@dataclass(frozen=True)
class Gkl(Needs):
    """CE(f(x), y) + beta · Σ_i M_i / Σ_i (Σ_k w_ik)² + alpha · mean S, with the pairwise term
    M = ¼ Σ_jk w_j w_k ((f_j(x) - f_k(x)) - (f_j(x') - f_k(x')))² and the soft cross-entropy
    S = -Σ_k p_k(x) (no grad) log p_k(x').

    w is the row of the image's class in a class table, to the power of gamma. The table holds the
    mean over the last epoch's images of a class of softmax(f(x)/temperature), and 1/classes in the
    first epoch. x' maximizes inner_alpha · S + inner_beta · M (with w to the power of
    inner_gamma), in five steps of eps/2, from a start of 0.001 N(0, 1); in the published code eps
    rises linearly over all epochs (`attack.eps_warmup_epochs`). Two forward passes in train mode,
    x' first.
    """

    needs_class: ClassVar[bool] = True
    inner_loss = True
    attack_defaults = attack_settings(start="gaussian", steps=5, step_per_eps=0.5)

    alpha: Alpha = 4.0
    beta: Beta = 20.0
    gamma: Annotated[float, Field(ge=0, description="exponent of the class table's weights")] = 0.2
    temperature: Temperature = 1.0
    inner_alpha: InnerAlpha = 1.0
    inner_beta: InnerBeta = 0.0
    inner_gamma: Annotated[
        float, Field(ge=0, description="exponent of the weights in the attack")
    ] = 1.0
    view_weight: ViewWeight = 0.0

    @property
    def views(self) -> int:  # type: ignore[override]
        return 2 if self.view_weight else 1

    def initial_state(self, classes: int) -> dict[str, Tensor]:
        return {
            "table": torch.full((classes, classes), 1 / classes),
            "sums": torch.zeros(classes, classes),
            "epoch": torch.zeros(()),
        }

    def __call__(self, step: StepContext) -> Outcome:
        state = table_in(step)
        table_rows = state["table"].to(step.x)[hard_labels(step.y)]
        weights, inner_weights = table_rows**self.gamma, table_rows**self.inner_gamma
        clean = clean_prediction(step)
        x_adv = step.attack.perturb(
            step.model,
            step.x,
            lambda logits: (
                self.inner_alpha * soft_cross_entropy(clean, logits)
                + self.inner_beta * self._mean_pairwise(clean - logits, inner_weights)
            ),
        )
        logits_adv = full_precision(step.model(x_adv))
        logits = full_precision(step.model(step.x))
        terms = {"ce": F.cross_entropy(logits, step.y)}
        for share, view in zip((1.0, self.view_weight), self._views(len(step.x)), strict=False):
            difference = logits[view] - logits_adv[view]
            pairs = share * self.beta * self._mean_pairwise(difference, weights[view])
            soft = share * self.alpha * soft_cross_entropy(logits[view], logits_adv[view])
            terms["pairwise"] = terms.get("pairwise", 0) + pairs
            terms["soft_ce"] = terms.get("soft_ce", 0) + soft
        state = self._collected(state, hard_labels(step.y), logits.detach())
        return replace(Outcome(terms, step.x, x_adv, logits_adv, logits), state=state)

    def _views(self, rows: int) -> list[slice]:
        size = rows // self.views
        return [slice(first, first + size) for first in range(0, rows, size)]

    @staticmethod
    def _mean_pairwise(difference: Tensor, weights: Tensor) -> Tensor:
        return pairwise(difference, weights).sum() / weights.sum(dim=1).square().sum()

    def _collected(self, state: dict[str, Tensor], y: Tensor, logits: Tensor) -> dict[str, Tensor]:
        """The state with this step's predictions on the first view added to their classes' rows."""
        first = self._views(len(y))[0]
        p = probabilities(logits[first] / self.temperature)
        sums = state["sums"].to(p).index_add(0, y[first], p)
        return {**state, "sums": sums}


@dataclass(frozen=True)
class Ikl(Needs):
    """CE(f(x), y) + beta · mean M + alpha · mean S, with the terms of `Gkl`.

    It is `Gkl` with gamma 1, where Σ_i (Σ_k w_ik)² is the batch size, and the class table at
    temperature 4; attack and passes as there: two forward passes in train mode, x' first.
    """

    needs_class: ClassVar[bool] = True
    inner_loss = True
    attack_defaults = Gkl.attack_defaults

    alpha: Alpha = 4.0
    beta: Beta = 20.0
    temperature: Temperature = 4.0
    inner_alpha: InnerAlpha = 1.0
    inner_beta: InnerBeta = 0.0
    view_weight: ViewWeight = 0.0

    @property
    def views(self) -> int:  # type: ignore[override]
        return self._general.views

    @property
    def _general(self) -> Gkl:
        return Gkl(
            self.alpha,
            self.beta,
            gamma=1.0,
            temperature=self.temperature,
            inner_alpha=self.inner_alpha,
            inner_beta=self.inner_beta,
            view_weight=self.view_weight,
        )

    def initial_state(self, classes: int) -> dict[str, Tensor]:
        return self._general.initial_state(classes)

    def __call__(self, step: StepContext) -> Outcome:
        return self._general(step)


def table_in(step: StepContext) -> dict[str, Tensor]:
    """The state at this step: in the first step of an epoch the sums of the last one become the
    table, each row divided by its sum (an empty row stays as it was)."""
    state = dict(step.state)
    is_new = state["epoch"] < step.epoch  # a tensor: asking for its value would wait for the device
    total = state["sums"].sum(dim=1, keepdim=True)
    renewed = torch.where(total > 0, state["sums"] / total.clamp_min(1e-30), state["table"])
    return {
        "table": torch.where(is_new, renewed, state["table"]),
        "sums": torch.where(is_new, torch.zeros_like(state["sums"]), state["sums"]),
        "epoch": torch.full_like(state["epoch"], step.epoch),
    }
