"""Attacks on tensors: built by a call, then called as `attack(model, x, y)`.

Their threat is a `Threat`, or the command line's `norm` and `eps`. Gradient attacks draw from
torch's global generator, as everything in a training does; `attack("...")` and `AutoAttack` have a
seed of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor, nn

from rpat_cli.attacks import pgd, variants
from rpat_cli.attacks.autopgd import AutoPGD, Kept
from rpat_cli.attacks.pgd_settings import Keep
from rpat_cli.attacks.side_effects import BnMode
from rpat_cli.attacks.start import Start
from rpat_cli.attacks.threat import DEFAULT_EPS, Threat, parse_threat
from rpat_cli.calls.options import Norm, Number
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.suite import list_attacks, parse_suite
from rpat_cli.evaluation.worst_case import WorstCase, all_rows
from rpat_cli.methods import METHODS
from rpat_cli.methods.base import Method
from rpat_cli.registry import as_written
from rpat_cli.text import parse_number

AnyThreat = Threat | str | None
"""A `Threat`, text such as "Linf:8/255", or None: `norm` and `eps` say it."""


def threat_of(threat: AnyThreat, norm: str | None, eps: Number | None) -> Threat:
    """The threat that was given one way or the other. Without `eps` it has the norm's usual one for
    color images. Raises `ConfigError` for both ways at once."""
    if threat is not None and (norm is not None or eps is not None):
        message = "cannot be combined with norm and eps: it names both."
        raise ConfigError(Problem("threat", message))
    if isinstance(threat, Threat):
        return threat
    if threat is not None:
        return Threat(*parse_threat(threat))
    norm = as_written(norm or "Linf", DEFAULT_EPS)
    usual = DEFAULT_EPS.get(norm, 0.0)
    return Threat(norm, usual if eps is None else number("eps", eps))


def number(name: str, value: Number) -> float:
    """A number or a fraction such as "8/255". Raises `ConfigError`."""
    try:
        return float(parse_number(value))
    except ValueError as error:
        raise ConfigError(Problem(name, f"{value!r} {error}.")) from None


def _given(**settings: Any) -> dict[str, Any]:
    """Those that are not None; sizes as numbers. Raises `ConfigError`."""
    found = {key: value for key, value in settings.items() if value is not None}
    if "step_size" in found:
        found["step_size"] = number("step_size", found["step_size"])
    return found


def PGD(  # noqa: N802  (it makes an object of that name)
    threat: AnyThreat = None,
    *,
    norm: Norm | None = None,
    eps: Number | None = None,
    steps: int = 10,
    step_size: Number | None = None,
    restarts: int = 1,
    start: "Start | Tensor" = "uniform",
    loss: str = "ce",
    keep: Keep = "last",
    bn_mode: BnMode = "eval",
    decay: float = 0.0,
    eot: int = 1,
) -> pgd.PGD:
    """Projected gradient descent (Madry et al., ICLR 2018, arXiv 1706.06083), for training and
    evaluation: `PGD(eps=8/255, steps=20)(model, x, y)` returns x_adv.

    The step size follows threat and norm unless it is given. The other settings are those of
    `rpat_cli.attacks.pgd.PGD`, which this makes. Raises `ConfigError`.
    """
    settings = _given(step_size=step_size)
    return variants.pgd(
        threat_of(threat, norm, eps),
        steps=steps,
        restarts=restarts,
        start=start,
        loss=loss,
        keep=keep,
        bn_mode=bn_mode,
        decay=decay,
        eot=eot,
        **settings,
    )


def FGSM(  # noqa: N802
    threat: AnyThreat = None,
    *,
    norm: Norm | None = None,
    eps: Number | None = None,
    step_size: Number | None = None,
) -> pgd.PGD:
    """One step along the gradient, of length eps, from x itself (Goodfellow et al., ICLR 2015,
    arXiv 1412.6572). Raises `ConfigError`."""
    return variants.fgsm(threat_of(threat, norm, eps), **_given(step_size=step_size))


def APGD(  # noqa: N802
    threat: AnyThreat = None,
    *,
    norm: Norm | None = None,
    eps: Number | None = None,
    steps: int = 100,
    loss: str = "ce",
    restarts: int = 1,
    keep: Kept = "worst",
    eot: int = 1,
) -> AutoPGD:
    """AutoPGD, whose step size adapts itself (Croce & Hein, ICML 2020, arXiv 2003.01690). `loss` is
    "ce", "dlr", "margin" or "pm". Raises `ConfigError`."""
    return AutoPGD(
        threat_of(threat, norm, eps),
        steps=steps,
        loss=loss,
        restarts=restarts,
        keep=keep,
        eot=eot,
    )


@dataclass(frozen=True)
class SuiteAttack:
    """Attacks by their words, called on tensors: each image gets the worst of what they find.

    What they return is projected onto ball and box, checked, and classified again in float32, as in
    an evaluation. The model and every random generator come out as they went in; the same `seed`,
    images and `batch_size` give the same result.
    """

    words: str
    threat: Threat
    seed: int = 0
    batch_size: int | None = None

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Attack `x` (N, C, H, W) in [0, 1] with classes `y` (N,): x_adv, shaped like `x`. An image
        that resists comes back as the point with the smallest margin that was found.

        Raises `DataError` for images or labels of another form, `RpatError` for a model that
        returns no logits.
        """
        specs = parse_suite(self.words, source="attack()")
        with TemporaryDirectory() as folder:
            labels = [spec.label for spec in specs]
            worst = WorstCase(Path(folder) / "worst", tuple(x.shape), labels)
            evaluation = evaluate(
                model,
                x,
                y,
                specs,
                self.threat,
                batch_size=self.batch_size,
                seed=self.seed,
                keep=all_rows,
                on_chunk=worst.add,
            )
            margin = evaluation.clean_margin
            assert margin is not None
            return worst.replaced(0, x.detach().float(), margin)[0]


