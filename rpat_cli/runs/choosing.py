"""Which of many runs, in which order: `--filter "robust_acc>=0.4"` and `--sort -robust_acc`."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from rpat_cli.errors import ConfigError, Problem, did_you_mean, shortened
from rpat_cli.runs.listing import RunSummary
from rpat_cli.text import flattened, parse_number, show_number

HIDDEN = ("recipe", "results", "remarks")
COLUMNS = ("name", *(each.name for each in fields(RunSummary) if each.name not in HIDDEN))
"""What a run can be asked for besides the keys of its recipe."""

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
CONTAINS = "~"

_FORM = re.compile(rf"\s*([\w.-]+?)\s*({'|'.join([*OPERATORS, CONTAINS])})=?\s*(.*?)\s*")

EXAMPLES = "Examples: method=trades+ra, robust_acc>=0.4, name~cifar, optimizer.lr=0.1"


@dataclass(frozen=True)
class Condition:
    """`key` of a run compared with `value`."""

    key: str
    operation: str
    value: str

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """From KEY=VALUE, KEY>=VALUE, KEY~TEXT (contains) and so on. Raises `ConfigError`."""
        match = _FORM.fullmatch(text)
        if match is None:
            message = f"{shortened(text)!r} is not of the form KEY=VALUE."
            raise ConfigError(Problem("", message, "--filter", EXAMPLES))
        return cls(match[1], match[2], match[3])

    def holds(self, run: RunSummary) -> bool:
        """A run that lacks the value does not meet any condition but !=."""
        found = value_of(run, self.key)
        if found is None:
            return self.operation == "!="
        if self.operation == CONTAINS:
            return self.value.lower() in str(found).lower()
        wanted = _as_kind_of(found, self.value)
        if wanted is None:
            return self.operation == "!="
        return OPERATORS[self.operation](found, wanted)


def choose_runs(
    runs: Sequence[RunSummary], filters: Sequence[str] = (), sort: str = ""
) -> list[RunSummary]:
    """The runs that meet every condition, sorted by a key; "-robust_acc" is from high to low. Runs
    without the value come last.

    A key is a field of `RunSummary` or of the recipe. Raises `ConfigError` with every mistake.
    """
    conditions: list[Condition] = []
    problems: list[Problem] = []
    for text in filters:
        try:
            conditions.append(Condition.parse(text))
        except ConfigError as error:
            problems += error.problems
    problems += [
        problem
        for flag, key in (*(("--filter", each.key) for each in conditions), ("--sort", sort))
        if (problem := _unknown_key(runs, flag, key.removeprefix("-")))
    ]
    if problems:
        raise ConfigError(*problems, title="these runs cannot be chosen" if problems[1:] else "")
    chosen = [run for run in runs if all(each.holds(run) for each in conditions)]
    return _sorted(chosen, sort) if sort else chosen


def _sorted(runs: Sequence[RunSummary], sort: str) -> list[RunSummary]:
    key = sort.removeprefix("-")
    have = [run for run in runs if value_of(run, key) is not None]
    # Numbers and texts under one key, in runs of different versions, cannot be compared.
    numbers = all(isinstance(value_of(run, key), int | float) for run in have)
    ordered = sorted(
        have,
        key=lambda run: value_of(run, key) if numbers else str(value_of(run, key)),
        reverse=sort.startswith("-"),
    )
    return [*ordered, *(run for run in runs if value_of(run, key) is None)]


def _unknown_key(runs: Sequence[RunSummary], flag: str, key: str) -> Problem | None:
    """A key that no run has is a slip; but without any run nothing is known."""
    if not key or not runs or key in COLUMNS:
        return None
    if any(_has(run.recipe, key) for run in runs):
        return None
    known = [*COLUMNS, *(each for run in runs for each in flattened(run.recipe))]
    near = did_you_mean(key, dict.fromkeys(known))
    allowed = f"Allowed: {', '.join(COLUMNS)}, and keys of the recipe such as optimizer.lr."
    return Problem("", f"no run has {shortened(key)!r}.", flag, f"{near} {allowed}".strip())


def value_of(run: RunSummary, key: str) -> Any:
    """A field of the run or of its recipe; None if it has none."""
    if key in COLUMNS:
        return getattr(run, key)
    found: Any = run.recipe
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _has(recipe: Mapping[str, Any], key: str) -> bool:
    found: Any = recipe
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return False
        found = found[part]
    return True


def _as_kind_of(found: Any, text: str) -> bool | float | str | None:
    """The text read as what it is to be compared with; None if it cannot be."""
    if isinstance(found, bool):
        return {"true": True, "false": False}.get(text.lower())
    if isinstance(found, int | float):
        try:
            return float(parse_number(text))
        except ValueError:
            return None
    return text if isinstance(found, str) else None


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys of two recipes whose values differ, each with both; None where one lacks it."""
    one, other = flattened(a), flattened(b)
    keys = dict.fromkeys([*one, *other])
    pairs = {key: (one.get(key), other.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def shown(value: Any) -> str:
    """A value of a recipe in a line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return show_number(value) if isinstance(value, float) else str(value)
