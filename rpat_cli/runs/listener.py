"""Who is told how a run goes on. The engine and the runs print nothing themselves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rpat_cli.engine.callback import Callback


def _silent(_: Any) -> None:
    """The listener of a notebook that asked for nothing."""


@dataclass(frozen=True)
class Listener:
    """`say` takes lines of text, `callbacks` hear every step and epoch, `on_progress` hears of an
    evaluation."""

    say: Callable[[str], None] = _silent
    callbacks: "Sequence[Callback]" = ()
    on_progress: Callable[[Any], None] = _silent
