"""Trackers: where else the figures of a run go, besides its folder.

They are named with `--track`, and are no key of a recipe: what is trained does not depend on them.
An installed package announces its own under the entry-point group `rpat.trackers`, a plugin adds
them with `TRACKERS.add(name, class)`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from rpat_cli.errors import ConfigError, Mistakes, Problem, unknown
from rpat_cli.registry import Registry
from rpat_cli.user_code import is_plugin_package

if TYPE_CHECKING:
    from rpat_cli.tracking.base import Tracker

FLAG = "--track"
GROUP = "rpat.trackers"

TRACKERS: Registry[type["Tracker"]] = Registry(
    "tracker",
    {
        "csv": "rpat_cli.tracking.csv_files:CsvFiles",
        "mlflow": "rpat_cli.tracking.mlflow_run:MlflowRun",
        "tensorboard": "rpat_cli.tracking.tensorboard_events:TensorBoardEvents",
        "wandb": "rpat_cli.tracking.wandb_run:WandbRun",
    },
)


@dataclass(frozen=True)
class Choice:
    """A tracker by its name, and what is asked of it: `wandb:online`."""

    name: str
    option: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.option}" if self.option else self.name


@cache
def load_announced() -> None:
    """Add the trackers of installed packages, not imported yet. Raises `ConfigError` for a name
    that is taken."""
    for point in entry_points(group=GROUP):
        is_plugin_package(point.value)
        TRACKERS.add(point.name, point.value)


def chosen(texts: str | Iterable[str] | None, source: str = FLAG) -> tuple[Choice, ...]:
    """The trackers that `--track` names, each once: one word or several, with commas between them.

    Plugins must be loaded already. Raises `ConfigError`, with all mistakes.
    """
    load_announced()
    given = [texts] if isinstance(texts, str) else texts or ()
    if not isinstance(given, Iterable) or not all(isinstance(text, str) for text in given):
        hint = f"Name them as text: {', '.join(TRACKERS)}"
        raise ConfigError(Problem("", f"{texts!r} names no trackers.", source, hint))
    words = [word.strip() for text in given for word in text.split(",")]
    choices: dict[str, Choice] = {}
    mistakes = Mistakes()
    for word in filter(None, words):
        name, _, option = word.partition(":")
        choice = Choice(TRACKERS.spelled(name), option)
        if choice.name not in TRACKERS:
            mistakes.add(Problem("", TRACKERS.refusal(name, TRACKERS.forms()), source))
        elif choices.setdefault(choice.name, choice) != choice:
            message = f"{choices[choice.name]} cannot be combined with {choice}."
            mistakes.add(Problem("", message, source, "Leave one of them out."))
        elif not TRACKERS.is_added(choice.name):  # importing one of a user may fail
            options = TRACKERS[choice.name].options
            if option and option not in options:
                message = f"{choice.name} takes no option."
                if options:
                    message = unknown(f"option of {choice.name}", option, list(options))
                mistakes.add(Problem("", message, source))
    mistakes.check()
    return tuple(choices.values())


def as_flags(choices: Sequence[Choice]) -> str:
    """` --track csv,wandb:online`, for a command that goes on with a run; "" without trackers."""
    return f" {FLAG} {','.join(map(str, choices))}" if choices else ""
