"""The language of `--attack`: which attacks to run, in one short text.

    clean,pgd-20,pgd-50x10,autoattack        names, steps, steps x restarts
    quick    standard    full                named suites; they mix with names
    autoattack:apgd-ce+square                AutoAttack with a list of your own

Nothing here imports torch, so that help pages and recipes may use it.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from rpat_cli.errors import ConfigError, Problem, unknown

AUTOATTACK_PARTS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")
"""The attacks that AutoAttack is made of, by AutoAttack's own names."""

SUITES: Mapping[str, tuple[str, ...]] = {
    "quick": ("clean", "pgd"),
    "standard": ("clean", "pgd", "autoattack"),
    "full": ("clean", "noise", "fgsm", "bim", "mim", "pgd", "cw-pgd", "pgd-50x10", "autoattack"),
}

KEEP = ("last", "worst")

Setting = int | float | str | tuple[str, ...]


@dataclass(frozen=True)
class AttackSpec:
    """One attack of a suite.

    `name` is a key of ATTACKS, "clean", or "autoattack"; `label` tells it from other uses of the same attack in
    tables and files; `settings` go to whoever builds the attack.
    """

    name: str
    label: str
    settings: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class Overrides:
    """What flags like `--steps` ask of every attack whose text leaves it open.

    `step_size` is in pixels; `keep` is "last" (where the last step ends) or "worst" (the worst over all steps).
    """

    steps: int | None = None
    step_size: float | None = None
    restarts: int | None = None
    keep: str | None = None

    def given(self) -> dict[str, int | float | str]:
        """Only those that were asked for."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class _Entry:
    """A word of the language: what it runs, which settings it takes, and one line for people."""

    description: str
    name: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    takes: tuple[str, ...] = ()


_STEPPING = ("steps", "step_size", "keep")
_ITERATIVE = (*_STEPPING, "restarts")


def _part(name: str, description: str) -> _Entry:
    return _Entry(description, "autoattack", {"version": "standard", "attacks": (name,)})


_WORDS: Mapping[str, _Entry] = {
    "clean": _Entry("no attack: the accuracy on the images as they are", "clean"),
    "noise": _Entry("random noise of the size of the threat; a baseline that no defence should lose to", "noise"),
    "fgsm": _Entry("one step along the gradient's sign (Goodfellow 2015)", "fgsm", takes=("step_size",)),
    "bim": _Entry("iterated FGSM from the image itself (Kurakin 2017)", "bim", {"steps": 10}, _STEPPING),
    "mim": _Entry("BIM with momentum (Dong 2018)", "mim", {"steps": 10}, _STEPPING),
    "pgd": _Entry("projected gradient descent from random starts (Madry 2018)", "pgd", {"steps": 20}, _ITERATIVE),
    "cw-pgd": _Entry("PGD on the margin loss (Carlini & Wagner 2017)", "cw-pgd", {"steps": 20}, _ITERATIVE),
    "autoattack": _Entry(
        "AutoAttack standard: apgd-ce, apgd-t, fab-t, square (Croce & Hein 2020)", "autoattack", {"version": "standard"}
    ),
    "autoattack-plus": _Entry(
        "AutoAttack plus: also apgd-dlr and fab, five restarts", "autoattack", {"version": "plus"}
    ),
    "autoattack-rand": _Entry(
        "AutoAttack for randomised models: apgd-ce, apgd-dlr, 20 gradients averaged", "autoattack", {"version": "rand"}
    ),
    "apgd-ce": _part("apgd-ce", "step-size-free PGD on the cross-entropy (Croce & Hein 2020)"),
    "apgd-dlr": _part("apgd-dlr", "the same on the difference of logits ratio; 3 classes or more"),
    "apgd-t": _part("apgd-t", "the same, targeted, on the targeted ratio; 4 classes or more"),
    "fab": _part("fab", "smallest perturbation across the nearest decision boundary (Croce & Hein 2020)"),
    "fab-t": _part("fab-t", "the same, towards one class after another"),
    "square": _part("square", "random search with squares, no gradient (Andriushchenko 2020)"),
    "cw-l2": _Entry("smallest L2 perturbation (Carlini & Wagner 2017)", "cw-l2", {"steps": 1000}, ("steps",)),
    "ddn": _Entry("smallest L2 perturbation, direction and norm apart (Rony 2019)", "ddn", {"steps": 100}, ("steps",)),
    "fmn": _Entry("smallest perturbation in any norm (Pintor 2021)", "fmn", {"steps": 100}, ("steps",)),
    "hopskipjump": _Entry(
        "sees the predicted class only; Linf, L2 (Chen 2020)", "hopskipjump", {"steps": 64}, ("steps",)
    ),
    "boundary": _Entry("sees the predicted class only; L2 (Brendel 2018)", "boundary", {"steps": 5000}, ("steps",)),
    "zoo": _Entry(
        "gradients estimated from queries; zoo-10000 makes 10,000 (Chen 2017)", "zoo", {"queries": 10_000}, ("queries",)
    ),
}

_CUSTOM = "autoattack:"
_COUNTED = re.compile(r"(?P<name>.+?)-(?P<count>\d+)(?:x(?P<restarts>\d+))?")


def list_attacks() -> dict[str, str]:
    """Every word that `parse_suite` knows, with one line about it; named suites first."""
    suites = {name: "suite: " + ",".join(_label(word) for word in words) for name, words in SUITES.items()}
    return suites | {word: entry.description for word, entry in _WORDS.items()}


def parse_suite(text: str, overrides: Overrides | None = None, *, source: str = "--attack") -> list[AttackSpec]:
    """Read a suite; attacks that come twice run once.

    A count in the text ("pgd-20") is final; an override fills in what the text leaves open ("pgd", the named suites).
    Raises `ConfigError` listing every mistake: unknown words, counts that an attack does not take, an override that
    no attack of the suite can use.
    """
    wanted = (overrides or Overrides()).given()
    problems = [
        Problem("", f"{value} is not positive.", f"--{key.replace('_', '-')}")
        for key, value in wanted.items()
        if not isinstance(value, str) and value <= 0
    ]
    if "keep" in wanted and wanted["keep"] not in KEEP:
        problems.append(Problem("", unknown("choice", str(wanted["keep"]), KEEP), "--keep"))
    specs: dict[str, AttackSpec] = {}
    used: set[str] = set()
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        problems.append(Problem("", "no attack given.", source, f"Allowed: {', '.join(list_attacks())}."))
    for word in (inner for outer in words for inner in SUITES.get(outer, (outer,))):
        try:
            spec, open_settings = _parse_word(word, wanted)
        except ConfigError as error:
            problems += [Problem(p.key, p.message, source, p.hint) for p in error.problems]
            continue
        specs.setdefault(spec.label, spec)
        used |= open_settings
    if not problems:
        problems = [
            Problem("", f"no attack of {text!r} leaves it open.", f"--{key.replace('_', '-')}", _hint(key))
            for key in wanted
            if key not in used
        ]
    if problems:
        heading = f"{len(problems)} mistakes in the attacks" if len(problems) > 1 else ""
        raise ConfigError(*problems, title=heading)
    return list(specs.values())


def _hint(key: str) -> str:
    takers = [word for word, entry in _WORDS.items() if key in entry.takes]
    return f"Attacks that take it: {', '.join(takers)}, written without a count of their own."


def _parse_word(word: str, wanted: Mapping[str, int | float | str]) -> tuple[AttackSpec, set[str]]:
    """The spec of one word, and which of the wanted settings it took up."""
    if word.startswith(_CUSTOM):
        return _parse_custom(word), set()
    counts: dict[str, Setting] = {}
    match = None if word in _WORDS else _COUNTED.fullmatch(word)
    name = match["name"] if match else word
    if name not in _WORDS:
        raise ConfigError(unknown("attack", name, list(list_attacks())))
    entry = _WORDS[name]
    if match:
        keys = {_counted_in(entry.settings): match["count"], "restarts": match["restarts"]}
        counts = {key: int(count) for key, count in keys.items() if count}
    if refused := [key for key in counts if key not in entry.takes]:
        raise ConfigError(f"{word!r}: {name} takes no {' and no '.join(refused)}; write {name!r}.")
    if 0 in counts.values():
        raise ConfigError(f"{word!r}: the count must be at least 1.")
    taken = {key: value for key, value in wanted.items() if key in entry.takes and key not in counts}
    settings = {**entry.settings, **taken, **counts}
    return AttackSpec(entry.name, _label(name, settings), settings), set(taken)


def _parse_custom(word: str) -> AttackSpec:
    parts = tuple(part.strip() for part in word.removeprefix(_CUSTOM).split("+"))
    if wrong := [part for part in parts if part not in AUTOATTACK_PARTS]:
        raise ConfigError(*(unknown("part of AutoAttack", part, AUTOATTACK_PARTS) for part in wrong))
    return AttackSpec("autoattack", _CUSTOM + "+".join(parts), {"version": "custom", "attacks": parts})


def _label(word: str, settings: Mapping[str, Setting] | None = None) -> str:
    """`pgd` with 50 steps and 10 restarts is "pgd-50x10"; words without a count stay as they are."""
    entry = _WORDS.get(word)
    if entry is None:
        return word
    settings = entry.settings if settings is None else settings
    count = settings.get(_counted_in(settings))
    restarts = settings.get("restarts", 1)
    return word + (f"-{count}" if count is not None else "") + (f"x{restarts}" if restarts != 1 else "")


def _counted_in(settings: Mapping[str, Setting]) -> str:
    """What the count of a word means: steps, or for an attack with a budget of queries, queries."""
    return "queries" if "queries" in settings else "steps"
