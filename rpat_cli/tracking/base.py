"""What a tracker is told, and what it may do with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from rpat_cli.text import flattened

Status = Literal["finished", "stopped", "failed"]
"""How a session of a run has ended; one that was `stopped` can go on."""

Values = Mapping[str, float]
"""Numbers by name: `train/loss`, `validation/robust_acc`, `lr`; accuracies are fractions."""


@dataclass(frozen=True)
class Tracked:
    """The run that is tracked.

    `key` is random, and the same in every session of the run; `group` is the name of its sweep, ""
    without one. `recipe` holds plain builtins. `folder` is for whatever the tracker writes on this
    machine. `epochs`: how many the tracker knows already, of which those are kept.
    """

    name: str
    key: str
    folder: Path
    group: str = ""
    recipe: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    epochs: int = 0

    def settings(self) -> dict[str, Any]:
        """The recipe as one level of dotted keys, `method.name`; without what is not set."""
        return {
            key: value for key, value in flattened(self.recipe).items() if value not in (None, {})
        }


class Tracker:
    """Passes on the figures of one run; a method that is not overridden does nothing.

    Made with the text after the colon of `--track NAME:OPTION`, "" without one; `options` are those
    that it knows, with what they mean. Whatever a method raises is said once, as a warning, and the
    training goes on.

    `rewinds`: after `start` it holds nothing of the epochs after `run.epochs`, which a run that was
    killed does again. Of others each epoch is logged once only.
    """

    options: ClassVar[Mapping[str, str]] = MappingProxyType({})
    rewinds: ClassVar[bool] = False

    def __init__(self, option: str = "") -> None:
        self.option = option

    def start(self, run: Tracked) -> None:
        """A session of the run begins; what an earlier one has tracked is gone on with."""

    def log(self, epoch: int, values: Values) -> None:
        """An epoch is done; epochs count from 1."""

    def results(self, epoch: int, values: Values, files: Sequence[Path]) -> None:
        """Figures on the test set, `test/best/pgd-20`, measured after `epoch`; `files` hold them
        all."""

    def finish(self, status: Status) -> None:
        """The session ends."""
