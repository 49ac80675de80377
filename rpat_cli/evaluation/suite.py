"""The language of `--attack`: which attacks to run, in one short text.

    clean,pgd-20,pgd-50x10,autoattack        names, steps, steps x restarts
    quick    standard    full                named suites; they mix with names
    autoattack:apgd-ce+square                AutoAttack with a list of your own
    transfer:runs/other@pgd-50               images made on another model (default: by pgd-20)

A suite may also be a list, of such words and of mappings where a word is too short:

    - clean
    - {attack: pgd, steps: 50, restarts: 10, step_size: 2/255, label: my-pgd}

Nothing here imports torch, so that help pages and recipes may use it.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

from rpat_cli.errors import ConfigError, Problem, unknown
from rpat_cli.text import parse_number

AUTOATTACK_PARTS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")
"""The attacks that AutoAttack is made of, by AutoAttack's own names."""

FOLLOW_A_GRADIENT = (
    *("fgsm", "bim", "mim", "pgd", "cw-pgd", "cw-l2", "ddn", "fmn"),
    *("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t"),
)
"""The attacks that cannot take a step on a model through which no gradient comes."""

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

    `name` is a key of ATTACKS or SEARCHES, "clean", "autoattack" or "transfer"; `label` tells it
    from other uses of the same attack in tables and files; `settings` go to whoever builds the
    attack. Those of "transfer" also hold `source`, the run, checkpoint or other model that it makes
    its images on, and `attack`, the key of ATTACKS that does it.
    """

    name: str
    label: str
    settings: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class Overrides:
    """What flags like `--steps` ask of every attack whose text leaves it open.

    `step_size` is in pixels; `keep` is "last" (where the last step ends) or "worst" (the worst over
    all steps).
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
    "noise": _Entry(
        "random noise of the size of the threat; a baseline that no defence should lose to", "noise"
    ),
    "fgsm": _Entry(
        "one step along the gradient's sign (Goodfellow 2015)", "fgsm", takes=("step_size",)
    ),
    "bim": _Entry(
        "iterated FGSM from the image itself (Kurakin 2017)", "bim", {"steps": 10}, _STEPPING
    ),
    "mim": _Entry("BIM with momentum (Dong 2018)", "mim", {"steps": 10}, _STEPPING),
    "pgd": _Entry(
        "projected gradient descent (Madry 2018); pgd-50x10: 50 steps from each of 10 random "
        "starts",
        "pgd",
        {"steps": 20},
        _ITERATIVE,
    ),
    "cw-pgd": _Entry(
        "PGD on the margin loss (Carlini & Wagner 2017)", "cw-pgd", {"steps": 20}, _ITERATIVE
    ),
    "autoattack": _Entry(
        "AutoAttack standard: apgd-ce, apgd-t, fab-t, square (Croce & Hein 2020)",
        "autoattack",
        {"version": "standard"},
    ),
    "autoattack-plus": _Entry(
        "AutoAttack plus: also apgd-dlr and fab, five restarts", "autoattack", {"version": "plus"}
    ),
    "autoattack-rand": _Entry(
        "AutoAttack for randomised models: apgd-ce, apgd-dlr, 20 gradients averaged",
        "autoattack",
        {"version": "rand"},
    ),
    "apgd-ce": _part("apgd-ce", "step-size-free PGD on the cross-entropy (Croce & Hein 2020)"),
    "apgd-dlr": _part("apgd-dlr", "the same on the difference of logits ratio; 3 classes or more"),
    "apgd-t": _part("apgd-t", "the same, targeted, on the targeted ratio; 4 classes or more"),
    "fab": _part(
        "fab", "smallest perturbation across the nearest decision boundary (Croce & Hein 2020)"
    ),
    "fab-t": _part("fab-t", "the same, towards one class after another"),
    "square": _part("square", "random search with squares, no gradient (Andriushchenko 2020)"),
    "cw-l2": _Entry(
        "smallest L2 perturbation (Carlini & Wagner 2017)", "cw-l2", {"steps": 1000}, ("steps",)
    ),
    "ddn": _Entry(
        "smallest L2 perturbation, direction and norm apart (Rony 2019)",
        "ddn",
        {"steps": 100},
        ("steps",),
    ),
    "fmn": _Entry(
        "smallest perturbation in any norm (Pintor 2021)", "fmn", {"steps": 100}, ("steps",)
    ),
    "hopskipjump": _Entry(
        "sees the predicted class only; Linf, L2 (Chen 2020)",
        "hopskipjump",
        {"steps": 64},
        ("steps",),
    ),
    "boundary": _Entry(
        "sees the predicted class only; L2 (Brendel 2018)", "boundary", {"steps": 5000}, ("steps",)
    ),
    "zoo": _Entry(
        "gradients estimated from queries; zoo-10000 makes 10,000 (Chen 2017)",
        "zoo",
        {"queries": 10_000},
        ("queries",),
    ),
}

