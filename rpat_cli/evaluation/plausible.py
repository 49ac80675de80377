"""Is a clean accuracy what a trained model has, or is the model given other images than it was
trained on?"""

from rpat_cli.evaluation.statistics import Accuracy
from rpat_cli.text import percent

NEAR = 0.1
"""An accuracy is near chance in the first tenth of the way from chance to 1."""

FAR_BELOW = 0.1
"""Test images are never as much harder than those that the training was measured on."""


def is_near_chance(accuracy: float, classes: int) -> bool:
    chance = 1 / max(2, classes)
    return accuracy < chance + NEAR * (1 - chance)


def implausible(accuracy: Accuracy, classes: int, recorded: float | None) -> str:
    """What is wrong with the clean accuracy of a trained model, `recorded` in its training; "" if
    nothing is."""
    found = f"clean accuracy is {percent(accuracy.value)} %"
    if recorded is not None:
        if accuracy.interval[1] < recorded - FAR_BELOW:
            return f"{found}, far below the {percent(recorded)} % that its training recorded"
        return ""
    if is_near_chance(accuracy.value, classes):
        return f"{found}, near chance ({percent(1 / classes)} % for {classes} classes)"
    return ""
