"""How a run reports its progress. The engine and the runs print nothing themselves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rpat_cli.engine.callback import Callback
    from rpat_cli.tracking import Choice


def _silent(_: Any) -> None:
    """Ignores what it is given."""


@dataclass(frozen=True)
class Listener:
    """What a run calls as it goes on; by default nothing.

    `say` takes lines of text, `callbacks` are those of the training loop, `on_progress` takes the
    progress of an evaluation, `trackers` get the figures (`rpat_cli.runs.tracked`).
    """

    say: Callable[[str], None] = _silent
    callbacks: "Sequence[Callback]" = ()
    on_progress: Callable[[Any], None] = _silent
    trackers: "Sequence[Choice]" = ()
