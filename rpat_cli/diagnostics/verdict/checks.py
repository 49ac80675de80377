"""The checks of a verdict: each looks at the evidence for one sign that attacks were fooled, and
comes from a paper.

Attacks are compared image by image, by exact tests, so that honest models raise no false alarm: two
images more of 500 are chance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rpat_cli.diagnostics.blocks import Level
from rpat_cli.diagnostics.verdict.evidence import (
    FAIL_BELOW,
    SATURATED,
    WARN_BELOW,
    Evidence,
)
from rpat_cli.diagnostics.verdict.probe import PGD_STEPS
from rpat_cli.evaluation.plausible import is_near_chance
from rpat_cli.evaluation.statistics import Accuracy, sign_test
from rpat_cli.evaluation.verify import are_probabilities

LEVELS: tuple[Level, ...] = ("PASS", "WARN", "FAIL")

ATHALYE = (
    "Athalye, Carlini & Wagner, Obfuscated gradients give a false sense of security, ICML 2018 "
    "(arXiv 1802.00420)"
)
CARLINI = "Carlini et al., On evaluating adversarial robustness, 2019 (arXiv 1902.06705)"
DISTILLATION = (
    "Carlini & Wagner, Defensive distillation is not robust to adversarial examples, 2016 "
    "(arXiv 1607.04311)"
)
AUTOATTACK = (
    "Croce & Hein, Reliable evaluation with an ensemble of parameter-free attacks, ICML 2020 "
    "(arXiv 2003.01690)"
)
ADAPTIVE = (
    "Croce et al., Evaluating the adversarial robustness of adaptive test-time defenses, ICML 2022 "
    "(arXiv 2202.13711)"
)
PAPERNOT = (
    "Papernot et al., Practical black-box attacks against machine learning, ASIA CCS 2017 "
    "(arXiv 1602.02697)"
)
INDICATORS = "Pintor et al., Indicators of attack failure, NeurIPS 2022 (arXiv 2106.09947)"

MIN_CORRECT = 20
"""Images: with fewer, the exact tests could hardly find anything, and a PASS would mean nothing."""

MAX_LUCK = 0.1
"""The accuracy that chance may leave under an attack without a bound: that of ten classes, for more
of them too."""

UNDERFLOW = 88
"""exp(-88) is where float32 ends: beyond this margin the cross-entropy has no gradient at all."""

WHITE_BOX = ("pgd-20", "pgd-50", "cw-pgd", "apgd-ce")
"""The attacks on the model's own gradient."""


@dataclass(frozen=True)
class CheckResult:
    """What one check says and why, and the paper that the check comes from."""

    name: str
    level: Level
    reason: str
    paper: str


Judgment = tuple[Level, str]
"""A level, and the reason for it in one or two sentences."""


@dataclass(frozen=True)
class Check:
    """One row of `CHECKS`. `needs_correct`: it needs images that the model gets right."""

    name: str
    paper: str
    judge: Callable[[Evidence], Judgment]
    needs_correct: bool = True

    def __call__(self, evidence: Evidence) -> CheckResult:
        level, reason = self.judge(evidence)
        return CheckResult(self.name, level, reason, self.paper)


# ---- the model itself


def check_pixels(e: Evidence) -> Judgment:
    low, high = e.pixels
    text = f"pixels are between {low:.3g} and {high:.3g}"
    if low < 0 or high > 1:
        return "FAIL", f"{text}; every attack clips to [0, 1]."
    if high - low < 0.1:
        return "WARN", f"{text} only: divided by 255 twice?"
    return "PASS", f"{text}."


def check_mode(e: Evidence) -> Judgment:
    if e.training:
        names = ", ".join(e.training[:3]) + (", ..." if len(e.training) > 3 else "")
        return "FAIL", f"modules that stay in train mode after model.eval(): {names}."
    if e.was_training:
        return "WARN", "the model was given in train mode; all of this was measured in eval mode."
    return "PASS", "every module is in eval mode."


def check_clean(e: Evidence) -> Judgment:
    accuracy, chance = e.correct, 1 / e.logits.shape[1]
    text = f"{accuracy.correct} of {accuracy.n} images are classified correctly without an attack"
    if accuracy.interval[0] <= chance or is_near_chance(accuracy.value, e.logits.shape[1]):
        return "WARN", (
            f"{text}: there is little or nothing to attack. Is the model given the images, and the "
            "normalization (--normalize), that it was trained with?"
        )
    if accuracy.correct < MIN_CORRECT:
        return "WARN", (
            f"{text}: too few for the other checks to find much. Check at least {MIN_CORRECT} such "
            "images."
        )
    return "PASS", f"{text}."


