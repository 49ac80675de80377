"""One word of the language of `--attack`: `pgd-50x10`, `autoattack:apgd-ce`, `transfer:RUN@mim-10`.

What a word means, and what may follow it, is in the catalogue of attacks.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.row import AttackRow, Setting
from rpat_cli.attacks.rows import PARTS
from rpat_cli.errors import ConfigError, Problem, unknown
from rpat_cli.evaluation.spelling import meant_by
from rpat_cli.models import is_remote
from rpat_cli.registry import as_written
from rpat_cli.text import parse_number

SUITES: Mapping[str, tuple[str, ...]] = {
    "quick": ("clean", "pgd"),
    "standard": ("clean", "pgd", "autoattack"),
    "full": ("clean", "noise", "fgsm", "bim", "mim", "pgd", "cw-pgd", "pgd-50x10", "autoattack"),
}
"""The named suites."""

_CUSTOM = "autoattack:"
_TRANSFER = "transfer:"
_AUDIT = "audit:"
_FILE = "file:"
_MADE_BY = "pgd"
_COUNTED = re.compile(r"(?P<name>.+?)-(?P<count>[0-9]+)(?:[xX](?P<restarts>[0-9]+))?")

MAX_COUNT = 1_000_000
"""More steps, restarts or queries of one attack than anybody wants."""

_SETTING = re.compile(r"(?P<before>.+)@(?P<key>[A-Za-z_-]+)=(?P<value>[^@=/]*(?:/[0-9.]+)?)")
"""`...@eot=10`, `...@step_size=2/255` at the end of a word."""

_COUNT = re.compile(r"[0-9]{1,9}")

_NOTHING: Mapping[str, Setting] = MappingProxyType({})


@dataclass(frozen=True)
class AttackSpec:
    """One attack of a suite.

    `name` is a key of ATTACKS; `label` tells it from other uses of the same attack in tables and
    files; `settings` are what it is built with. Those of "transfer" also hold `source`, the run,
    checkpoint or other model that the images are made on, and `attack`, the key of ATTACKS that
    makes them.
    """

    name: str
    label: str
    settings: Mapping[str, Setting] = field(default_factory=dict)


def list_attacks() -> dict[str, str]:
    """Everything that can be written in a suite, with one line about it; named suites first."""
    suites = {}
    for name, members in SUITES.items():
        suites[name] = "suite: " + ",".join(map(_label_of, members))
    words = {word: row.description for word, row in ATTACKS.items() if not row.form}
    custom = {f"{_CUSTOM}apgd-ce+square": "parts of AutoAttack of your choice, five restarts"}
    forms = {row.form: row.description for row in ATTACKS.values() if row.form}
    return suites | words | custom | forms


IN_FLOAT32 = " in float32"
"""The end of the name of a stage that attacks again what a fast search left."""


def row_of_stage(attack: str, stage: str) -> AttackRow:
    """The row of a stage of the attack of that name.

    The stages of AutoAttack are its parts, those of a cascade words, and any other attack is its
    own only one.
    """
    if stage.endswith(IN_FLOAT32):
        return PARTS[stage.removesuffix(IN_FLOAT32)]
    if attack in ("autoattack", "audit"):
        return PARTS[stage]
    return row_of_word(split_settings(stage)[0]) or ATTACKS[stage]


def parse_word(
    word: str, wanted: Mapping[str, Setting] = _NOTHING, given: Mapping[str, Setting] = _NOTHING
) -> tuple[AttackSpec, set[str]]:
    """The spec of a word, and which of the `wanted` settings it took.

    `given` are settings that are written next to the word and final, like its counts; `wanted`
    fill in what word and `given` leave open. Raises `ConfigError`.
    """
    word = _prefix_spelled(word)
    if word.startswith(_TRANSFER):
        return _parse_transfer(word, wanted, given)
    if word.startswith(_CUSTOM):
        return _parse_custom(word, given), set()
    if word.startswith(_AUDIT):
        return _parse_audit(word, given), set()
    if word.startswith(_FILE):
        return _parse_file(word, given), set()
    name, counts = _split(word)
    row = ATTACKS[name]
    _check_given(row, word, given, counts)
    final = {**counts, **given}
    taken = {key: value for key, value in wanted.items() if key in row.takes and key not in final}
    settings = {**row.fixed, **row.defaults, **taken, **final}
    return AttackSpec(row.recorded_as or name, _label(row, settings), settings), set(taken)


def split_settings(word: str) -> tuple[str, dict[str, int | str]]:
    """A word without the settings that are written behind it: `pgd-20@eot=10` is `pgd-20` with
    {"eot": 10}.

    Raises `ConfigError` for one that is written twice.
    """
    rest, settings = word, dict[str, int | str]()
    while (match := _SETTING.fullmatch(rest)) is not None:
        key = match["key"].replace("-", "_")
        if key not in _known_settings() and rest.startswith(_TRANSFER):
            break  # the name of a run may look like that
        if key in settings:
            raise ConfigError(f"{word!r} says {key} twice.")
        value = match["value"]
        rest = match["before"]
        settings[key] = int(value) if _COUNT.fullmatch(value) else value
    return rest, dict(reversed(list(settings.items())))


def _known_settings() -> set[str]:
    return {setting for row in ATTACKS.values() for setting in row.takes}


def row_of_word(word: str) -> AttackRow | None:
    """The row whose settings a word may be given; None if there is none, or the word is wrong."""
    word = _prefix_spelled(word)
    if word.startswith(_TRANSFER):
        word = source_and_attack(word)[1]
    for prefix in (_AUDIT, _FILE):
        if word.startswith(prefix):
            return ATTACKS[prefix.removesuffix(":")]
    name, _ = _name_and_counts(word)
    return ATTACKS[name] if _is_word(name) else None


def _prefix_spelled(word: str) -> str:
    """The same word with `transfer:` or another prefix as it is written here."""
    for prefix in (_TRANSFER, _CUSTOM, _AUDIT, _FILE):
        if word.casefold().startswith(prefix):
            return prefix + word[len(prefix) :]
    return word


def _name_and_counts(word: str) -> tuple[str, re.Match[str] | None]:
    """The name of an attack, in its own spelling, and the counts behind it."""
    if _is_word(ATTACKS.spelled(word)):
        return ATTACKS.spelled(word), None
    match = _COUNTED.fullmatch(word)
    return ATTACKS.spelled(match["name"] if match else word), match


def _split(word: str) -> tuple[str, dict[str, Setting]]:
    """The name and the counts of a word: `pgd-50x10` is pgd with 50 steps and 10 restarts."""
    name, match = _name_and_counts(word)
    _check_name(name, word)
    if match is None:
        return name, {}
    row = ATTACKS[name]
    written = {row.counts: match["count"], "restarts": match["restarts"]}
    too_long = [text for text in written.values() if text and len(text) > len(str(MAX_COUNT))]
    if too_long:
        raise ConfigError(f"{word[:40]!r}: the count must be at most {MAX_COUNT:,}.")
    counts = {key: int(text) for key, text in written.items() if text}
    refused = [key for key in counts if key not in row.takes]
    if refused:
        raise ConfigError(f"{word!r}: {name} takes no {' and no '.join(refused)}; write {name!r}.")
    if not all(1 <= count <= MAX_COUNT for count in counts.values()):
        raise ConfigError(f"{word!r}: the count must be at least 1 and at most {MAX_COUNT:,}.")
    return name, dict(counts)


def _check_name(name: str, word: str) -> None:
    if name in SUITES:
        raise ConfigError(
            f"{name!r} is a suite, not one attack: write it alone, as a word of its own."
        )
    if _is_word(name):
        return
    meant = meant_by(word, _is_word)
    raise ConfigError(unknown("attack", word if meant else name, list(list_attacks()), meant=meant))


def _is_word(name: str) -> bool:
    return name in ATTACKS and not ATTACKS[name].form


def _check_given(
    row: AttackRow, word: str, given: Mapping[str, Setting], counts: Mapping[str, Setting]
) -> None:
    hint = f"It takes: {', '.join(row.takes)}." if row.takes else ""
    problems = [
        Problem(key, f"{row.name} takes no {key}.", hint=hint)
        for key in given
        if key not in row.takes
    ]
    problems += [
        Problem(key, f"{word!r} fixes it already.", hint="Leave one of them out.")
        for key in given
        if key in counts
    ]
    if problems:
        raise ConfigError(*problems)


def _parse_transfer(
    word: str, wanted: Mapping[str, Setting], given: Mapping[str, Setting]
) -> tuple[AttackSpec, set[str]]:
    """`transfer:RUN` or `transfer:RUN@ATTACK`."""
    source, attack = source_and_attack(word)
    if not source:
        raise ConfigError(
            f"{word!r} does not say on which model. Name a run or a checkpoint: transfer:runs/other"
        )
    made_by, used = parse_word(attack, wanted, given)
    if not ATTACKS[made_by.name].transfers:
        able = ", ".join(name for name, row in ATTACKS.items() if row.transfers)
        raise ConfigError(f"{word!r}: {attack!r} cannot transfer. Attacks that can: {able}.")
    by = "" if made_by.label == _label_of(_MADE_BY) else f"@{made_by.label}"
    settings = {"source": source, "attack": made_by.name, **made_by.settings}
    return AttackSpec("transfer", f"{_TRANSFER}{_name_of(source)}{by}", settings), used


def source_and_attack(word: str) -> tuple[str, str]:
    """What `transfer:SOURCE@ATTACK` names. An @ that is followed by a folder belongs to the
    source."""
    text = word.removeprefix(_TRANSFER)
    source, at, attack = text.rpartition("@")
    return (source, attack) if at and "/" not in attack else (text, _MADE_BY)


def absolute_source(source: str) -> str:
    """The same source, where a file or folder that exists is named by its absolute path, so that it
    is found from everywhere. One that could not be written in a suite stays as it is, and so does
    the name of a model elsewhere: a folder here may be called `hf`."""
    if is_remote(source):
        return source
    file, colon, rest = source.rpartition(":")
    for path, behind in ((source, ""), (file, colon + rest)):
        absolute = str(Path(path).absolute()) if path else ""
        if absolute and "," not in absolute and Path(absolute).exists():
            return absolute + behind
    return source


def with_sources(entry: Any, located: Callable[[str], str] = absolute_source) -> Any:
    """An entry of a suite, text or a mapping, where transfer attacks name what `located` makes of
    their sources: absolute paths."""
    if isinstance(entry, Mapping):
        return {**entry, "attack": with_sources(entry.get("attack"), located)}
    if not isinstance(entry, str):
        return entry
    return ",".join(_with_source(word, located) for word in entry.split(","))


def _with_source(word: str, located: Callable[[str], str]) -> str:
    prefixed = _prefix_spelled(word.strip())
    if not prefixed.startswith(_TRANSFER):
        return word
    source, _ = source_and_attack(prefixed)
    attack = prefixed.removeprefix(_TRANSFER)[len(source) :]
    return f"{_TRANSFER}{located(source)}{attack}"


def from_source(spec: AttackSpec, source: str) -> AttackSpec:
    """A transfer attack from the same model under another name, which its label tells, too, unless
    it is of the user's own words."""
    before = f"{_TRANSFER}{_name_of(str(spec.settings['source']))}"
    label = spec.label
    if label.startswith(before):
        label = f"{_TRANSFER}{_name_of(source)}{label.removeprefix(before)}"
    return replace(spec, label=label, settings={**spec.settings, "source": source})


