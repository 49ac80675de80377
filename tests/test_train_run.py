"""Resuming with more epochs: whether that is the training that one go would have been."""

from typing import Any

import pytest

from rpat_cli.recipe_io import Layer, resolve
from rpat_cli.train_run import _rates_differ


@pytest.mark.parametrize(
    ("schedule", "differ"),
    [
        ("constant", False),
        ({"name": "multistep", "milestones": [3]}, False),
        ({"name": "multistep", "milestones": [1]}, False),
        ("multistep", False),  # its rate falls in the last tenth: not within 4 of 4 epochs, nor of 10
        ("piecewise", True),
        ("cosine", True),
        ("linear", True),
        ("one-cycle", True),
    ],
)
def test_more_epochs_change_the_past_if_the_schedule_looks_at_the_end(schedule: Any, differ: bool) -> None:
    recipe = resolve([Layer("test", {"epochs": 10, "schedule": schedule})])
    assert _rates_differ(recipe, epochs_before=4, done=4) == differ
    assert not _rates_differ(recipe, epochs_before=10, done=4)
    assert not _rates_differ(recipe, epochs_before=4, done=0)
