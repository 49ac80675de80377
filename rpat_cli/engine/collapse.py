"""The collapse guard: training on single-step attacks can, within an epoch, become robust against
that one step and against nothing else.

"Catastrophic overfitting": Wong, Rice & Kolter, ICLR 2020, arXiv 2001.03994. They watch PGD's
accuracy on one training batch, and keep the epoch before it falls; that a network recovers if it is
trained on a multi-step attack is from Li et al. 2020, arXiv 2006.03089.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from rpat_cli.attacks.base import Attack
from rpat_cli.engine import OnCollapse
from rpat_cli.engine.callback import Callback
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.records.metrics import EpochRecord


@dataclass(frozen=True)
class Watched:
    """Accuracies (fractions) under one step and under many, on the same few images."""

    single_acc: float
    multi_acc: float


Measure = Callable[[nn.Module], Watched]

GAP = 0.3
"""Honest networks are a few points less robust against many steps than against one."""

ALMOST_NOTHING = 0.05


def has_collapsed(watched: Watched, best: float) -> bool:
    """Whether many steps break what one step does not: at least `GAP` more, more than half of it,
    and more than half of what was robust before (`best`), or nearly all."""
    single, multi = watched.single_acc, watched.multi_acc
    is_wide = single - multi >= GAP and multi <= single / 2
    return is_wide and (multi <= best / 2 or multi <= ALMOST_NOTHING)


@dataclass
class CollapseGuard(Callback):
    """Looks after every epoch, and on a collapse warns, ends the training after this epoch, or goes
    back to before it.

    Going back restores everything as it was after the last good epoch, but from there on the
    training attack is `stronger`, of many steps: as it was, it would collapse again. A second
    collapse, or one in the first epoch, ends the training. `say` tells people.
    """

    measure: Measure
    action: OnCollapse
    stronger: Attack
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.best = 0.0
        self.collapsed = False
        self.rolled_back: dict[str, float] = {}
        self._good: dict[str, Any] | None = None
        self._is_now = True

    def on_start(self, loop: TrainLoop) -> None:
        loop.ended = self.collapsed and self.action != "warn"
        if self.rolled_back:
            self._strengthen(loop)
        elif self.action == "rollback" and self._good is None and loop.epoch:
            self._keep(loop)

    def on_step(self, loop: TrainLoop, record: Any) -> None:  # noqa: ARG002
        self._is_now = False

    def accepts(self, loop: TrainLoop, record: EpochRecord) -> bool:
        watched = self.measure(loop.model)
        collapses = has_collapsed(watched, self.best)
        if collapses and self._can_go_back:
            self._go_back(loop, watched)
            return False
        if collapses and not self.collapsed:
            loop.ended = self.action != "warn"
            self.say(collapse_in_words(record.epoch, watched, ended=loop.ended))
        self.collapsed = self.collapsed or collapses
        self.best = max(self.best, watched.multi_acc)
        record.watched = {**asdict(watched), "collapsed": float(collapses)}
        if self.rolled_back.get("epoch") == record.epoch:
            record.watched["rolled_back"] = 1.0
        if self.action == "rollback" and not self.rolled_back:
            self._keep(loop)
        return True

    @property
    def _can_go_back(self) -> bool:
        return self._good is not None and not self.rolled_back

    def _keep(self, loop: TrainLoop) -> None:
        """Remember the state of now, which is whole epochs old."""
        self._is_now = True
        self._good = _copied(loop.state_dict())

    def _go_back(self, loop: TrainLoop, watched: Watched) -> None:
        assert self._good is not None
        epoch = loop.epoch
        # What was kept is older than the callbacks of its own epoch, such as the best so far; as
        # they are now, they end there, since none of them has seen the one that collapsed.
        callbacks = loop.state_dict()["callbacks"]
        loop.load_state_dict({**_copied(self._good), "callbacks": callbacks})
        self.rolled_back = {"epoch": epoch, **asdict(watched)}
        self._good = None
        self._strengthen(loop)
        self.say(
            f"{collapse_in_words(epoch, watched)}; going on from the end of epoch {loop.epoch} "
            "with a training attack of many steps"
        )

    def _strengthen(self, loop: TrainLoop) -> None:
        loop.attack, loop.late_attack = self.stronger, None

    def state_dict(self) -> dict[str, Any]:
        state = {
            "best": self.best,
            "collapsed": self.collapsed,
            "rolled_back": dict(self.rolled_back),
        }
        # Within an epoch, a resumed training may still have to go back to where that began.
        if self._good is not None and not self._is_now:
            state["good"] = self._good
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best = float(state.get("best", 0.0))
        self.collapsed = bool(state.get("collapsed", False))
        self.rolled_back = dict(state.get("rolled_back", {}))
        self._good = state.get("good")


def collapse_in_words(epoch: int, watched: Watched, *, ended: bool = False) -> str:
    """What has happened in an epoch, which counts from 1."""
    text = (
        f"the training collapsed in epoch {epoch} (catastrophic overfitting): on a few validation "
        f"images {watched.single_acc:.1%} are right under one step, {watched.multi_acc:.1%} under "
        "many"
    )
    return f"{text}; it ends here" if ended else text


def _copied(content: Any) -> Any:
    """Nested mappings and lists of tensors and builtins, on the CPU, sharing no memory."""
    if isinstance(content, torch.Tensor):
        return content.detach().cpu().clone()
    if isinstance(content, Mapping):
        return {key: _copied(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(_copied(value) for value in content)
    return content