def _name_of(source: str) -> str:
    """What a source is called in a label: its run, with the checkpoint if that is named."""
    path = PurePath(source)
    if path.parent.name == "checkpoints":
        return f"{path.parent.parent.name}/{path.stem}"
    return path.name or source


def _parse_custom(word: str, given: Mapping[str, Setting]) -> AttackSpec:
    """`autoattack:apgd-ce+square`."""
    if given:
        raise ConfigError(*(Problem(key, f"{_CUSTOM}... takes no {key}.") for key in given))
    known = list(PARTS)
    written = (part.strip() for part in word.removeprefix(_CUSTOM).split("+"))
    parts = tuple(as_written(part, known) for part in written)
    wrong = [part for part in parts if part not in known]
    if wrong:
        raise ConfigError(*(unknown("part of AutoAttack", part, known) for part in wrong))
    settings: dict[str, Setting] = {"version": "custom", "attacks": parts}
    return AttackSpec("autoattack", _CUSTOM + "+".join(parts), settings)


def _parse_audit(word: str, given: Mapping[str, Setting]) -> AttackSpec:
    """`audit:0.25`: the bound that is asked for, in points."""
    text = word.removeprefix(_AUDIT)
    try:
        width = float(parse_number(text))
    except (ValueError, TypeError):
        width = 0.0
    if not 0 < width <= 100:
        message = f"{word!r}: {text!r} must be points of accuracy, above 0 and at most 100."
        raise ConfigError(Problem("", message, hint="Example: audit:0.25"))
    _check_given(ATTACKS["audit"], word, given, {"width": width})
    return AttackSpec("audit", f"{_AUDIT}{width:g}", {"width": width, **given})


def _parse_file(word: str, given: Mapping[str, Setting]) -> AttackSpec:
    """`file:FILE.npz`."""
    path = word.removeprefix(_FILE).strip()
    if not path:
        raise ConfigError(Problem("", f"{word!r} names no file.", hint="Example: file:adv.npz"))
    _check_given(ATTACKS["file"], word, given, {"path": path})
    return AttackSpec("file", f"{_FILE}{PurePath(path).name}", {"path": path})


def _label_of(word: str) -> str:
    """The label of a word without overrides."""
    return _label(ATTACKS[word], ATTACKS[word].defaults) if word in ATTACKS else word


def _label(row: AttackRow, settings: Mapping[str, Setting]) -> str:
    """`pgd` with 50 steps and 10 restarts is "pgd-50x10"; without a count it is the name."""
    count = settings.get(row.counts)
    restarts = settings.get("restarts", 1)
    label = row.name if count is None else f"{row.name}-{count}"
    return label if restarts == 1 else f"{label}x{restarts}"
