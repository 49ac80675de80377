"""Losses for a training loop of your own: `trades(model, x, y, eps=8/255).backward()`."""

from rpat_cli.attacks.losses import cross_entropy, margin
from rpat_cli.calls.losses import loss_of, mart, pgd, standard, trades
from rpat_cli.methods.losses import cosine_distance, jsd, kl, kl_per_sample, mse

__all__ = [
    "cosine_distance",
    "cross_entropy",
    "jsd",
    "kl",
    "kl_per_sample",
    "loss_of",
    "margin",
    "mart",
    "mse",
    "pgd",
    "standard",
    "trades",
]
