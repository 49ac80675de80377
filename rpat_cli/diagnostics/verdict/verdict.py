"""Is this robust accuracy real, or are the attacks being fooled? A list of checks, each from a
paper.

`gather` attacks some images in many cheap ways and keeps what happened as `Evidence`; each check
looks at it and gives one `Finding`. Attacks are compared image by image, by exact tests, so that
honest models raise no false alarm: two images more of 500 are chance.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.autoattack import AutoAttack
from rpat_cli.attacks.forward import gradient_reaches, input_gradient, unwrap
from rpat_cli.attacks.losses import cross_entropy, margin
from rpat_cli.attacks.side_effects import frozen, own_randomness
from rpat_cli.attacks.threat import Threat
from rpat_cli.data.splits import stratified_choice
from rpat_cli.diagnostics.verdict.substitute import QUESTIONS, fit_substitute
from rpat_cli.evaluation.statistics import Accuracy, sign_test
from rpat_cli.evaluation.verify import batches, checked_logits, verify

Level = Literal["PASS", "WARN", "FAIL"]
LEVELS: tuple[Level, ...] = ("PASS", "WARN", "FAIL")

IMAGES = 200
QUERIES = 500
STEPS = (5, 20, 50)
MULTIPLES = (1, 2, 4, 8)
DRAWS = 10

WHITE_BOX = ("pgd-20", "pgd-50", "cw-pgd", "apgd-ce")
SUBSTITUTE = "substitute"

SURE, SUSPECT = 0.001, 0.01
"""p-values of FAIL and of WARN: small, since every verdict makes several tests."""

SATURATED = 17
"""1 - exp(-17) rounds to 1 in float32: a softmax whose true class leads by more is flat."""

ENOUGH = 20
"""With fewer images the exact tests could hardly find anything, and that they found nothing would
say nothing."""

FEW = 0.1
"""What may stand by luck, where the attack misses some: the chance of ten classes, also for more of
them."""

ATHALYE = (
    "Athalye, Carlini & Wagner, Obfuscated gradients give a false sense of security, ICML 2018"
)
CARLINI = "Carlini et al., On evaluating adversarial robustness, 2019 (arXiv 1902.06705)"
DISTILLATION = (
    "Carlini & Wagner, Defensive distillation is not robust to adversarial examples, 2016"
)
AUTOATTACK = (
    "Croce & Hein, Reliable evaluation with an ensemble of parameter-free attacks, ICML 2020"
)
ADAPTIVE = (
    "Croce et al., Evaluating the adversarial robustness of adaptive test-time defenses, ICML 2022"
)
PAPERNOT = "Papernot et al., Practical black-box attacks against machine learning, ASIA CCS 2017"
INDICATORS = "Pintor et al., Indicators of attack failure, NeurIPS 2022"


@dataclass(frozen=True)
class Finding:
    """What one check says, why, and the paper that the check comes from."""

    name: str
    level: Level
    reason: str
    paper: str


@dataclass(frozen=True)
class Evidence:
    """What was seen of a model on `correct.n` images. Tensors are on the CPU.

    `logits` (N, classes) in eval mode, `logits_again` of a second pass. `y` (N,). `pixels` is the
    range of the images.
    `training`: modules that stay in train mode when they are told not to. `was_training`: the model
    was handed over in train mode. `connected`: the logits depend on the image through a gradient.
    `gradient_norm` (M,): the L1 norm of the cross-entropy's gradient at the M correctly classified
    images. `broken`: per attack (M,), which of them it breaks; `eps` maps the names of the attacks
    with a larger radius to that radius, in rising order. `losses`: mean cross-entropy before, after
    each step of, and at the end of PGD with 50 steps. `flags`: AutoAttack's own warnings,
    `skipped`: attacks that could not run and why. `transfers`: which of the attacks were made on
    other models.
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

    @property
    def right(self) -> Tensor:
        """(N,) bool: correctly classified as it is."""
        return self.logits.argmax(dim=1) == self.y

    @property
    def correct(self) -> Accuracy:
        return Accuracy.of(self.right)

    @property
    def lead(self) -> Tensor:
        """(M,) by how much the true class leads, in logits, at the correctly classified images."""
        return margin(self.logits, self.y)[self.right]

    @property
    def harmless(self) -> Tensor:
        """(M,) bool: the softmax is saturated, and still hides nothing from the attacks on the
        cross-entropy.

        PGD on the margin, which no softmax flattens, would break those images if only their flat
        loss protected them. An honest model without any defence is often that sure of its easiest
        images.
        """
        saturated = self.lead > SATURATED
        if not {"cw-pgd", "pgd-50"} <= self.broken.keys():
            return torch.zeros_like(saturated)
        on_margin = self.broken["cw-pgd"]
        on_entropy = self.broken["pgd-50"] | self.broken.get("apgd-ce", self.broken["pgd-50"])
        only_margin = int((saturated & on_margin & ~on_entropy).sum())
        only_entropy = int((saturated & on_entropy & ~on_margin).sum())
        return saturated & (sign_test(only_margin, only_entropy) >= SUSPECT)

    def standing(self, name: str) -> Accuracy:
        """What an attack leaves standing, of all images."""
        return Accuracy(self.correct.correct - int(self.broken[name].sum()), self.correct.n)

    def to_dict(self) -> dict[str, Any]:
        """The figures, without the per-image tensors."""
        return {
            "threat": asdict(self.threat),
            "n": self.correct.n,
            "clean_acc": self.correct.value,
            "robust_acc": {name: self.standing(name).value for name in self.broken},
            "eps": dict(self.eps),
            "losses": list(self.losses),
            "autoattack_flags": list(self.flags),
            "skipped": dict(self.skipped),
            "transfers": list(self.transfers),
        }


