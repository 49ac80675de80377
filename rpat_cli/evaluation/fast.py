"""Fast evaluation: an attack searches in bfloat16, and only float32 on the plain model counts.

Rounding may hide an adversarial image from the search, never invent one: every image that it
returns is verified in float32. What it leaves is attacked once more in float32, by the cheapest
strong part of AutoAttack; so the robust accuracy is at most what that part alone leaves.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.autoattack import AutoAttack
from rpat_cli.attacks.brought import Perturb
from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation.attack_result import StageResult
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.evaluation.words import IN_FLOAT32
from rpat_cli.hardware import why_not_bf16

CHECKS = ("apgd-dlr", "apgd-ce")
"""The parts that attack again, the first that is defined for the model. The loss of apgd-dlr is
that of apgd-t, for a ninth of its passes; with two classes it does not exist."""

SEARCHED = (
    "fast: searched in bfloat16, and every adversarial image verified in float32 before it counted."
)

WORTH_IT = 4.0
"""Only attacks this many times as expensive as the check are searched fast: for others the check
takes what the search saves."""


class Reduced(nn.Module):
    """A model that computes in `dtype` and returns logits in float32, for gradients and queries of
    an attack."""

    def __init__(self, inner: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self.dtype = inner, dtype

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=self.dtype):
            logits: Tensor = self.inner(x)
        return logits.float()


def search_precision(
    fast: bool, model: nn.Module, device: torch.device, on_remark: Callable[[str], None] | None
) -> torch.dtype | None:
    """The reduced precision of the search; None where it is in float32, which is said if it was to
    be fast."""

    def parameters() -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    reason = why_not_bf16(device.type, parameters) if fast else ""
    if reason and on_remark:
        on_remark(f"fast: the search is in float32, too: {reason}.")
    return torch.bfloat16 if fast and not reason else None


def is_worth_it(spec: AttackSpec) -> bool:
    """Whether an attack is long enough to be searched in reduced precision."""
    check = ATTACKS[CHECKS[0]].passes({})
    return ATTACKS[spec.name].passes(spec.settings) >= WORTH_IT * check


def check_in_float32(
    model: nn.Module, threat: Threat, x: Tensor, y: Tensor, seed: int
) -> tuple[str, Perturb]:
    """The stage that attacks what is left, by name; `x` (B, C, H, W), `y` (B,) are a first batch
    for AutoAttack to look at the model with."""
    ensemble = AutoAttack(threat, attacks=CHECKS, seed=seed).on(model, x, y)
    name = ensemble.names[0]

    def perturb(x: Tensor, y: Tensor) -> Tensor:
        return ensemble.perturb(name, x, y)

    return name + IN_FLOAT32, perturb


def note_on(stages: Sequence[StageResult]) -> str:
    """What a report has to say of a result that was searched fast."""
    again = [
        f" The {stage.attacked} images that this left were attacked again by {stage.name}, which "
        f"broke {stage.broken}."
        for stage in stages
        if stage.name.endswith(IN_FLOAT32)
    ]
    return "".join([SEARCHED, *again])