def attack(
    words: "str | Sequence[str]",
    threat: AnyThreat = None,
    *,
    norm: Norm | None = None,
    eps: Number | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> SuiteAttack:
    """What `--attack` takes, on tensors: `attack("apgd-t", eps=8/255)(model, x, y)`. `names()`
    lists the words. Raises `ConfigError`."""
    text = words if isinstance(words, str) else ",".join(words)
    parse_suite(text, source="attack()")
    return SuiteAttack(text, threat_of(threat, norm, eps), seed, batch_size)


def AutoAttack(  # noqa: N802
    threat: AnyThreat = None,
    *,
    norm: Norm | None = None,
    eps: Number | None = None,
    version: str = "standard",
    attacks: Sequence[str] = (),
    seed: int = 0,
    batch_size: int | None = None,
) -> SuiteAttack:
    """AutoAttack (Croce & Hein, ICML 2020, arXiv 2003.01690), the original's attacks: `x_adv =
    AutoAttack(eps=8/255)(model, x, y)`.

    `version` is "standard", "plus" or "rand"; `attacks` chooses some of its parts, such as
    ("apgd-ce", "square"). Raises `ConfigError`.
    """
    word = "autoattack" if version == "standard" else f"autoattack-{version}"
    if attacks:
        word = f"autoattack:{'+'.join(attacks)}"
    return attack(word, threat, norm=norm, eps=eps, seed=seed, batch_size=batch_size)


def names() -> dict[str, str]:
    """The words of `attack()`, each with its meaning."""
    return list_attacks()


def training_attack(
    method: "str | Method | type[Any]",
    threat: AnyThreat = None,
    *,
    norm: Norm | None = None,
    eps: Number | None = None,
    steps: int = 10,
    step_size: Number | None = None,
) -> pgd.PGD:
    """The attack that the paper of a method trains with: its start, its BatchNorm mode and, where
    the paper fixes them, its steps. `method` is a name, a class or an object. Raises
    `ConfigError`."""
    found = METHODS[method] if isinstance(method, str) else method
    made_for = threat_of(threat, norm, eps)
    settings: dict[str, Any] = {"steps": steps, **found.attack_defaults}
    if "step_per_eps" in settings:
        settings["step_size"] = settings.pop("step_per_eps") * made_for.eps
    return variants.pgd(made_for, **{**settings, **_given(step_size=step_size)})
