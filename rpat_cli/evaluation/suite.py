"""The language of `--attack`: which attacks to run, in one short text.

    clean,pgd-20,pgd-50x10,autoattack        names, steps, steps x restarts
    quick    standard    full                named suites; they mix with names
    autoattack:apgd-ce+square                AutoAttack with a list of your own
    transfer:runs/other@pgd-50               images made on another model (default: by pgd-20)
    audit:0.25                               AutoAttack on a sample of what is left, at the end
    pgd-50@eot=10    apgd@loss=margin        any other setting of an attack

A suite may also be a list, of such words and of mappings where a word is too short:

    - clean
    - {attack: pgd, steps: 50, restarts: 10, step_size: 2/255, label: my-pgd}

Nothing here imports torch, so that help pages and recipes may use it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.row import Setting
from rpat_cli.errors import ConfigError, Problem, unknown
from rpat_cli.evaluation.audit_word import with_audit_last
from rpat_cli.evaluation.words import (
    MAX_COUNT,
    SUITES,
    AttackSpec,
    list_attacks,
    parse_word,
    row_of_word,
    split_settings,
)
from rpat_cli.registry import as_written
from rpat_cli.text import parse_number

__all__ = [
    "SUITES",
    "AttackSpec",
    "Entry",
    "Overrides",
    "list_attacks",
    "parse_entries",
    "parse_suite",
]

KEEP = ("last", "worst")

MAX_ATTACKS = 500
"""Of a suite."""


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

    def given(self) -> dict[str, Setting]:
        """Only those that were asked for."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Entry:
    """One entry of a suite as it was written: words, or a mapping with `attack` and its settings.

    `source` says where it was written, `places` where each key of a mapping was, as far as that is
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
    """Read a suite, a text or a list; an attack that is named twice runs once.

    A count in the text ("pgd-20") is final; an override fills in what the text leaves open ("pgd",
    the named suites). Raises `ConfigError` listing every mistake: unknown words, counts and
    settings that an attack does not take, two different attacks of one label, an override that no
    attack of the suite can use.
    """
    parts = [suite] if isinstance(suite, str) else suite
    return parse_entries([Entry(part, source) for part in parts], overrides)


def parse_entries(
    entries: Sequence[Entry], overrides: Overrides | None = None, *, source: str = "--attack"
) -> list[AttackSpec]:
    """The same for entries that know where they were written; `source` is for the message that
    there are none."""
    wanted = (overrides or Overrides()).given()
    problems = _wrong_overrides(wanted)
    words: list[Entry] = []
    for entry in entries:
        words += _words_of(entry)
        if len(words) > MAX_ATTACKS:
            message = f"names more than {MAX_ATTACKS} attacks, which one evaluation does not run."
            raise ConfigError(Problem("", message, entry.source))
    if not words:
        hint = f"Allowed: {', '.join(list_attacks())}."
        problems.append(Problem("", "no attack given.", source, hint))
    specs: dict[str, AttackSpec] = {}
    used: set[str] = set()
    for entry in words:
        try:
            spec, taken = _parse_entry(entry, wanted)
            _add(specs, spec)
        except ConfigError as error:
            problems += [_placed(problem, entry) for problem in error.problems]
        else:
            used |= taken
    if not problems:
        problems = _without_effect(wanted, used, specs.values(), ",".join(map(str, words)))
    if problems:
        heading = f"{len(problems)} mistakes in the attacks" if len(problems) > 1 else ""
        raise ConfigError(*problems, title=heading)
    return with_audit_last(list(specs.values()))


def _wrong_overrides(wanted: Mapping[str, Setting]) -> list[Problem]:
    problems = [
        Problem("", f"{value} is not positive.", _flag(key))
        for key, value in wanted.items()
        if isinstance(value, int | float) and value <= 0
    ]
    problems += [
        Problem("", f"{value} is more than {MAX_COUNT:,}.", _flag(key))
        for key, value in wanted.items()
        if isinstance(value, int) and value > MAX_COUNT
    ]
    keep = wanted.get("keep", KEEP[0])
    if keep not in KEEP:
        problems.append(Problem("", unknown("choice", str(keep), KEEP), _flag("keep")))
    return problems


def _without_effect(
    wanted: Mapping[str, Setting], used: set[str], specs: Iterable[AttackSpec], text: str
) -> list[Problem]:
    """Overrides that no attack took: it is better to stop than to measure something else."""
    problems = []
    for key in wanted:
        if key in used:
            continue
        if any(key in spec.settings for spec in specs):
            reason = f"every attack in {text!r} that takes it already fixes it"
        else:
            reason = f"no attack in {text!r} takes it"
        takers = ", ".join(name for name, row in ATTACKS.items() if key in row.takes)
        hint = f"Write one that does without a count: {takers}."
        problems.append(Problem("", f"{_flag(key)} has no effect: {reason}.", hint=hint))
    return problems


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _placed(problem: Problem, entry: Entry) -> Problem:
    return replace(problem, source=entry.places.get(problem.key, entry.source))


def _words_of(entry: Entry) -> Iterable[Entry]:
    """The words of an entry one by one, those of named suites too; a mapping is one."""
    if not isinstance(entry.content, str):
        return [entry]
    words: list[str] = []
    for word in map(str.strip, entry.content.split(",")):
        words += SUITES.get(as_written(word, SUITES), [word] if word else [])
    return [replace(entry, content=word) for word in words]


def _add(specs: dict[str, AttackSpec], spec: AttackSpec) -> None:
    if specs.setdefault(spec.label, spec) != spec:
        hint = "Give one of them a label in a suite file: {attack: ..., label: my-name}."
        raise ConfigError(
            Problem("", f"two different attacks have the label {spec.label!r}.", hint=hint)
        )


def _parse_entry(entry: Entry, wanted: Mapping[str, Setting]) -> tuple[AttackSpec, set[str]]:
    """The spec of one word or mapping, and which of the wanted settings it took."""
    content = entry.content
    if isinstance(content, str):
        return _parse_text(content, wanted)
    if not isinstance(content, Mapping) or not isinstance(content.get("attack"), str):
        example = "Write a word such as pgd-20, or a mapping such as {attack: pgd, steps: 50}."
        raise ConfigError(Problem("", f"{content!r} does not name an attack.", hint=example))
    return _parse_mapping(content, wanted)


def _parse_text(text: str, wanted: Mapping[str, Setting]) -> tuple[AttackSpec, set[str]]:
    """A word with the settings behind it; those that its label would not show are added to it."""
    word, written = split_settings(text)
    settings, problems = _read_settings(written, set(written))
    spec, used = _spec_of(word, settings, wanted, problems)
    if problems:
        raise ConfigError(*problems)
    row = row_of_word(word)
    shown = {"restarts", row.counts} if row else set()
    extra = [f"@{key}={value}" for key, value in written.items() if key not in shown]
    return replace(spec, label=spec.label + "".join(extra)), used


def _parse_mapping(
    content: Mapping[str, Any], wanted: Mapping[str, Setting]
) -> tuple[AttackSpec, set[str]]:
    word, written = split_settings(content["attack"])
    row = row_of_word(word)
    given = {key: value for key, value in content.items() if key not in ("attack", "label")}
    own = set() if row is None else set(row.takes)
    settings, problems = _read_settings({**written, **given}, own | set(written))
    spec, used = _spec_of(word, settings, wanted, problems)
    if "label" in content:
        label = content["label"]
        problems += _wrong_label(label, spec)
        spec = replace(spec, label=label)
    if problems:
        raise ConfigError(*problems)
    return spec, used


def _spec_of(
    word: str,
    settings: Mapping[str, Setting],
    wanted: Mapping[str, Setting],
    problems: Sequence[Problem],
) -> tuple[AttackSpec, set[str]]:
    """What `parse_word` gives; what it raises comes after the problems known already."""
    try:
        return parse_word(word, wanted, settings)
    except ConfigError as error:
        raise ConfigError(*problems, *error.problems) from None


def _wrong_label(label: Any, spec: AttackSpec) -> list[Problem]:
    if not isinstance(label, str) or not label or "\n" in label:
        return [Problem("label", f"{label!r} is not a line of text.")]
    if _means_another(label, spec):
        message = f"{label!r} already means another attack; choose a name of your own."
        return [Problem("label", message)]
    return []


def _means_another(label: str, spec: AttackSpec) -> bool:
    """Would this label, read as a word, run something else?"""
    try:
        named, _ = parse_word(label)
    except ConfigError:
        return label in SUITES
    return named != replace(spec, label=named.label)


def _read_settings(
    given: Mapping[str, Any], own: set[str]
) -> tuple[dict[str, Setting], list[Problem]]:
    """The settings of an attack that has `own` ones besides the usual, and what is wrong with those
    that cannot be read."""
    settings: dict[str, Setting] = {}
    problems = []
    for key, value in given.items():
        if key not in _READERS and key not in own:
            message = unknown("key", str(key), ["attack", "label", *_READERS])
            problems.append(Problem(str(key), message))
            continue
        try:
            settings[key] = _READERS.get(key, _plain)(value)
        except ValueError as error:
            problems.append(Problem(key, f"{value!r}: {error}."))
    return settings, problems


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("must be a whole number, at least 1")
    if value > MAX_COUNT:
        raise ValueError(f"must be at most {MAX_COUNT:,}")
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


def _plain(value: Any) -> Setting:
    """A setting that only the attack of a plugin has."""
    if not isinstance(value, int | float | str):
        raise ValueError("must be a number or a text")
    try:
        number: int | float = parse_number(value)
    except ValueError:
        return value
    return number


_READERS: Mapping[str, Callable[[Any], Setting]] = {
    "steps": _count,
    "step_size": _size,
    "restarts": _count,
    "keep": _keep,
    "queries": _count,
    "eot": _count,
    "targets": _count,
    "candidates": _count,
    "rounds": _count,
}
"""How the settings of our own attacks are read in a mapping."""