_CUSTOM = "autoattack:"
_TRANSFER = "transfer:"
_MADE_BY = "pgd"
_TRANSFERABLE = ("fgsm", "bim", "mim", "pgd", "cw-pgd")
_COUNTED = re.compile(r"(?P<name>.+?)-(?P<count>\d+)(?:x(?P<restarts>\d+))?")


def list_attacks() -> dict[str, str]:
    """Every word that `parse_suite` knows, with one line about it; named suites first."""
    suites = {
        name: "suite: " + ",".join(_label(word) for word in words) for name, words in SUITES.items()
    }
    words = {word: entry.description for word, entry in _WORDS.items()}
    forms = {
        f"{_CUSTOM}apgd-ce+square": "parts of AutoAttack by your choice, with five restarts",
        f"{_TRANSFER}RUN": "made on another model: pgd-20, or transfer:RUN@mim-10 (Papernot 2017)",
    }
    return suites | words | forms


@dataclass(frozen=True)
class Entry:
    """One entry of a suite as it was written: a word or several, or a mapping with `attack` and its
    settings.

    `source` says where it stands, `places` where each key of a mapping does, as far as that is
    known.
    """

    content: Any
    source: str
    places: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        if isinstance(self.content, Mapping):
            return str(self.content.get("label", self.content.get("attack")))
        return str(self.content)


def parse_suite(
    suite: str | Sequence[Any], overrides: Overrides | None = None, *, source: str = "--attack"
) -> list[AttackSpec]:
    """Read a suite, a text or a list; attacks that come twice run once.

    A count in the text ("pgd-20") is final; an override fills in what the text leaves open ("pgd",
    the named suites). Raises `ConfigError` listing every mistake: unknown words, counts and
    settings that an attack does not take, two different attacks of one label, an override that no
    attack of the suite can use.
    """
    return parse_entries(
        [Entry(part, source) for part in ([suite] if isinstance(suite, str) else suite)], overrides
    )


def parse_entries(
    entries: Sequence[Entry], overrides: Overrides | None = None, *, source: str = "--attack"
) -> list[AttackSpec]:
    """The same for entries that know where they stand; `source` is where they should, should there
    be none."""
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
    entries = [entry for whole in entries for entry in _single(whole)]
    if not entries:
        problems.append(
            Problem("", "no attack given.", source, f"Allowed: {', '.join(list_attacks())}.")
        )
    for entry in entries:
        try:
            spec, open_settings = _parse_entry(entry, wanted)
        except ConfigError as error:
            problems += [
                replace(p, source=entry.places.get(p.key, entry.source)) for p in error.problems
            ]
            continue
        if specs.setdefault(spec.label, spec) != spec:
            hint = "Give one of them a label in a suite file: {attack: ..., label: my-name}."
            problems.append(
                Problem("", f"two different attacks are called {spec.label!r}.", entry.source, hint)
            )
        used |= open_settings
    if not problems:
        text = ",".join(map(str, entries))
        problems = [
            Problem(
                "",
                f"no attack of {text!r} leaves it open.",
                f"--{key.replace('_', '-')}",
                _hint(key),
            )
            for key in wanted
            if key not in used
        ]
    if problems:
        heading = f"{len(problems)} mistakes in the attacks" if len(problems) > 1 else ""
        raise ConfigError(*problems, title=heading)
    return list(specs.values())


