"""Attacks one after another, each on the images that those before it have not broken."""

from dataclasses import dataclass

from rpat_cli.attacks.threat import Threat

BEST = ("apgd-dlr-20", "mm-3@steps=10", "apgd-t")
"""The cheap first: what breaks most images for a pass, then another loss toward three classes, then
AutoAttack's strongest part on what is left."""

STEPS_OF_BEST = 20 + 3 * 10 + 9 * 100
"""Gradient steps for an image that resists all three."""


@dataclass(frozen=True)
class Cascade:
    """`words` of the language of `--attack`; what runs an evaluation makes a stage of each."""

    threat: Threat
    words: tuple[str, ...]


def best(threat: Threat) -> Cascade:
    """As strong as AutoAttack on models that mask no gradients, in an eighth of its passes."""
    return Cascade(threat, BEST)