def check_randomness(e: Evidence) -> Judgment:
    gap = (e.logits - e.logits_again).norm(dim=1) / e.logits.norm(dim=1).clamp_min(1e-10)
    changed = int((e.logits.argmax(dim=1) != e.logits_again.argmax(dim=1)).sum())
    differing = int((gap > 1e-4).sum())  # well above what the order of sums in float32 does
    if changed or differing:
        return "FAIL", (
            f"of {len(gap)} images given twice, {differing} get other logits and {changed} another "
            "class. Attacks that follow one noisy gradient fail; use autoattack-rand, which "
            "averages over many (EOT)."
        )
    return "PASS", "the same images get the same logits."


def check_batch(e: Evidence) -> Judgment:
    alone, within = e.logits_alone, e.logits[: len(e.logits_alone)]
    gap = (alone - within).norm(dim=1) / within.norm(dim=1).clamp_min(1e-10)
    # Far above what another order of sums does, also in TF32. NaN: it fails on one image alone.
    differing = int((~(gap <= 1e-3)).sum())
    if differing:
        return "FAIL", (
            f"{differing} of {len(gap)} images get other logits alone than in a batch: their "
            "robustness depends on the others. BatchNorm without running statistics, or a "
            "normalization over the batch? Normalize each image on its own."
        )
    return "PASS", "an image gets the same logits alone and in a batch."


def check_dynamic(e: Evidence) -> Judgment:
    if any("dynamic" in flag for flag in e.flags):
        return "WARN", (
            "the model computes gradients in its forward pass; standard attacks may not "
            "differentiate through that."
        )
    return "PASS", "the forward pass computes no gradient."


def check_probabilities(e: Evidence) -> Judgment:
    if are_probabilities(e.logits):
        return "FAIL", (
            "the output is a probability distribution. A second softmax in the loss flattens the "
            "gradients; return the logits."
        )
    return "PASS", "the output is not a probability distribution."


def check_logit_range(e: Evidence) -> Judgment:
    """Saturated softmaxes hide the gradient of the cross-entropy; tiny logits lose their digits."""
    margin, harmless = e.margin, e.harmless
    spread = float((e.logits.amax(dim=1) - e.logits.amin(dim=1)).median())
    without_gradient = Accuracy.of((margin > UNDERFLOW) & ~harmless)
    saturated = Accuracy.of((margin > SATURATED) & ~harmless)
    text = f"median spread of the logits {spread:.3g}"
    if harmless.any():
        text += f"; {int(harmless.sum())} images have a margin above {SATURATED}, which hides "
        text += "nothing from PGD on the margin"
    # Accuracy is a share with its interval: here of images, and its lower end has to be too high.
    if without_gradient.n and without_gradient.interval[0] > 0.05:
        return "FAIL", (
            f"{text}; {without_gradient.correct} of {without_gradient.n} images have a margin "
            f"above {UNDERFLOW}: their cross-entropy has no gradient."
        )
    if saturated.n and saturated.interval[0] > 0.1:
        return "WARN", (
            f"{text}; {saturated.correct} of {saturated.n} images have a margin above {SATURATED}: "
            "their softmax is saturated."
        )
    if spread < 1e-3:
        return "WARN", f"{text}: too small for the precision of float32."
    return "PASS", f"{text}."


# ---- the attacks


def check_zero_gradients(e: Evidence) -> Judgment:
    zero = e.gradient_norm <= 1e-10
    suspicious = Accuracy.of(zero & ~e.harmless)
    count = int(zero.sum())
    text = f"{count} of {suspicious.n} images have no gradient of the cross-entropy"
    if suspicious.correct < count:
        text += f"; {count - suspicious.correct} of them are saturated, which hides nothing from "
        text += "PGD on the margin"
    if not e.connected:
        return "FAIL", (
            f"{text}: the computation graph is cut between the image and the logits (detach, "
            "no_grad, rounding?)."
        )
    if suspicious.interval[0] > 0.05:
        return "FAIL", f"{text}: PGD and APGD on it cannot move."
    if suspicious.interval[0] > 0.01:
        return "WARN", f"{text}."
    return "PASS", f"{text}."


def check_noise(e: Evidence) -> Judgment:
    return _compare(e, "noise", "pgd-20")


def check_single_step(e: Evidence) -> Judgment:
    return _compare(e, "fgsm", "pgd-20")


def check_steps(e: Evidence) -> Judgment:
    return _never_falls(e, [f"pgd-{steps}" for steps in PGD_STEPS])


def check_eps(e: Evidence) -> Judgment:
    return _never_falls(e, list(e.eps))


