"""Attacks on tensors: `PGD(eps=8/255, steps=20)(model, x, y)` returns adversarial images."""

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.base import Attack
from rpat_cli.attacks.threat import Threat
from rpat_cli.calls.attacks import APGD, FGSM, PGD, AutoAttack, attack, names, training_attack

__all__ = [
    "APGD",
    "ATTACKS",
    "FGSM",
    "PGD",
    "Attack",
    "AutoAttack",
    "Threat",
    "attack",
    "names",
    "training_attack",
]
