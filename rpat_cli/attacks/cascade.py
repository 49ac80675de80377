"""Attacks one after another, each on the images that those before it have not broken."""

from dataclasses import dataclass

from rpat_cli.attacks.threat import Threat

BEST = ("apgd-dlr-20", "mm-3", "a3-8", "mm-9@steps=10", "apgd-t-60")
"""The cheap first: what breaks most images for a pass, then another loss toward three classes; A3,
whose starts differ in their logits and whose last steps are small, which finds what lies closest to
the boundary; nine classes, each from a start of its own; then AutoAttack's strongest part on what
is left."""

BEST_IN_L1 = ("apgd-dlr-20", "mm-3", "mm-9@steps=10", "apgd-t-80")
"""A3 is not defined there."""

STEPS_OF_BEST = 20 + 3 * 20 + 163.5 + 9 * 10 + 9 * 60
"""Gradient steps for an image that resists them all; 890 in L1."""


@dataclass(frozen=True)
class Cascade:
    """`words` of the language of `--attack`; what runs an evaluation makes a stage of each."""

    threat: Threat
    words: tuple[str, ...]


def best(threat: Threat) -> Cascade:
    """For models that mask no gradients: an eighth of AutoAttack's passes."""
    return Cascade(threat, BEST_IN_L1 if threat.norm == "L1" else BEST)