def _single(entry: Entry) -> Iterable[Entry]:
    """The words of an entry one by one, those of named suites too; a mapping is one."""
    if not isinstance(entry.content, str):
        return [entry]
    words = [word.strip() for word in entry.content.split(",") if word.strip()]
    return [replace(entry, content=inner) for word in words for inner in SUITES.get(word, (word,))]


def _parse_entry(
    entry: Entry, wanted: Mapping[str, int | float | str]
) -> tuple[AttackSpec, set[str]]:
    """The spec of one word or mapping, and which of the wanted settings it took up."""
    content = entry.content
    if isinstance(content, str):
        return _parse_word(content, wanted)
    if not isinstance(content, Mapping) or not isinstance(content.get("attack"), str):
        example = "Write a word such as pgd-20, or a mapping such as {attack: pgd, steps: 50}."
        raise ConfigError(Problem("", f"{content!r} does not name an attack.", hint=example))
    settings, problems = _checked(
        {key: value for key, value in content.items() if key not in ("attack", "label")}
    )
    label = content.get("label")
    try:
        spec, used = _parse_word(content["attack"], wanted, settings)
    except ConfigError as error:
        raise ConfigError(*problems, *error.problems) from None
    if "label" in content and (not isinstance(label, str) or not label or "\n" in label):
        problems.append(Problem("label", f"{label!r} is not a line of text."))
    elif label is not None and _means_another(label, spec):
        problems.append(
            Problem("label", f"{label!r} already means another attack; choose a name of your own.")
        )
    if problems:
        raise ConfigError(*problems)
    return spec if label is None else replace(spec, label=label), used


def _hint(key: str) -> str:
    takers = [word for word, entry in _WORDS.items() if key in entry.takes]
    return f"Attacks that take it: {', '.join(takers)}, written without a count of their own."


def _checked(given: Mapping[str, Any]) -> tuple[dict[str, Setting], list[Problem]]:
    """The settings of a mapping as they are meant, and what is wrong with those that are not
    right."""
    settings: dict[str, Setting] = {}
    problems = []
    for key, value in given.items():
        if key not in _SETTINGS:
            problems.append(
                Problem(str(key), unknown("key", str(key), ["attack", "label", *_SETTINGS]))
            )
            continue
        try:
            settings[key] = _SETTINGS[key](value)
        except ValueError as error:
            problems.append(Problem(key, f"{value!r}: {error}."))
    return settings, problems


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("must be a whole number, at least 1")
    return value


def _size(value: Any) -> float:
    number = parse_number(value)
    if not isinstance(number, int | float) or number <= 0:
        raise ValueError("must be a positive number such as 2/255")
    return float(number)


def _keep(value: Any) -> str:
    if value not in KEEP:
        raise ValueError(f"must be one of {', '.join(KEEP)}")
    return str(value)


_SETTINGS: Mapping[str, Callable[[Any], Setting]] = {
    "steps": _count,
    "step_size": _size,
    "restarts": _count,
    "keep": _keep,
    "queries": _count,
}
"""What a mapping may set, and how it is read."""


def _means_another(label: str, spec: AttackSpec) -> bool:
    """Would this label, read as a word, run something else?"""
    try:
        named, _ = _parse_word(label, {})
    except ConfigError:
        return label in SUITES
    return named != replace(spec, label=named.label)


def _is_counted(word: str) -> bool:
    """Is it an attack with its count, such as `pgd-20`?"""
    match = _COUNTED.fullmatch(word)
    return match is not None and match["name"] in _WORDS


