"""The checks of a verdict: each looks at the evidence for one sign that attacks were fooled, and
comes from a paper.

Shares are judged by the lower ends of their 95 % intervals, attacks image by image, so that honest
models raise no false alarm.
"""

from collections.abc import Callable
from dataclasses import dataclass

from rpat_cli.diagnostics.blocks import Level
from rpat_cli.diagnostics.verdict.evidence import SATURATED, STAND_IN, WHITE_BOX, Evidence
from rpat_cli.diagnostics.verdict.image_by_image import (
    Judgment,
    beyond_white_box,
    compare,
    never_falls,
    used,
    worst,
)
from rpat_cli.diagnostics.verdict.probe import PGD_STEPS
from rpat_cli.evaluation.plausible import is_near_chance
from rpat_cli.evaluation.statistics import Accuracy
from rpat_cli.evaluation.verify import are_probabilities

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
OVERFITTING = (
    "Wong, Rice & Kolter, Fast is better than free, ICLR 2020 (arXiv 2001.03994); Kim et al., "
    "Understanding catastrophic overfitting in single-step adversarial training, AAAI 2021 (arXiv "
    "2010.01799)"
)
INDICATORS = "Pintor et al., Indicators of attack failure, NeurIPS 2022 (arXiv 2106.09947)"

MIN_CORRECT = 20
"""Images: with fewer, the exact tests could hardly find anything, and a PASS would mean nothing."""

MAX_LUCK = 0.1
"""The accuracy that chance may leave under an attack without a bound: that of ten classes, for more
of them too."""

UNDERFLOW = 88
"""exp(-88) is where float32 ends: beyond this margin the cross-entropy has no gradient at all."""


@dataclass(frozen=True)
class CheckResult:
    """What one check says and why, and the paper that the check comes from."""

    name: str
    level: Level
    reason: str
    paper: str


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
    changed = int((e.logits.argmax(dim=1) != e.logits_again.argmax(dim=1)).sum())
    moving = int(e.moving.sum())
    if changed or moving:
        return "FAIL", (
            f"of {len(e.logits)} images given twice, {moving} get other logits and {changed} "
            "another class. Attacks that follow one noisy gradient fail; use those that average "
            "over many (EOT): pgd-20@eot=10, autoattack-rand."
        )
    return "PASS", "the same images get the same logits."


def check_batch(e: Evidence) -> Judgment:
    if e.moving.any():
        return "WARN", "not known: the same images get other logits each time, in any batch."
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


def check_slopes(e: Evidence) -> Judgment:
    if e.moving.any():
        return "WARN", "not known: the same images get other logits each time."
    wrong = Accuracy.of(e.slopes.apart)
    text = f"at {wrong.correct} of {wrong.n} images the margin changes by less than half, or more "
    text += "than twice, what its gradient says"
    if wrong.interval[0] > 0.5:
        return "FAIL", f"{text}: a part of the graph is cut off, or the outputs ripple or jump."
    if wrong.n and wrong.interval[0] > 0.05:
        return "WARN", f"{text}: is a part of the graph cut off, or do the outputs ripple or jump?"
    return "PASS", f"{text}."


def check_noise(e: Evidence) -> Judgment:
    return compare(e, "noise", "pgd-20")


def check_single_step(e: Evidence) -> Judgment:
    return compare(e, "fgsm", "pgd-20")


def check_one_step(e: Evidence) -> Judgment:
    """Most images survive one step, and most of those do not survive many: the sign of catastrophic
    overfitting to single-step attacks. Where a step breaks most images, or many steps break little
    more, as in honest models, it says nothing."""
    left = ~e.broken["fgsm"]
    surviving, broken = Accuracy.of(left), Accuracy.of(e.broken["pgd-50"][left])
    text = f"{broken.correct} of {broken.n} images that fgsm leaves are broken by pgd-50"
    if surviving.interval[0] > 0.5 and broken.interval[0] > 0.5:
        return "WARN", f"{text}: accuracies under single-step attacks say nothing here."
    return "PASS", f"{text}."


def check_steps(e: Evidence) -> Judgment:
    return never_falls(e, [f"pgd-{steps}" for steps in PGD_STEPS])


def check_eps(e: Evidence) -> Judgment:
    return never_falls(e, list(e.eps))


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
    """Square may break a few images that all attacks on the gradient leave; more of them, or more
    than they do image by image, says that the gradient misleads.

    The margin counts among their losses: one that the cross-entropy alone leaves, as it may in a
    model that is barely trained, is hidden from no attacker.
    """
    if "square" not in e.broken or "apgd-ce" not in e.broken:
        missing = [f"{attack} could not run: {reason}" for attack, reason in e.skipped.items()]
        return "WARN", f"not known: {'; '.join(missing)}."
    level, reason = beyond_white_box(e, "square")
    extra = Accuracy.of(e.broken["square"][~e.white_box])
    if level == "PASS" and extra.n and extra.interval[0] > 0.02:
        return "WARN", (
            f"of {extra.n} images that {' and '.join(used(e))} do not break, square breaks "
            f"{extra.correct} without any gradient."
        )
    return level, reason


def check_stand_in(e: Evidence) -> Judgment:
    """Gradients that go past a module (BPDA) are wrong ones: they may do better than the model's
    own only where those mislead."""
    if STAND_IN not in e.broken:
        return "PASS", "no module has a backward pass of its own that could hide the gradient."
    level, reason = beyond_white_box(e, STAND_IN)
    past = f"{reason} (stand-in: the identity in place of the gradient of {', '.join(e.stand_ins)})"
    return level, past if level != "PASS" else reason


def check_transfer(e: Evidence) -> Judgment:
    """Images made on other models may not do better than the strongest attack on the model's own
    gradient."""
    strongest = max(
        (name for name in WHITE_BOX if name in e.broken), key=lambda name: int(e.broken[name].sum())
    )
    return worst(e, [(name, strongest) for name in e.transfers])


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
    Check("the gradient is that of the outputs", ATHALYE, check_slopes),
    Check("PGD beats random noise", CARLINI, check_noise),
    Check("many steps beat one", ATHALYE, check_single_step),
    Check("one step shows what many do", OVERFITTING, check_one_step),
    Check("more steps break more", CARLINI, check_steps),
    Check("the attack has converged", INDICATORS, check_convergence),
    Check("a larger eps breaks more", CARLINI, check_eps),
    Check("without a bound nothing is robust", ATHALYE, check_unbounded),
    Check("white box beats black box", AUTOATTACK, check_black_box),
    Check("white box beats transfer", f"{ATHALYE}; {PAPERNOT}", check_transfer),
    Check("no module hides the gradient", ATHALYE, check_stand_in),
)