def check_convergence(e: Evidence) -> Judgment:
    """A converged attack gains next to nothing in the last fifth of its steps."""
    steps = max(PGD_STEPS)
    gain = e.losses[-1] - e.losses[0]
    late = e.losses[-1] - e.losses[-1 - steps // 5]
    if gain <= 0:
        return "FAIL", f"{steps} steps of PGD do not raise the loss at all."
    share = round(100 * late / gain, 1) or 0.0  # and not -0.0
    text = f"{share:.1f} % of the increase of the loss comes in the last fifth of {steps} steps"
    return ("WARN" if late > 0.1 * gain else "PASS"), f"{text}."


def check_unbounded(e: Evidence) -> Judgment:
    """In a ball that holds the whole box any image can become any other, so only luck leaves one
    correctly classified."""
    left = e.robust("whole box")
    chance = max(1 / e.logits.shape[1], MAX_LUCK)
    accuracies = [f"{100 * e.robust(name).value:.0f} % at {eps:.3g}" for name, eps in e.eps.items()]
    text = f"robust accuracy as eps grows: {', '.join(accuracies)}"
    if left.interval[0] > chance:
        return "FAIL", f"{text}. Attacks that fail there fail everywhere."
    if left.interval[0] > chance / 4:
        return "WARN", f"{text}. It should end at about 0."
    return "PASS", f"{text}."


def check_black_box(e: Evidence) -> Judgment:
    """Square may break a few images that APGD leaves; more of them, or more than APGD does image by
    image, says that the gradient misleads."""
    if "square" not in e.broken or "apgd-ce" not in e.broken:
        missing = [f"{attack} could not run: {reason}" for attack, reason in e.skipped.items()]
        return "WARN", f"not known: {'; '.join(missing)}."
    level, reason = _compare(e, "square", "apgd-ce")
    extra = Accuracy.of(e.broken["square"][~e.broken["apgd-ce"]])
    if level == "PASS" and extra.n and extra.interval[0] > 0.02:
        return "WARN", (
            f"of {extra.n} images that apgd-ce does not break, square breaks {extra.correct} "
            "without any gradient."
        )
    return level, reason


def check_transfer(e: Evidence) -> Judgment:
    """Images made on other models may not do better than the strongest attack on the model's own
    gradient."""
    strongest = max(
        (name for name in WHITE_BOX if name in e.broken), key=lambda name: int(e.broken[name].sum())
    )
    return _worst(e, [(name, strongest) for name in e.transfers])


# ---- comparing attacks image by image


def _compare(e: Evidence, weak: str, strong: str) -> Judgment:
    """The weak attack may not break significantly more images that the strong one leaves than the
    other way round (sign test)."""
    only_weak = int((e.broken[weak] & ~e.broken[strong]).sum())
    only_strong = int((e.broken[strong] & ~e.broken[weak]).sum())
    p = sign_test(only_weak, only_strong)
    text = f"images broken: {only_strong} by {strong} only, {only_weak} by {weak} only"
    if p >= WARN_BELOW:
        return "PASS", f"{text}."
    return ("FAIL" if p < FAIL_BELOW else "WARN"), f"{text} (p = {p:.1g} by chance)."


def _worst(e: Evidence, pairs: Sequence[tuple[str, str]]) -> Judgment:
    """Of several comparisons of a weak attack with a strong one, the worst level and the reasons
    for it."""
    results = [_compare(e, weak, strong) for weak, strong in pairs]
    worst = max((level for level, _ in results), key=LEVELS.index)
    return worst, " ".join(reason for level, reason in results if level == worst)


def _never_falls(e: Evidence, attacks: Sequence[str]) -> Judgment:
    """Each attack has to break at least what the one before it breaks."""
    level, reason = _worst(e, list(pairwise(attacks)))
    if level == "PASS":
        counts = [f"{int(e.broken[name].sum())} by {name}" for name in attacks]
        reason = f"broken: {', '.join(counts)}."
    return level, reason


CHECKS: tuple[Check, ...] = (
    Check("pixels in [0, 1]", CARLINI, check_pixels, needs_correct=False),
    Check("eval mode", CARLINI, check_mode, needs_correct=False),
    Check("better than chance", CARLINI, check_clean, needs_correct=False),
    Check("deterministic output", ATHALYE, check_randomness, needs_correct=False),
    Check("independent of the batch", CARLINI, check_batch, needs_correct=False),
    Check("no optimization at inference", ADAPTIVE, check_dynamic, needs_correct=False),
    Check("logits, not probabilities", AUTOATTACK, check_probabilities, needs_correct=False),
    Check("logits in a sane range", DISTILLATION, check_logit_range, needs_correct=False),
    Check("nonzero gradients", ATHALYE, check_zero_gradients),
    Check("PGD beats random noise", CARLINI, check_noise),
    Check("many steps beat one", ATHALYE, check_single_step),
    Check("more steps break more", CARLINI, check_steps),
    Check("the attack has converged", INDICATORS, check_convergence),
    Check("a larger eps breaks more", CARLINI, check_eps),
    Check("without a bound nothing is robust", ATHALYE, check_unbounded),
    Check("white box beats black box", AUTOATTACK, check_black_box),
    Check("white box beats transfer", f"{ATHALYE}; {PAPERNOT}", check_transfer),
)
