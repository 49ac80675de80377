"""Attacks by name: `ATTACKS[name](threat, **settings)` builds one.

Importing this imports no torch.
"""

from rpat_cli.attacks.catalogue import ATTACKS, TRAINING_ATTACKS

__all__ = ["ATTACKS", "TRAINING_ATTACKS"]
