"""Every error that a user can cause, as an `RpatError`: the command line prints its message and
exits with its exit code. A traceback is shown for bugs only, or with `RPAT_DEBUG=1`.

A message says what is wrong, what is allowed, and what to do next.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar

MAX_LISTED = 50
"""Mistakes that one message lists: a file may hold thousands."""


class RpatError(Exception):
    """Base class of the errors whose message is for the user."""

    exit_code: ClassVar[int] = 1


def without_pastes(message: str) -> str:
    """The message, where thousands of characters without a space, which were pasted by mistake, are
    cut short."""
    return re.sub(r"\S{1000,}", _beginning, message)


def _beginning(match: re.Match[str]) -> str:
    return f"{match[0][:LONGEST]}..."


@dataclass(frozen=True)
class Problem:
    """One mistake in a recipe, a flag or an argument.

    `key`: the recipe key or flag. `message`: what is wrong, as the rest of a sentence that begins
    with the key. `source`: the file or command line it comes from. `hint`: what to do.
    """

    key: str
    message: str
    source: str = ""
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.source}: " if self.source else ""
        key = f"{self.key}: " if self.key else ""
        hint = f" {self.hint}" if self.hint else ""
        return without_pastes(f"{where}{key}{self.message}{hint}")


class ConfigError(RpatError):
    """Mistakes in a recipe, in flags or in arguments: all of them at once."""

    exit_code = 2

    def __init__(self, *problems: Problem | str, title: str = "") -> None:
        self.problems = [
            p if isinstance(p, Problem) else Problem(key="", message=p) for p in problems
        ]
        if not title and len(self.problems) > 1:
            title = f"{len(self.problems)} mistakes in the recipe"
        lines = [str(problem) for problem in self.problems[:MAX_LISTED]]
        if len(self.problems) > MAX_LISTED:
            lines.append(f"... and {len(self.problems) - MAX_LISTED} more")
        if title:
            lines = [f"{title}:", *(f"  {line}" for line in lines)]
        super().__init__("\n".join(lines))


class Mistakes:
    """What checks that know nothing of each other have found, to be raised as one error.

    mistakes = Mistakes()
    with mistakes.gathered():
        jobs = parse_jobs(text)
    mistakes.check()
    """

    def __init__(self) -> None:
        self._errors: list[ConfigError] = []

    def __bool__(self) -> bool:
        return bool(self._errors)

    def add(self, problem: Problem) -> None:
        self._errors.append(ConfigError(problem))

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """A `ConfigError` that ends this block is kept, and the next check has its turn."""
        try:
            yield
        except ConfigError as error:
            self._errors.append(error)

    def check(self) -> None:
        """Raise `ConfigError` if there are any."""
        if len(self._errors) == 1:
            raise self._errors[0]
        if self:
            problems = dict.fromkeys(each for error in self._errors for each in error.problems)
            title = f"{len(problems)} mistakes" if len(problems) > 1 else ""
            raise ConfigError(*problems, title=title)


class DataError(RpatError):
    """A data set that is missing, damaged, or has another shape than expected."""


class CheckpointError(RpatError):
    """A checkpoint that cannot be read, or that belongs to another model."""


class RunFolderError(RpatError):
    """A run folder that is missing, in use, or cannot be written to."""


class DivergenceError(RpatError):
    """The loss is not finite: the run is stopped, since no term is ever dropped silently."""


class MissingExtraError(RpatError):
    """An optional dependency that this feature needs is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs an optional dependency. Install it with: pip install 'rpat[{extra}]'"
        )


class UserCodeError(RpatError):
    """What a user brought has failed: a model, method, attack, data set or plugin.

    It is raised from the error itself, and its message names the line of the user's code.
    """


class EngineError(RpatError):
    """A cluster that cannot be reached, or that rejects a job."""


class LostRankError(RpatError):
    """Another process of the same torchrun has ended, or cannot be reached."""


class Interrupted(RpatError):  # noqa: N818  (not a failure: everything is saved)
    """A signal asked to stop, and everything needed to resume has been saved.

    `exit_code` is 130 for Ctrl-C and 75 for any other signal.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # elsewhere a constant of the class


LONGEST = 200
"""Characters of a wrong name or value that a message repeats."""


def shortened(text: str) -> str:
    """The text, or its beginning with an ellipsis."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def did_you_mean(given: str, choices: Iterable[str]) -> str:
    """`"Did you mean 'trades'?"`, or an empty string if no choice is similar."""
    if len(given) > LONGEST:  # no choice is, and comparing takes long
        return ""
    by_lower = {choice.lower(): choice for choice in choices}
    near = get_close_matches(given.lower(), by_lower, n=1, cutoff=0.6)
    return f"Did you mean {by_lower[near[0]]!r}?" if near else ""


def unknown(
    kind: str,
    given: str,
    choices: Sequence[str],
    *,
    meant: str = "",
    names: Iterable[str] | None = None,
) -> str:
    """The message for a name that is not among the choices: what was given, what is similar (or
    `meant`, where that is known), what is allowed. `names`: what it may be similar to, where the
    choices are no names but forms of them."""
    parts = [
        f"unknown {kind} {shortened(given)!r}.",
        f"Did you mean {meant!r}?"
        if meant
        else did_you_mean(given, choices if names is None else names),
        f"Allowed: {', '.join(choices)}.",
    ]
    return " ".join(part for part in parts if part)
