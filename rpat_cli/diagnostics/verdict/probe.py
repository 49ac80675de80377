"""Gathering the evidence for a verdict: one model, attacked in many cheap ways."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.autoattack import AutoAttack
from rpat_cli.attacks.brought import attacked
from rpat_cli.attacks.forward import gradient_reaches, input_gradient, unwrap
from rpat_cli.attacks.losses import cross_entropy
from rpat_cli.attacks.side_effects import frozen, own_randomness
from rpat_cli.attacks.surrogate import backward_through
from rpat_cli.attacks.threat import Threat
from rpat_cli.data.reading import AnyImages
from rpat_cli.data.splits import stratified_choice
from rpat_cli.diagnostics.verdict.evidence import EOT, STAND_IN, Evidence, differing
from rpat_cli.diagnostics.verdict.slopes import Slopes, slopes_at
from rpat_cli.diagnostics.verdict.stand_ins import passed_by
from rpat_cli.diagnostics.verdict.substitute import QUERIES as SUBSTITUTE_QUERIES
from rpat_cli.diagnostics.verdict.substitute import fit_substitute
from rpat_cli.errors import RpatError
from rpat_cli.evaluation.verify import batches, checked_logits, verify

IMAGES = 200
SQUARE_QUERIES = 500
PGD_STEPS = (5, 20, 50)
EPS_MULTIPLES = (1, 2, 4, 8)
NOISE_DRAWS = 10
EOT_STEPS, EOT_PASSES = 20, 10
ALONE = 16
"""Images that are also given alone."""

SUBSTITUTE = "substitute"
"""Name of the attack whose images are made on the substitute."""


def gather(
    model: nn.Module,
    x: AnyImages,
    y: Tensor,
    threat: Threat,
    *,
    images: int = IMAGES,
    square_queries: int = SQUARE_QUERIES,
    substitute_queries: int = SUBSTITUTE_QUERIES,
    batch_size: int = 250,
    device: torch.device | None = None,
    seed: int = 0,
    sources: Mapping[str, nn.Module] = MappingProxyType({}),
) -> Evidence:
    """Attack up to `images` of x (N, C, H, W), y (N,), equally many of each class, in cheap ways.

    `sources` are other models on `device`, by the name of the attack that uses them; a substitute
    is fitted to the model's outputs on all of x. Square has `square_queries` for each image.
    Nothing of the model changes. Raises `RpatError` for logits that are not (B, classes) or finite.
    """
    device = device or x.device
    chosen = _choose(y, images, seed)
    everything = x
    x, y = x[chosen.to(x.device)].to(device), y[chosen.to(y.device)].to(device)
    was_training = unwrap(model).training
    with (
        frozen(model) as model,
        torch.autocast(device.type, enabled=False),
        own_randomness(device, seed),
    ):
        probe = _Probe(model, threat, batch_size)
        logits = probe.logits(x)
        right = logits.argmax(dim=1) == y
        low, high = x.aminmax()
        # The order of what follows decides which random numbers each attack gets.
        outcome = probe.attack(x[right], y[right], square_queries, seed)
        if right.any():
            substitute = fit_substitute(model, everything, threat, device, substitute_queries)
            probe.transfer(x[right], y[right], {**sources, SUBSTITUTE: substitute}, outcome)
            probe.past_the_gradient(x[right], y[right], outcome)
            probe.toward_classes(x[right], y[right], outcome)
        return Evidence(
            threat=threat,
            y=y.cpu(),
            pixels=(float(low), float(high)),
            training=_modules_in_train_mode(model),
            was_training=was_training,
            connected=gradient_reaches(model, x[:1]),
            logits=logits.cpu(),
            logits_again=probe.logits(x).cpu(),
            logits_alone=probe.logits_alone(x[:ALONE]).cpu(),
            gradient_norm=probe.gradient_norm(x[right], y[right]).cpu(),
            **vars(outcome),
        )


def _modules_in_train_mode(model: nn.Module) -> tuple[str, ...]:
    return tuple(name or type(m).__name__ for name, m in model.named_modules() if m.training)


def _choose(y: Tensor, images: int, seed: int) -> Tensor:
    """Indices of so many images, each class by its share; of all where there are hardly more."""
    # A stratified choice keeps at least one image of each class on either side.
    if images > len(y) - len(torch.unique(y)):
        return torch.arange(len(y))
    return stratified_choice(y.cpu(), images, seed)


@dataclass
class _Outcome:
    """What the attacks did; the fields are those of `Evidence`."""

    eps: dict[str, float]
    broken: dict[str, Tensor] = field(default_factory=dict)
    losses: tuple[float, ...] = ()
    flags: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    transfers: tuple[str, ...] = ()
    stand_ins: tuple[str, ...] = ()
    slopes: Slopes = field(default_factory=Slopes.none)


@dataclass(frozen=True)
class _Probe:
    """One model under examination, batch by batch."""

    model: nn.Module
    threat: Threat
    batch_size: int

    def logits(self, x: Tensor) -> Tensor:
        return torch.cat(
            [checked_logits(self.model, part) for part in torch.split(x, self.batch_size)]
        )

    def logits_alone(self, x: Tensor) -> Tensor:
        """Of each image in a batch of its own; NaN where the model fails on one image, as batch
        statistics do."""
        rows = []
        for image in torch.split(x, 1):
            try:
                rows.append(checked_logits(self.model, image))
            except (RpatError, RuntimeError, ValueError):
                rows.append(torch.full((1, 1), torch.nan, device=x.device))
        classes = max(row.shape[1] for row in rows)
        return torch.cat([row.expand(1, classes) for row in rows])

    def attack(self, x: Tensor, y: Tensor, queries: int, seed: int) -> _Outcome:
        """Attack images `x`, all of which the model gets right."""
        outcome = _Outcome(self._radii(x))
        if not len(x):
            return outcome
        broken = outcome.broken
        broken["noise"] = self._broken(self.threat, "noise", x, y, draws=NOISE_DRAWS)
        broken["fgsm"] = self._broken(self.threat, "fgsm", x, y)
        for steps in PGD_STEPS:
            broken[f"pgd-{steps}"] = self._broken(self.threat, "pgd", x, y, steps=steps)
        for name, radius in outcome.eps.items():
            threat = Threat(self.threat.norm, radius)
            broken[name] = self._broken(threat, "pgd", x, y, steps=20, keep="worst")
        outcome.losses = self._losses_of_pgd(x, y)
        self._autoattack(x, y, queries, seed, outcome)
        broken["cw-pgd"] = self._broken(self.threat, "cw-pgd", x, y, steps=max(PGD_STEPS))
        return outcome

    def transfer(
        self, x: Tensor, y: Tensor, sources: Mapping[str, nn.Module], outcome: _Outcome
    ) -> None:
        """Make adversarial images on other models, and try them on this one.

        The inner loss is the margin, which transfers better: measured on the embedded data set, it
        breaks a fifth more images than the cross-entropy.
        """
        attack = ATTACKS["cw-pgd"](self.threat, steps=20)
        for name, source in sources.items():
            outcome.broken[name] = self._verified(self.threat, x, y, partial(attack, source))
        outcome.transfers = tuple(sources)

    def past_the_gradient(self, x: Tensor, y: Tensor, outcome: _Outcome) -> None:
        """PGD on the margin whose gradient goes past modules that may hide it, if there are any;
        and with the mean of many gradients, if the model is random."""
        surrogates = passed_by(self.model, x[:2])
        outcome.stand_ins = tuple(each.module for each in surrogates)
        if surrogates:
            with backward_through(self.model, surrogates):
                broken = self._broken(self.threat, "cw-pgd", x, y, steps=max(PGD_STEPS))
            outcome.broken[STAND_IN] = broken
        if differing(self.logits(x), self.logits(x)).any():
            settings = {"steps": EOT_STEPS, "eot": EOT_PASSES}
            outcome.broken[EOT] = self._broken(self.threat, "cw-pgd", x, y, **settings)
        # On the way of an attack, where it matters.
        short = ATTACKS["pgd"](self.threat, steps=min(PGD_STEPS))
        parts = batches(x, y, self.batch_size, x.device)
        outcome.slopes = Slopes.joined(
            [slopes_at(self.model, short(self.model, a, b), b, self.threat) for a, b in parts]
        )

    def toward_classes(self, x: Tensor, y: Tensor, outcome: _Outcome) -> None:
        """The margin to one class after another: where a defense leads the attacks on the strongest
        class astray (a purification, a dummy class), another class may be open."""
        outcome.broken["mm-3"] = self._broken(self.threat, "mm", x, y, targets=3)

    def _radii(self, x: Tensor) -> dict[str, float]:
        """The threat's radius, multiples of it, and the one whose ball holds every image."""
        whole = self.threat.whole_box(x).eps
        multiples = {f"eps x {k}": k * self.threat.eps for k in EPS_MULTIPLES}
        within = {name: radius for name, radius in multiples.items() if radius < whole}
        return {**within, "whole box": whole}

    def _broken(self, threat: Threat, name: str, x: Tensor, y: Tensor, **settings: Any) -> Tensor:
        attack = ATTACKS[name](threat, **settings)
        return self._verified(threat, x, y, partial(attack, self.model))

    def _verified(
        self, threat: Threat, x: Tensor, y: Tensor, perturb: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """(M,) bool: the images that are misclassified, after the check that they are in the
        threat."""
        parts = batches(x, y, self.batch_size, x.device)
        return torch.cat(
            [verify(self.model, threat, x, y, attacked(perturb, x, y)).broken for x, y in parts]
        ).cpu()

    def gradient_norm(self, x: Tensor, y: Tensor) -> Tensor:
        """(M,) L1 norms of the cross-entropy's gradient with respect to the image."""
        if not len(x):
            return torch.zeros(0)
        norms = []
        for x_part, y_part in batches(x, y, self.batch_size, x.device):
            gradient = input_gradient(self.model, x_part, partial(cross_entropy, y=y_part))[0]
            norms.append(gradient.flatten(1).abs().sum(dim=1))
        return torch.cat(norms)

    def _losses_of_pgd(self, x: Tensor, y: Tensor) -> tuple[float, ...]:
        """The mean cross-entropy before each step of PGD and at its end."""
        steps = max(PGD_STEPS)
        attack = ATTACKS["pgd"](self.threat, steps=steps)
        sums = torch.zeros(steps + 1)
        for x_part, y_part in batches(x, y, self.batch_size, x.device):
            recorded, loss_fn = _recording(y_part)
            x_adv = attack.perturb(self.model, x_part, loss_fn)
            loss_fn(checked_logits(self.model, x_adv))
            sums += torch.tensor(recorded)
        return tuple((sums / len(x)).tolist())

    def _autoattack(self, x: Tensor, y: Tensor, queries: int, seed: int, outcome: _Outcome) -> None:
        """APGD and Square, each on all images, and AutoAttack's own warnings about the model."""
        attacks = AutoAttack(self.threat, attacks=("apgd-ce", "square"), seed=seed, queries=queries)
        first = slice(0, self.batch_size)
        ensemble = attacks.on(self.model, x[first], y[first])
        for name in ensemble.names:
            if name == "apgd-ce" and not gradient_reaches(self.model, x[:1]):
                # It needs a gradient for its first step; without one it breaks nothing.
                outcome.broken[name] = torch.zeros(len(x), dtype=torch.bool)
                continue
            perturb = partial(ensemble.perturb, name)
            outcome.broken[name] = self._verified(self.threat, x, y, perturb)
        outcome.flags = tuple(ensemble.flags)
        for note in ensemble.notes:
            name, _, reason = note.partition(" left out: ")
            outcome.skipped[name] = reason


def _recording(y: Tensor) -> tuple[list[float], Callable[[Tensor], Tensor]]:
    """An inner loss, and the list to which it appends its value at each call."""
    recorded: list[float] = []

    def loss_fn(logits: Tensor) -> Tensor:
        loss = cross_entropy(logits, y).sum()
        recorded.append(float(loss.detach()))
        return loss

    return recorded, loss_fn
