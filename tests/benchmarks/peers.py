"""PGD and AutoAttack of other libraries against ours, at equal steps, on a model of yours.

    pip install --group benchmarks
    python tests/benchmarks/peers.py runs/my-run --images 200 --steps 20 --autoattack

Not part of the tests. The attacks take turns in one process (`rpat_cli.benchmark.race`), all on the
same images, in one batch, from a random start. What each returns is judged alike: an image counts
as robust if the model is still right on it, or if it left the ball or the pixel box.
"""

import argparse
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import foolbox
import numpy as np
import torch
import torchattacks
from art.attacks.evasion import ProjectedGradientDescentPyTorch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from rpat_cli.attacks.autoattack import AutoAttack
from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.side_effects import frozen, own_randomness
from rpat_cli.attacks.threat import Threat
from rpat_cli.benchmark.race import Spread, race
from rpat_cli.runs.environment import environment
from rpat_cli.runs.target import open_target

Perturb = Callable[[nn.Module, Tensor, Tensor, Threat, int], Tensor]

STEP = 0.25
"""Of eps."""


def ours(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, steps: int) -> Tensor:
    with frozen(model) as model:
        return PGD(threat, STEP * threat.eps, steps)(model, x, y)


def ours_dropping(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, steps: int) -> Tensor:
    """As `rpat eval` runs it: an image that is broken takes no further step."""
    with frozen(model) as model:
        return PGD(threat, STEP * threat.eps, steps, keep="worst")(model, x, y)


def of_torchattacks(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, steps: int) -> Tensor:
    attack = torchattacks.PGD(model, eps=threat.eps, alpha=STEP * threat.eps, steps=steps)
    x_adv: Tensor = attack(x, y)
    return x_adv


def of_foolbox(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, steps: int) -> Tensor:
    attack = foolbox.attacks.LinfPGD(rel_stepsize=STEP, steps=steps)
    bounded = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
    _, x_adv, _ = attack(bounded, x, y, epsilons=threat.eps)
    return x_adv


def of_art(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, steps: int) -> Tensor:
    classes = model(x[:1]).shape[1]
    classifier = PyTorchClassifier(
        model,
        nn.CrossEntropyLoss(),
        tuple(x.shape[1:]),
        classes,
        clip_values=(0.0, 1.0),
        device_type="gpu" if x.device.type == "cuda" else "cpu",
    )
    attack = ProjectedGradientDescentPyTorch(
        classifier,
        eps=threat.eps,
        eps_step=STEP * threat.eps,
        max_iter=steps,
        num_random_init=1,
        batch_size=len(x),
        verbose=False,
    )
    return torch.from_numpy(attack.generate(x.cpu().numpy(), y.cpu().numpy())).to(x)


def our_autoattack(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, steps: int) -> Tensor:
    ensemble = AutoAttack(threat).on(model, x, y)
    x_adv, left = x.clone(), torch.arange(len(x), device=x.device)
    for name in ensemble.names:
        x_adv[left] = ensemble.perturb(name, x[left], y[left])
        with torch.no_grad():
            left = left[model(x_adv[left]).argmax(1) == y[left]]
        if not len(left):
            break
    return x_adv


def torchattacks_autoattack(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, steps: int
) -> Tensor:
    classes = model(x[:1]).shape[1]
    attack = torchattacks.AutoAttack(model, eps=threat.eps, n_classes=classes, seed=0)
    x_adv: Tensor = attack(x, y)
    return x_adv


PEERS: dict[str, Perturb] = {
    "rpat": ours,
    "rpat, dropping": ours_dropping,
    "torchattacks": of_torchattacks,
    "foolbox": of_foolbox,
    "ART": of_art,
}
AUTOATTACKS: dict[str, Perturb] = {
    "rpat": our_autoattack,
    "torchattacks": torchattacks_autoattack,
}


@dataclass
class Peer:
    """A contestant; `robust_acc` is of its last turn."""

    name: str
    perturb: Perturb
    model: nn.Module
    x: Tensor
    y: Tensor
    threat: Threat
    steps: int
    robust_acc: float = 0.0

    @property
    def device(self) -> torch.device:
        return self.x.device

    def run(self, steps: int) -> None:
        for _ in range(steps):
            with own_randomness(self.device, seed=0):
                x_adv = self.perturb(self.model, self.x, self.y, self.threat, self.steps).detach()
        outside = (x_adv - self.x).abs().amax((1, 2, 3)) > self.threat.eps + 1e-6
        outside |= (x_adv.amin((1, 2, 3)) < 0) | (x_adv.amax((1, 2, 3)) > 1)
        with torch.no_grad():
            right = self.model(x_adv).argmax(1) == self.y
            clean = self.model(self.x).argmax(1) == self.y
        self.robust_acc = float((clean & (right | outside)).float().mean())


def compare(title: str, peers: dict[str, Perturb], seconds: float, *setting: object) -> None:
    contestants = [Peer(name, perturb, *setting) for name, perturb in peers.items()]
    times = race(contestants, seconds=seconds, least=1 if seconds == 0 else 3, most_steps=1)
    ours = times[contestants[0].name]
    print(f"\n{title}\n{'':16}{'seconds':>9}{'CPU s':>9}{'to rpat':>9}{'(CPU)':>9}{'robust %':>10}")
    for each in contestants:
        own = times[each.name]
        print(
            f"{each.name:16}{Spread.of(own.seconds).median:9.2f}"
            f"{Spread.of(own.cpu_seconds).median:9.2f}{own.over(ours).median:9.2f}"
            f"{own.cpu_over(ours).median:9.2f}{100 * each.robust_acc:10.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--autoattack", action="store_true")
    asked = parser.parse_args()
    logging.disable(logging.INFO)
    opened = open_target(asked.run, "best", [])
    if opened.threat.norm != "Linf":
        raise SystemExit("the libraries are compared in Linf: name a run trained for it.")
    device = opened.compute.device
    x, y = (part.to(device) for part in opened.test_images(asked.images).tensors())
    setting = (opened.model.eval(), x, y, opened.threat, asked.steps)
    here = environment()
    print(
        f"{here['gpu'] or here['cpu']}, {here['threads']} threads, torch {here['torch']}, "
        f"{len(x)} images, eps {opened.threat.eps:.4g}, numpy {np.__version__}"
    )
    compare(f"PGD-{asked.steps}", PEERS, asked.seconds, *setting)
    if asked.autoattack:
        compare("AutoAttack", AUTOATTACKS, 0.0, *setting)


if __name__ == "__main__":
    main()
