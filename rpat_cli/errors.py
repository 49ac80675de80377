"""What can go wrong, in words for the person at the keyboard.

Every error that a user can cause is an `RpatError`: the command line prints its message and leaves
with its exit code; a traceback is shown for bugs only (or with `RPAT_DEBUG=1`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar


class RpatError(Exception):
    """Base of every error whose message is meant to be read by a user."""

    exit_code: ClassVar[int] = 1


@dataclass(frozen=True)
class Problem:
    """One mistake: where it stands, what was given, what would be right."""

    key: str
    message: str
    source: str = ""
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.source}: " if self.source else ""
        key = f"{self.key}: " if self.key else ""
        hint = f" {self.hint}" if self.hint else ""
        return f"{where}{key}{self.message}{hint}"


class ConfigError(RpatError):
    """A recipe, a flag or an argument that cannot be meant; lists every problem at once."""

    exit_code = 2

    def __init__(self, *problems: Problem | str, title: str = "") -> None:
        self.problems = [
            p if isinstance(p, Problem) else Problem(key="", message=p) for p in problems
        ]
        heading = title or (
            f"{len(self.problems)} mistakes in the recipe" if len(self.problems) > 1 else ""
        )
        lines = [f"  {p}" if heading else str(p) for p in self.problems]
        super().__init__("\n".join(([f"{heading}:"] if heading else []) + lines))


class DataError(RpatError):
    """A data set that is missing, damaged or of another shape than announced."""


class CheckpointError(RpatError):
    """A checkpoint that cannot be read, or that belongs to another model."""


class RunFolderError(RpatError):
    """A run folder that is missing, taken, or cannot be written."""


class DivergenceError(RpatError):
    """The loss left the finite numbers: the run is stopped, nothing is silently dropped."""


class MissingExtraError(RpatError):
    """An optional dependency that this feature needs is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs an optional dependency. Install it with: pip install 'rpat[{extra}]'"
        )


class EngineError(RpatError):
    """A cluster that cannot be reached, or that does not take a job."""


class Interrupted(RpatError):  # noqa: N818  (not a failure: everything is saved)
    """The user or the system asked to stop, and all that resuming needs has been saved."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # 130 for Ctrl-C, 75 for any other signal


def did_you_mean(given: str, choices: Iterable[str]) -> str:
    """`"Did you mean 'trades'?"`, or an empty string when nothing is near."""
    by_lower = {choice.lower(): choice for choice in choices}
    near = get_close_matches(given.lower(), by_lower, n=1, cutoff=0.6)
    return f"Did you mean {by_lower[near[0]]!r}?" if near else ""


def unknown(kind: str, given: str, choices: Sequence[str]) -> str:
    """One sentence for a name that is not in a list: what was given, what is allowed, what is
    near."""
    parts = [
        f"unknown {kind} {given!r}.",
        did_you_mean(given, choices),
        f"Allowed: {', '.join(choices)}.",
    ]
    return " ".join(part for part in parts if part)