@dataclass(frozen=True)
class Verdict:
    """All findings; the worst of them is the verdict."""

    findings: tuple[Finding, ...]
    evidence: Evidence

    @property
    def level(self) -> Level:
        return max((finding.level for finding in self.findings), key=LEVELS.index)

    def __getitem__(self, name: str) -> Finding:
        """The finding of that name. Raises `KeyError`."""
        return {finding.name: finding for finding in self.findings}[name]

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {
            "level": self.level,
            "findings": [asdict(finding) for finding in self.findings],
            "evidence": self.evidence.to_dict(),
        }


def judge(evidence: Evidence) -> Verdict:
    """Run every check. Where the model gets no image right, only those that look at the model
    itself."""
    checks = (*MODEL_CHECKS, *(ATTACK_CHECKS if evidence.correct.correct else ()))
    return Verdict(tuple(check(evidence) for check in checks), evidence)


# ---- gathering evidence


def gather(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    images: int = IMAGES,
    queries: int = QUERIES,
    questions: int = QUESTIONS,
    batch_size: int = 250,
    device: torch.device | None = None,
    seed: int = 0,
    sources: Mapping[str, nn.Module] = MappingProxyType({}),
) -> Evidence:
    """Attack up to `images` of x (N, C, H, W), y (N,), equally many of each class, in the cheap
    ways the checks need.

    `sources` are other models on `device`, by a name for what is made on them; besides, a small
    substitute is fitted to the model's answers to all of x: to so many `questions`.

    `queries` are Square's, per image. The model, its modes and gradients and all generators stay as
    they were. Raises `RpatError` for a model without finite logits (B, classes).
    """
    device = device or x.device
    enough = images <= len(y) - len(torch.unique(y))
    chosen = stratified_choice(y.cpu(), images, seed) if enough else torch.arange(len(y))
    everything = x
    x, y = x[chosen.to(x.device)].to(device), y[chosen.to(y.device)].to(device)
    was_training = unwrap(model).training
    with (
        frozen(model) as model,
        torch.autocast(device.type, enabled=False),
        own_randomness(device, seed),
    ):
        look = _Look(model, threat, batch_size)
        logits = look.logits(x)
        right = logits.argmax(dim=1) == y
        low, high = x.aminmax()
        seen = look.attacks(x[right], y[right], queries, seed)
        look.transfers(x[right], y[right], everything, questions, sources, seen)
        return Evidence(
            threat=threat,
            y=y.cpu(),
            pixels=(float(low), float(high)),
            training=tuple(
                name or type(m).__name__ for name, m in model.named_modules() if m.training
            ),
            was_training=was_training,
            connected=gradient_reaches(model, x[:1]),
            logits=logits.cpu(),
            logits_again=look.logits(x).cpu(),
            gradient_norm=look.gradient_norm(x[right], y[right]).cpu(),
            broken=seen.broken,
            eps=seen.eps,
            losses=seen.losses,
            flags=seen.flags,
            skipped=seen.skipped,
            transfers=seen.transfers,
        )


