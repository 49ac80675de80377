"""What could still be gained in a training step of a small network.

The step with its own attack, with the same attack in as few operations as torch has, and with the
attack's bare passes, in units of the passes of the whole step (the floor of `rpat bench`).

python tests/benchmarks/attack_by_hand.py [--data cifar10] [--batch 64] [--seconds 60]

small-cnn, `pgd --ra`, exact, on random images where the data set is not at hand.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.side_effects import attack_mode
from rpat_cli.benchmark.race import Spread, race
from rpat_cli.benchmark.training import OurSteps
from rpat_cli.hardware import keep_freed_memory
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.runs.build import architecture_for, compute_for
from rpat_cli.runs.estimate import data_or_random


def by_hand(attack: PGD, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """PGD in Linf in as few operations as there can be."""
    eps = attack.threat.eps
    lower, upper = (x - eps).clamp_(0, 1), (x + eps).clamp_(0, 1)
    x_adv = torch.empty_like(x).uniform_(-eps, eps).add_(x).clamp_(0, 1)
    with attack_mode(model) as network:
        for _ in range(attack.steps):
            x_adv.requires_grad_()
            loss = F.cross_entropy(network(x_adv), y, reduction="sum")
            (grad,) = torch.autograd.grad(loss, x_adv)
            x_adv = torch.add(x_adv.detach(), grad.sign_(), alpha=attack.step_size)
            torch.maximum(torch.minimum(x_adv, upper, out=x_adv), lower, out=x_adv)
    return x_adv


def passes_alone(attack: PGD, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with attack_mode(model) as network:
        for _ in range(attack.steps):
            at = x.detach().requires_grad_()
            torch.autograd.grad(network(at).sum(), at)
    return x


@dataclass(frozen=True)
class Instead:
    """Attacks as `function` does in place of `attack`."""

    attack: PGD
    function: Callable[[PGD, nn.Module, Tensor, Tensor], Tensor]

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return self.function(self.attack, model, x, y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    keep_freed_memory()  # as the command does
    values = {"data": given.data, "batch_size": given.batch, "model": "small-cnn", "ra": True}
    values |= {"method": "pgd", "precision": "fp32"}
    recipe = resolve([Layer("attack_by_hand", values)])
    data, _, _ = data_or_random(recipe)
    architecture = architecture_for(recipe, data)
    own = OurSteps("its own", recipe, data, compute_for(recipe, architecture), architecture)
    floor = replace(own.floor(), name="floor")
    contestants = [own, floor]
    for name, function in (("by hand", by_hand), ("passes alone", passes_alone)):
        other = replace(own, name=name)
        assert isinstance(other.loop.attack, PGD)
        other.loop.attack = Instead(other.loop.attack, function)
        contestants.append(other)
    times = race(contestants, seconds=given.seconds, least=3)
    for name in ("its own", "by hand", "passes alone"):
        step, ratio = Spread.of(times[name].seconds), times[name].over(times["floor"])
        print(
            f"{name:12}  {1000 * step.median:6.1f} ms  "
            f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] of the floor, n {ratio.n}"
        )


if __name__ == "__main__":
    main()
