"""What a verdict rests on: everything that was seen of one model, ready for the checks."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from rpat_cli.attacks.losses import INNER_LOSSES
from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics.verdict.slopes import Slopes
from rpat_cli.evaluation.statistics import Accuracy, sign_test

WARN_BELOW, FAIL_BELOW = 0.01, 0.001
"""p-values of WARN and of FAIL: small, since every verdict makes several tests."""

STAND_IN, EOT = "stand-in", "eot"
"""Names of the attacks past modules that may hide the gradient, and by the mean of many gradients
of a random model."""

SATURATED = 17
"""1 - exp(-17) rounds to 1 in float32: with a margin above 17 the softmax is saturated, and the
gradient of the cross-entropy vanishes."""

WHITE_BOX = ("pgd-20", "pgd-50", "cw-pgd", "apgd-ce", "mm-3")
"""The attacks on the model's own gradient."""


def differing(logits: Tensor, others: Tensor) -> Tensor:
    """(N,) bool: where two passes disagree by well more than what the order of sums in float32
    does."""
    gap: Tensor = (logits - others).norm(dim=1) / logits.norm(dim=1).clamp_min(1e-10)
    return gap > 1e-4


@dataclass(frozen=True)
class Evidence:
    """What was seen of a model on N images, M of which it classifies correctly. All tensors are on
    the CPU.

    `y` (N,): labels. `pixels`: smallest and largest value of the images.
    `training`: names of modules that stay in train mode after `model.eval()`. `was_training`: the
    model was given in train mode. `connected`: the logits depend on the image through a gradient.
    `logits` (N, classes) in eval mode, `logits_again` of a second forward pass;
    `logits_alone` (K, classes) of the first K images, each in a batch of its own: NaN where the
    model fails on one image.
    `gradient_norm` (M,): L1 norm of the cross-entropy's gradient with respect to the image.
    `broken`: by attack, (M,) bool, the images that it breaks. `eps`: the attacks at larger radii,
    with their radius, rising.
    `stand_ins`: classes of modules that the attack `STAND_IN` passes by. `slopes` of the margin at
    images on the way of an attack.
    `losses`: mean cross-entropy before, after each step of, and at the end of PGD with 50 steps.
    `flags`: AutoAttack's own warnings. `skipped`: attacks that could not run, and why. `transfers`:
    the attacks whose images were made on other models.
    """

    threat: Threat
    y: Tensor
    pixels: tuple[float, float]
    training: tuple[str, ...]
    was_training: bool
    connected: bool
    logits: Tensor
    logits_again: Tensor
    gradient_norm: Tensor
    broken: Mapping[str, Tensor]
    eps: Mapping[str, float]
    losses: tuple[float, ...]
    flags: tuple[str, ...]
    skipped: Mapping[str, str]
    transfers: tuple[str, ...]
    logits_alone: Tensor = field(default_factory=lambda: torch.zeros(0, 1))
    stand_ins: tuple[str, ...] = ()
    slopes: Slopes = field(default_factory=Slopes.none)

    @property
    def right(self) -> Tensor:
        """(N,) bool: correctly classified without an attack."""
        return self.logits.argmax(dim=1) == self.y

    @property
    def correct(self) -> Accuracy:
        return Accuracy.of(self.right)

    @property
    def moving(self) -> Tensor:
        """(N,) bool: other logits in the second forward pass."""
        return differing(self.logits, self.logits_again)

    @property
    def white_box(self) -> Tensor:
        """(M,) bool: broken by an attack on the model's own gradient, of whatever loss."""
        flags = [self.broken[name] for name in WHITE_BOX if name in self.broken]
        return torch.stack(flags).any(dim=0)

    @property
    def margin(self) -> Tensor:
        """(M,) z_y - max z_k of the correctly classified images."""
        inner_loss = INNER_LOSSES["margin"]  # attacks drive it up: it is the negative margin
        return -inner_loss(self.logits, self.y)[self.right]

    @property
    def harmless(self) -> Tensor:
        """(M,) bool: the softmax is saturated, but that does not weaken the attacks on the
        cross-entropy.

        If only their flat loss protected those images, PGD on the margin, which no softmax
        flattens, would break them. An undefended model is often that confident of its easiest
        images, and nothing is wrong with it.
        """
        saturated = self.margin > SATURATED
        if not {"cw-pgd", "pgd-50"} <= self.broken.keys():
            return torch.zeros_like(saturated)
        on_margin = self.broken["cw-pgd"]
        on_entropy = self.broken["pgd-50"] | self.broken.get("apgd-ce", self.broken["pgd-50"])
        only_margin = int((saturated & on_margin & ~on_entropy).sum())
        only_entropy = int((saturated & on_entropy & ~on_margin).sum())
        return saturated & (sign_test(only_margin, only_entropy) >= WARN_BELOW)

    def robust(self, attack: str) -> Accuracy:
        """Accuracy under an attack, over all N images."""
        return Accuracy(self.correct.correct - int(self.broken[attack].sum()), self.correct.n)

    def to_dict(self) -> dict[str, Any]:
        """The numbers, without the tensors of single images."""
        return {
            "threat": asdict(self.threat),
            "n": self.correct.n,
            "clean_acc": self.correct.value,
            "robust_acc": {name: self.robust(name).value for name in self.broken},
            "eps": dict(self.eps),
            "losses": list(self.losses),
            "autoattack_flags": list(self.flags),
            "skipped": dict(self.skipped),
            "transfers": list(self.transfers),
            "stand_ins": list(self.stand_ins),
        }