def _parse_word(
    word: str,
    wanted: Mapping[str, int | float | str],
    given: Mapping[str, Setting] = MappingProxyType({}),
) -> tuple[AttackSpec, set[str]]:
    """The spec of one word with the settings given beside it, and which of the wanted settings it
    took up."""
    if word.startswith(_TRANSFER):
        return _parse_transfer(word, wanted, given)
    if word.startswith(_CUSTOM):
        if given:
            raise ConfigError(*(Problem(key, f"{_CUSTOM}... takes no {key}.") for key in given))
        return _parse_custom(word), set()
    counts: dict[str, Setting] = {}
    match = None if word in _WORDS else _COUNTED.fullmatch(word)
    name = match["name"] if match else word
    if name in SUITES:
        raise ConfigError(
            f"{name!r} is a suite, not one attack: write it alone, as a word of its own."
        )
    if name not in _WORDS:
        dashed = re.sub(r"(?<=[a-z])(?=\d)", "-", word, count=1)  # pgd20, as many write it
        raise ConfigError(
            unknown("attack", name, [*list_attacks(), *([dashed] if _is_counted(dashed) else [])])
        )
    entry = _WORDS[name]
    if match:
        keys = {_counted_in(entry.settings): match["count"], "restarts": match["restarts"]}
        counts = {key: int(count) for key, count in keys.items() if count}
    if refused := [key for key in counts if key not in entry.takes]:
        raise ConfigError(f"{word!r}: {name} takes no {' and no '.join(refused)}; write {name!r}.")
    if 0 in counts.values():
        raise ConfigError(f"{word!r}: the count must be at least 1.")
    problems = [
        Problem(
            key,
            f"{name} takes no {key}.",
            hint=f"It takes: {', '.join(entry.takes)}." if entry.takes else "",
        )
        for key in given
        if key not in entry.takes
    ]
    problems += [Problem(key, f"stands in {word!r} already.") for key in given if key in counts]
    if problems:
        raise ConfigError(*problems)
    fixed = {**counts, **given}
    taken = {key: value for key, value in wanted.items() if key in entry.takes and key not in fixed}
    settings = {**entry.settings, **taken, **fixed}
    return AttackSpec(entry.name, _label(name, settings), settings), set(taken)


def _parse_transfer(
    word: str, wanted: Mapping[str, int | float | str], given: Mapping[str, Setting]
) -> tuple[AttackSpec, set[str]]:
    """`transfer:RUN` or `transfer:RUN@ATTACK`; an @ that is followed by a folder belongs to the
    RUN."""
    text = word.removeprefix(_TRANSFER)
    source, at, attack = text.rpartition("@")
    if not at or "/" in attack:
        source, attack = text, _MADE_BY
    if not source:
        raise ConfigError(
            f"{word!r} does not say on which model. Name a run or a checkpoint: transfer:runs/other"
        )
    made_by, used = _parse_word(attack, wanted, given)
    if made_by.name not in _TRANSFERABLE:
        raise ConfigError(
            f"{word!r}: images for another model are made by {', '.join(_TRANSFERABLE)}; not "
            f"{attack!r}."
        )
    path = PurePath(source)
    name = (
        f"{path.parent.parent.name}/{path.stem}"
        if path.parent.name == "checkpoints"
        else path.name or source
    )
    by = "" if made_by.label == _label(_MADE_BY) else f"@{made_by.label}"
    settings = {"source": source, "attack": made_by.name, **made_by.settings}
    return AttackSpec("transfer", f"{_TRANSFER}{name}{by}", settings), used


def _parse_custom(word: str) -> AttackSpec:
    parts = tuple(part.strip() for part in word.removeprefix(_CUSTOM).split("+"))
    if wrong := [part for part in parts if part not in AUTOATTACK_PARTS]:
        raise ConfigError(
            *(unknown("part of AutoAttack", part, AUTOATTACK_PARTS) for part in wrong)
        )
    return AttackSpec(
        "autoattack", _CUSTOM + "+".join(parts), {"version": "custom", "attacks": parts}
    )


def _label(word: str, settings: Mapping[str, Setting] | None = None) -> str:
    """`pgd` with 50 steps and 10 restarts is "pgd-50x10"; words without a count stay as they
    are."""
    entry = _WORDS.get(word)
    if entry is None:
        return word
    settings = entry.settings if settings is None else settings
    count = settings.get(_counted_in(settings))
    restarts = settings.get("restarts", 1)
    return (
        word
        + (f"-{count}" if count is not None else "")
        + (f"x{restarts}" if restarts != 1 else "")
    )


def _counted_in(settings: Mapping[str, Setting]) -> str:
    """What the count of a word means: steps, or for an attack with a budget of queries, queries."""
    return "queries" if "queries" in settings else "steps"