@dataclass(frozen=True)
class _Look:
    """One model, looked at batch by batch."""

    model: nn.Module
    threat: Threat
    batch_size: int

    def logits(self, x: Tensor) -> Tensor:
        return torch.cat(
            [checked_logits(self.model, part) for part in torch.split(x, self.batch_size)]
        )

    def attacks(self, x: Tensor, y: Tensor, queries: int, seed: int) -> "_Seen":
        """Attack images `x`, all of which the model gets right."""
        seen = _Seen(self._radii(x))
        if not len(x):
            return seen
        seen.broken["noise"] = self._broken(self.threat, "noise", x, y, draws=DRAWS)
        seen.broken["fgsm"] = self._broken(self.threat, "fgsm", x, y)
        for steps in STEPS:
            seen.broken[f"pgd-{steps}"] = self._broken(self.threat, "pgd", x, y, steps=steps)
        for name, radius in seen.eps.items():
            threat = Threat(self.threat.norm, radius)
            seen.broken[name] = self._broken(threat, "pgd", x, y, steps=20, keep="worst")
        seen.losses = self._climb(x, y)
        self._autoattack(x, y, queries, seed, seen)
        seen.broken["cw-pgd"] = self._broken(self.threat, "cw-pgd", x, y, steps=max(STEPS))
        return seen

    def transfers(
        self,
        x: Tensor,
        y: Tensor,
        everything: Tensor,
        questions: int,
        sources: Mapping[str, nn.Module],
        seen: "_Seen",
    ) -> None:
        """What PGD finds on other models, tried on this one: on those given, and on one fitted to
        its answers.

        Its inner loss is the margin, which here breaks a fifth more than the cross-entropy.
        """
        if not len(x):
            return
        substitute = fit_substitute(self.model, everything, self.threat, x.device, questions)
        attack = ATTACKS["cw-pgd"](self.threat, steps=20)
        for name, source in {**sources, SUBSTITUTE: substitute}.items():
            seen.broken[name] = self._verified(self.threat, x, y, partial(attack, source))
        seen.transfers = (*sources, SUBSTITUTE)

    def _radii(self, x: Tensor) -> dict[str, float]:
        """The radius asked for, some multiples of it, and the one that holds every image."""
        whole = self.threat.whole_box(x).eps
        multiples = {
            f"eps x {k}": k * self.threat.eps for k in MULTIPLES if k * self.threat.eps < whole
        }
        return {**multiples, "whole box": whole}

    def _broken(self, threat: Threat, name: str, x: Tensor, y: Tensor, **settings: Any) -> Tensor:
        attack = ATTACKS[name](threat, **settings)
        return self._verified(threat, x, y, lambda x, y: attack(self.model, x, y))

    def _verified(
        self, threat: Threat, x: Tensor, y: Tensor, perturb: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        parts = batches(x, y, self.batch_size, x.device)
        return torch.cat(
            [verify(self.model, threat, x, y, perturb(x, y)).broken for x, y in parts]
        ).cpu()

    def gradient_norm(self, x: Tensor, y: Tensor) -> Tensor:
        if not len(x):
            return torch.zeros(0)
        parts = batches(x, y, self.batch_size, x.device)
        return torch.cat(
            [_gradient(self.model, x, y).flatten(1).abs().sum(dim=1) for x, y in parts]
        )

    def _climb(self, x: Tensor, y: Tensor) -> tuple[float, ...]:
        """The mean loss along PGD: an inner loss that takes notes."""
        steps = max(STEPS)
        attack = ATTACKS["pgd"](self.threat, steps=steps)
        sums = torch.zeros(steps + 1)
        for x_part, y_part in batches(x, y, self.batch_size, x.device):
            noted, loss_fn = _noting(y_part)
            x_adv = attack.perturb(self.model, x_part, loss_fn)
            loss_fn(checked_logits(self.model, x_adv))
            sums += torch.tensor(noted)
        return tuple((sums / len(x)).tolist())

    def _autoattack(self, x: Tensor, y: Tensor, queries: int, seed: int, seen: "_Seen") -> None:
        """APGD and Square, each on all images, and what AutoAttack itself says of the model."""
        attacks = AutoAttack(self.threat, attacks=("apgd-ce", "square"), seed=seed, queries=queries)
        first = slice(0, self.batch_size)
        ensemble = attacks.on(self.model, x[first], y[first])
        for name in ensemble.names:
            if name == "apgd-ce" and not gradient_reaches(self.model, x[:1]):
                seen.broken[name] = torch.zeros(
                    len(x), dtype=torch.bool
                )  # it cannot take a single step
            else:
                seen.broken[name] = self._verified(
                    self.threat, x, y, partial(ensemble.perturb, name)
                )
        seen.flags = tuple(ensemble.flags)
        for note in ensemble.notes:
            name, _, reason = note.partition(" left out: ")
            seen.skipped[name] = reason


@dataclass
class _Seen:
    """What the attacks did; the fields are those of `Evidence`."""

    eps: dict[str, float]
    broken: dict[str, Tensor] = field(default_factory=dict)
    losses: tuple[float, ...] = ()
    flags: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    transfers: tuple[str, ...] = ()


def _gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return input_gradient(model, x, lambda logits: cross_entropy(logits, y))[0]


def _noting(y: Tensor) -> tuple[list[float], Callable[[Tensor], Tensor]]:
    noted: list[float] = []

    def loss_fn(logits: Tensor) -> Tensor:
        loss = cross_entropy(logits, y).sum()
        noted.append(float(loss.detach()))
        return loss

    return noted, loss_fn


# ---- the checks


def check_pixels(e: Evidence) -> Finding:
    name = "pixels in [0, 1]"
    low, high = e.pixels
    text = f"pixels run from {low:.3g} to {high:.3g}"
    if low < 0 or high > 1:
        return Finding(name, "FAIL", f"{text}; every attack clips to [0, 1].", CARLINI)
    if high - low < 0.1:
        return Finding(name, "WARN", f"{text} only: divided by 255 twice?", CARLINI)
    return Finding(name, "PASS", f"{text}.", CARLINI)


def check_mode(e: Evidence) -> Finding:
    name = "eval mode"
    if e.training:
        some = ", ".join(e.training[:3]) + (", ..." if len(e.training) > 3 else "")
        return Finding(name, "FAIL", f"stays in train mode after model.eval(): {some}.", CARLINI)
    if e.was_training:
        return Finding(
            name,
            "WARN",
            "the model came in train mode; everything here was measured in eval mode.",
            CARLINI,
        )
    return Finding(name, "PASS", "every module is in eval mode.", CARLINI)


def check_clean(e: Evidence) -> Finding:
    accuracy, chance = e.correct, 1 / e.logits.shape[1]
    text = f"{accuracy.correct} of {accuracy.n} images are right without an attack"
    if accuracy.interval[0] <= chance:
        return Finding(
            "better than guessing",
            "WARN",
            f"{text}: there is little or nothing to attack.",
            CARLINI,
        )
    if accuracy.correct < ENOUGH:
        reason = (
            f"{text}: too few for the other checks to find much. Check at least {ENOUGH} such "
            "images."
        )
        return Finding("better than guessing", "WARN", reason, CARLINI)
    return Finding("better than guessing", "PASS", f"{text}.", CARLINI)


def check_randomness(e: Evidence) -> Finding:
    name = "same answer twice"
    gap = (e.logits - e.logits_again).norm(dim=1) / e.logits.norm(dim=1).clamp_min(1e-10)
    changed = int((e.logits.argmax(dim=1) != e.logits_again.argmax(dim=1)).sum())
    differing = int((gap > 1e-4).sum())  # well above what the order of sums in float32 does
    if changed or differing:
        reason = (
            f"of {len(gap)} images given twice, {differing} get other logits and {changed} "
            "another class. Attacks that "
            "follow one noisy gradient fail; use autoattack-rand, which averages over many."
        )
        return Finding(name, "FAIL", reason, ATHALYE)
    return Finding(name, "PASS", "the same images get the same logits.", ATHALYE)


def check_dynamic(e: Evidence) -> Finding:
    name = "no optimisation inside"
    if any("dynamic" in flag for flag in e.flags):
        reason = (
            "the model computes gradients while it predicts; standard attacks may not reach "
            "through that."
        )
        return Finding(name, "WARN", reason, ADAPTIVE)
    return Finding(name, "PASS", "predicting takes no gradient.", ADAPTIVE)


def check_probabilities(e: Evidence) -> Finding:
    name = "logits, not probabilities"
    sums = (e.logits.sum(dim=1) - 1).abs()
    if (e.logits >= -1e-5).all() and (e.logits <= 1 + 1e-5).all() and (sums < 1e-4).all():
        reason = (
            "the output is a probability distribution. A second softmax in the loss flattens the "
            "gradients."
        )
        return Finding(name, "FAIL", reason, AUTOATTACK)
    return Finding(name, "PASS", "the output is no probability distribution.", AUTOATTACK)


def check_logit_range(e: Evidence) -> Finding:
    """exp(-88) is where float32 ends, and with it the gradient of the cross-entropy."""
    name = "logits in a sane range"
    lead, harmless = e.lead, e.harmless
    spread = float((e.logits.amax(dim=1) - e.logits.amin(dim=1)).median())
    lost, saturated = (
        Accuracy.of((lead > 88) & ~harmless),
        Accuracy.of((lead > SATURATED) & ~harmless),
    )
    text = f"median spread of the logits {spread:.3g}"
    if harmless.any():
        text += f"; {int(harmless.sum())} images lead by over {SATURATED}, "
        text += "which hides nothing from PGD on the margin"
    if lost.n and lost.interval[0] > 0.05:
        reason = (
            f"{text}; {lost.correct} of {lost.n} images lead by over 88: their cross-entropy has "
            "no gradient."
        )
        return Finding(name, "FAIL", reason, DISTILLATION)
    if saturated.n and saturated.interval[0] > 0.1:
        share = f"{saturated.correct} of {saturated.n} images"
        reason = f"{text}; {share} lead by over {SATURATED}: their softmax rounds to 1."
        return Finding(name, "WARN", reason, DISTILLATION)
    if spread < 1e-3:
        return Finding(name, "WARN", f"{text}: too small for the digits of float32.", DISTILLATION)
    return Finding(name, "PASS", f"{text}.", DISTILLATION)


def check_zero_gradients(e: Evidence) -> Finding:
    name = "gradients are there"
    none = e.gradient_norm <= 1e-10
    zero = Accuracy.of(none & ~e.harmless)
    text = f"{int(none.sum())} of {zero.n} images have no gradient of the cross-entropy"
    if zero.correct < none.sum():
        text += f"; {int(none.sum()) - zero.correct} of them are saturated, "
        text += "which hides nothing from PGD on the margin"
    if not e.connected:
        reason = (
            f"{text}: the computation is cut between the image and the logits (detach, no_grad, "
            "rounding?)."
        )
        return Finding(name, "FAIL", reason, ATHALYE)
    if zero.interval[0] > 0.05:
        return Finding(name, "FAIL", f"{text}: PGD and APGD on it cannot move.", ATHALYE)
    if zero.interval[0] > 0.01:
        return Finding(name, "WARN", f"{text}.", ATHALYE)
    return Finding(name, "PASS", f"{text}.", ATHALYE)


def check_noise(e: Evidence) -> Finding:
    return _must_win(e, "PGD beats random noise", "noise", "pgd-20", CARLINI)


def check_single_step(e: Evidence) -> Finding:
    return _must_win(e, "many steps beat one", "fgsm", "pgd-20", ATHALYE)


def check_steps(e: Evidence) -> Finding:
    pairs = [(f"pgd-{few}", f"pgd-{many}") for few, many in pairwise(STEPS)]
    return _never_falls(e, "more steps break more", pairs, CARLINI)


def check_eps(e: Evidence) -> Finding:
    return _never_falls(e, "a larger eps breaks more", list(pairwise(e.eps)), CARLINI)


def check_black_box(e: Evidence) -> Finding:
    """Square is allowed a few images of its own; beating a gradient attack image by image, or many
    of them, is not."""
    name = "white box beats black box"
    if "square" not in e.broken or "apgd-ce" not in e.broken:
        missing = "; ".join(
            f"{attack} could not run: {reason}" for attack, reason in e.skipped.items()
        )
        return Finding(name, "WARN", f"not known: {missing}.", AUTOATTACK)
    finding = _must_win(e, name, "square", "apgd-ce", AUTOATTACK)
    left = ~e.broken["apgd-ce"]
    extra = Accuracy.of(e.broken["square"][left])
    if finding.level == "PASS" and extra.n and extra.interval[0] > 0.02:
        reason = (
            f"of {extra.n} images that apgd-ce leaves standing, square without any gradient "
            f"breaks {extra.correct}."
        )
        return Finding(name, "WARN", reason, AUTOATTACK)
    return finding


def check_transfer(e: Evidence) -> Finding:
    """Images made without the model's own gradient may not do better than the best that is made
    with it."""
    strongest = max(
        (name for name in WHITE_BOX if name in e.broken), key=lambda name: int(e.broken[name].sum())
    )
    pairs = [(name, strongest) for name in e.transfers]
    level, reason = _worst(e, pairs)
    return Finding("white box beats transfer", level, reason, f"{ATHALYE}; {PAPERNOT}")


def check_unbounded(e: Evidence) -> Finding:
    """Within the whole box any image can be turned into any other, so nothing can stand except by
    luck."""
    name = "nothing stands without a bound"
    left = e.standing("whole box")
    chance = max(1 / e.logits.shape[1], FEW)
    curve = ", ".join(
        f"{100 * e.standing(name).value:.0f} % at {eps:.3g}" for name, eps in e.eps.items()
    )
    text = f"robust accuracy as eps grows: {curve}"
    if left.interval[0] > chance:
        return Finding(name, "FAIL", f"{text}. Attacks that fail there fail everywhere.", ATHALYE)
    if left.interval[0] > chance / 4:
        return Finding(name, "WARN", f"{text}. It should end at about 0.", ATHALYE)
    return Finding(name, "PASS", f"{text}.", ATHALYE)


def check_convergence(e: Evidence) -> Finding:
    """Of all that the loss gains, what comes in the last fifth of the steps? On a plateau, next to
    nothing."""
    name = "the attack has converged"
    gain = e.losses[-1] - e.losses[0]
    late = e.losses[-1] - e.losses[-1 - max(STEPS) // 5]
    if gain <= 0:
        return Finding(
            name, "FAIL", f"{max(STEPS)} steps of PGD do not raise the loss at all.", INDICATORS
        )
    share = round(100 * late / gain, 1) or 0.0  # and not -0.0
    text = f"{share:.1f} % of what the loss gains comes in the last fifth of {max(STEPS)} steps"
    return Finding(name, "WARN" if late > 0.1 * gain else "PASS", f"{text}.", INDICATORS)


def _must_win(e: Evidence, name: str, weak: str, strong: str, paper: str) -> Finding:
    """The weak attack may not break significantly more images that the strong one leaves than the
    other way round."""
    return Finding(name, *_compare(e, weak, strong), paper)


def _never_falls(e: Evidence, name: str, pairs: Sequence[tuple[str, str]], paper: str) -> Finding:
    level, reason = _worst(e, pairs)
    if level == "PASS":
        names = [pairs[0][0], *(strong for _, strong in pairs)]
        reason = f"broken: {', '.join(f'{int(e.broken[name].sum())} by {name}' for name in names)}."
    return Finding(name, level, reason, paper)


def _worst(e: Evidence, pairs: Sequence[tuple[str, str]]) -> tuple[Level, str]:
    """Of several comparisons, each of a weak attack with a strong one, the worst level and the
    reasons for it."""
    results = [_compare(e, weak, strong) for weak, strong in pairs]
    worst = max((level for level, _ in results), key=LEVELS.index)
    return worst, " ".join(reason for level, reason in results if level == worst)


def _compare(e: Evidence, weak: str, strong: str) -> tuple[Level, str]:
    only_weak = int((e.broken[weak] & ~e.broken[strong]).sum())
    only_strong = int((e.broken[strong] & ~e.broken[weak]).sum())
    p = sign_test(only_weak, only_strong)
    level: Level = "FAIL" if p < SURE else "WARN" if p < SUSPECT else "PASS"
    odds = f" (p = {p:.1g} by chance)" if level != "PASS" else ""
    return (
        level,
        f"images broken: {only_strong} by {strong} only, {only_weak} by {weak} only{odds}.",
    )


Check = Callable[[Evidence], Finding]

MODEL_CHECKS: tuple[Check, ...] = (
    check_pixels,
    check_mode,
    check_clean,
    check_randomness,
    check_dynamic,
    check_probabilities,
    check_logit_range,
)
"""What can be said of any model."""

ATTACK_CHECKS: tuple[Check, ...] = (
    check_zero_gradients,
    check_noise,
    check_single_step,
    check_steps,
    check_convergence,
    check_eps,
    check_unbounded,
    check_black_box,
    check_transfer,
)
"""What needs images that the model gets right."""
