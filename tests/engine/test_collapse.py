"""The collapse guard: what it calls a collapse, and warn, stop and rollback over a resume."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from loops import Recorder, make_loop, same, weights
from torch import nn

from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.threat import Threat
from rpat_cli.engine.callbacks import Validation
from rpat_cli.engine.collapse import CollapseGuard, Watched, has_collapsed
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.errors import ConfigError
from rpat_cli.methods import METHODS
from rpat_cli.recipe.layers import Layer, resolve

STRONGER = PGD(Threat("Linf", 8 / 255), 2 / 255, 3)
GOOD, BAD = Watched(0.6, 0.5), Watched(0.9, 0.02)


@pytest.mark.parametrize(
    ("single", "multi", "best", "collapsed"),
    [
        (0.90, 0.02, 0.50, True),
        (0.45, 0.06, 0.42, True),  # on the way down
        (0.80, 0.04, 0.04, True),  # collapsed from the start
        (0.60, 0.50, 0.52, False),  # an honest network
        (0.30, 0.02, 0.00, False),  # one that has not learned yet
        (0.20, 0.10, 0.50, False),  # a bad epoch is bad under one step, too
        (0.95, 0.60, 0.70, False),  # MNIST: wide, but half is left
    ],
)
def test_a_collapse_is_robust_against_one_step_only(
    single: float, multi: float, best: float, collapsed: bool
) -> None:
    assert has_collapsed(Watched(single, multi), best) == collapsed


class Told:
    """Measures what it is told for each epoch in turn, by how often it was asked in all."""

    def __init__(self, *seen: Watched, asked: int = 0) -> None:
        self.seen, self.asked = seen, asked

    def __call__(self, model: nn.Module) -> Watched:
        self.asked += 1
        return self.seen[min(self.asked, len(self.seen)) - 1]


def guarded(
    action: Any,
    *seen: Watched,
    asked: int = 0,
    epochs: int = 4,
    should_stop: Callable[[TrainLoop], bool] = lambda loop: False,
) -> tuple[TrainLoop, Recorder, list[str]]:
    said: list[str] = []
    recorder = Recorder()
    guard = CollapseGuard(Told(*seen, asked=asked), action, STRONGER, said.append)
    loop = make_loop(
        METHODS["pgd"](), epochs=epochs, callbacks=(guard, recorder), should_stop=should_stop
    )
    return loop, recorder, said


def collapsed_in(recorder: Recorder) -> list[int]:
    return [record.epoch for record in recorder.epochs if record.watched["collapsed"]]


def test_a_warning_changes_nothing_and_is_given_once() -> None:
    plain = make_loop(METHODS["pgd"](), epochs=4)
    plain.run()
    loop, recorder, said = guarded("warn", GOOD, BAD, BAD, GOOD)
    assert loop.run()
    assert same(weights(plain), weights(loop))
    assert collapsed_in(recorder) == [2, 3]
    assert recorder.epochs[1].watched == {"single_acc": 0.9, "multi_acc": 0.02, "collapsed": 1}
    (text,) = said
    assert text.startswith("the training collapsed in epoch 2 (catastrophic overfitting)")
    assert "90.0% are right under one step, 2.0% under many" in text


def test_stop_ends_the_training_after_the_epoch_also_when_it_is_resumed() -> None:
    loop, recorder, said = guarded("stop", GOOD, BAD)
    assert loop.run()  # done: what follows is the report
    assert [record.epoch for record in recorder.epochs] == [1, 2]
    assert said[0].endswith("it ends here")
    state = copy.deepcopy(loop.state_dict())
    again, recorder, _ = guarded("stop", GOOD)
    again.load_state_dict(state)
    assert again.run()
    assert recorder.epochs == []


def test_rollback_goes_back_an_epoch_and_on_with_the_stronger_attack() -> None:
    before, _, _ = guarded("warn", GOOD, should_stop=lambda loop: loop.epoch == 2)
    assert not before.run()
    state = copy.deepcopy(before.state_dict())
    loop, recorder, said = guarded("rollback", GOOD, GOOD, BAD, GOOD)
    assert loop.run()
    assert [record.epoch for record in recorder.epochs] == [1, 2, 3, 4]
    assert [len(recorder.steps), recorder.epochs[2].watched.get("rolled_back")] == [15, 1]
    assert collapsed_in(recorder) == []
    assert "in epoch 3" in said[0]
    assert "from the end of epoch 2" in said[0]
    # The same as two epochs, and two more with that attack.
    by_hand, _, _ = guarded("warn", GOOD)
    by_hand.load_state_dict(state)
    by_hand.attack = STRONGER
    assert by_hand.run()
    assert same(weights(loop), weights(by_hand))


def test_a_rollback_keeps_the_best_epoch() -> None:
    """It was forgotten, and a worse one took its place."""
    accuracies = iter((0.2, 0.5, 0.3, 0.4))
    bests: list[int] = []
    validation = Validation(
        lambda model: {"robust_acc": next(accuracies)},
        every=1,
        on_best=lambda suffix, model, record: bests.append(record.epoch),
    )
    guard = CollapseGuard(Told(GOOD, GOOD, BAD, GOOD), "rollback", STRONGER, print)
    assert make_loop(METHODS["pgd"](), epochs=4, callbacks=(guard, validation)).run()
    assert guard.rolled_back["epoch"] == 3
    assert bests == [1, 2]
    assert validation.best[""]["epoch"] == 2


@pytest.mark.parametrize(
    ("at", "asked"),
    # Within the epoch that collapses; within the one after, when it has been done again; between.
    [((2, 1), 2), ((3, 1), 4), ((2, 0), 2), ((3, 0), 4)],
)
def test_a_rollback_is_the_same_over_a_resume(at: tuple[int, int], asked: int) -> None:
    seen = (GOOD, GOOD, BAD, GOOD, GOOD)
    whole, _, _ = guarded("rollback", *seen)
    assert whole.run()
    stopped, _, _ = guarded(
        "rollback", *seen, should_stop=lambda loop: (loop.epoch, loop.step) >= at
    )
    assert not stopped.run()
    state = copy.deepcopy(stopped.state_dict())
    again, _, _ = guarded("rollback", *seen, asked=asked)
    again.load_state_dict(state)
    assert again.run()
    assert same(weights(whole), weights(again))


@pytest.mark.parametrize("seen", [(BAD,), (GOOD, BAD, BAD)])
def test_where_there_is_nothing_to_go_back_to_the_training_ends(seen: tuple[Watched, ...]) -> None:
    loop, recorder, said = guarded("rollback", *seen)
    assert loop.run()
    assert len(recorder.epochs) == max(1, len(seen) - 1)
    assert said[-1].endswith("it ends here")


@pytest.mark.parametrize(
    ("values", "action"),
    [
        ({}, "off"),
        ({"method": "n-fgsm"}, "warn"),
        ({"attack": "fgsm"}, "warn"),
        ({"method": "standard", "attack": "fgsm"}, "off"),
        ({"method": "standard", "on_collapse": "off"}, "off"),
        ({"method": "gat", "on_collapse": "rollback"}, "rollback"),
        ({"on_collapse": "stop"}, "stop"),
    ],
)
def test_single_steps_are_watched_unless_it_is_said_otherwise(
    values: dict[str, Any], action: str
) -> None:
    assert resolve([Layer("given", values)]).action_on_collapse() == action


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"method": "noise", "on_collapse": "warn"}, "no robustness to lose"),
        ({"method": "standard", "on_collapse": "stop"}, "no robustness to lose"),
        ({"method": "fgsm-pgi", "on_collapse": "rollback"}, "only PGD can be given more steps"),
    ],
)
def test_what_cannot_be_watched_or_strengthened_is_refused(
    values: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        resolve([Layer("given", values)])


def test_an_attack_that_cannot_be_built_hides_no_other_mistake() -> None:
    attack = {"name": "pgd", "start": "zero", "restarts": 2}
    values = {"attack": attack, "on_collapse": "rollback", "batch_size": 4, "accumulate": 9}
    with pytest.raises(ConfigError) as caught:
        resolve([Layer("given", values)])
    assert [problem.key for problem in caught.value.problems] == ["attack.restarts", "accumulate"]
