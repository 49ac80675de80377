"""How good is an attack? Its curve of robust accuracy against eps, held against the best known.

AttackBench (Cinà et al., 2024, arXiv 2404.19460): with rho_a(eps) the robust accuracy that attack a
leaves within eps, rho*(eps) that of the smallest perturbation of each image that any of the attacks
found, and eps0 the smallest eps where rho* is 0, the (local) optimality of a is

    xi_a = 1 - ∫ (rho_a - rho*) / ∫ (rho(0) - rho*),        both over eps from 0 to eps0:

1 for an attack that finds the best known perturbation of every image, 0 for one that breaks none.
The mean over models is what AttackBench calls global optimality. Both integrals are exact here: the
area under the curve of an accuracy is the mean distance, each cut off at eps0.

Attacks within a radius are given others, by bisection, image by image, on a grid; those that look
for the smallest perturbation run once. Distances are those of the adversarial images themselves.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics.base import Result, Subject
from rpat_cli.diagnostics.blocks import (
    Cells,
    Line,
    LineChart,
    Pictures,
    Section,
    Table,
    Text,
    columns,
)
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.text import count, percent

IMAGES = 100
"""At most so many, each class by its share."""

REACH = 4
"""The largest radius, as a multiple of the threat's eps; an image that holds there counts as
unbroken."""

GRID = 32
"""Radii, equally far apart, up to the largest: each image takes five or six of them."""


@dataclass(frozen=True)
class Attacked:
    """What one attack found: the distance of each image (N,) in the threat's norm; 0 where the
    model is wrong by itself, infinite where nothing was found. `forward`, `backward`: passes of
    single images that the whole search took."""

    label: str
    distances: tuple[float, ...]
    forward: int
    backward: int

    def robust_acc(self, eps: float) -> float:
        """The share of images that need more than `eps`."""
        # Float32 leaves a distance a little above or below the radius that it was made for.
        held = [distance > eps * (1 + 1e-5) for distance in self.distances]
        return sum(held) / len(held)


@dataclass(frozen=True)
class Optimality(Result):
    """The attacks of one evaluation, compared on `n` images up to the radius `reach`."""

    threat: Threat
    reach: float
    attacks: tuple[Attacked, ...]

    @property
    def n(self) -> int:
        return len(self.attacks[0].distances)

    @property
    def best(self) -> Attacked:
        """The smallest distance of each image, by whichever attack, and the passes of all."""
        columns = zip(*(attack.distances for attack in self.attacks), strict=True)
        passes = [(attack.forward, attack.backward) for attack in self.attacks]
        forward, backward = (sum(column) for column in zip(*passes, strict=True))
        return Attacked("best known", tuple(map(min, columns)), forward, backward)

    @property
    def end(self) -> float:
        """eps0: where the best known curve reaches 0, or `reach`, if it does not."""
        return min(self.reach, max(self.best.distances))

    def of(self, attack: Attacked) -> float:
        """xi of an attack; `nan` where no attack broke anything."""
        nothing = self.best.robust_acc(0.0) * self.end
        found = nothing - self._area(self.best)
        if found < 1e-12:
            return math.nan
        return 1 - (self._area(attack) - self._area(self.best)) / found

    def _area(self, attack: Attacked) -> float:
        return sum(min(distance, self.end) for distance in attack.distances) / self.n

    def to_dict(self) -> dict[str, Any]:
        return {
            "threat": asdict(self.threat),
            "reach": self.reach,
            "attacks": [self._saved(attack) for attack in self.attacks],
        }

    def _saved(self, attack: Attacked) -> dict[str, Any]:
        """JSON has neither infinity nor `nan`."""
        xi = self.of(attack)
        return {
            "label": attack.label,
            "optimality": None if math.isnan(xi) else xi,
            "distances": [d if math.isfinite(d) else None for d in attack.distances],
            "forward": attack.forward,
            "backward": attack.backward,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Optimality":
        """What `to_dict` gave. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        attacks = []
        for each in values["attacks"]:
            found = [math.inf if d is None else float(d) for d in each["distances"]]
            attacks.append(Attacked(each["label"], tuple(found), each["forward"], each["backward"]))
        if not attacks or len({len(attack.distances) for attack in attacks}) != 1:
            raise ValueError("every attack needs a distance for each image")
        return cls(Threat(**values["threat"]), float(values["reach"]), tuple(attacks))

    def section(self) -> Section:
        text = Text(
            ("100 % finds the best known perturbation of every image, 0 % none.",),
            title="Optimality",
            note="The area between an attack's curve and that of the best known, as a share of all "
            "that there is to gain (AttackBench, arXiv 2404.19460). Passes are those of the whole "
            "search, for each image.",
        )
        return Section(
            "How good are the attacks?",
            self.n,
            (Pictures((self._chart(),)), text, self._table()),
            detail=f"{self.threat.norm} up to {self.reach:.4g}",
        )

    def _chart(self) -> LineChart:
        radii = [self.reach * k / GRID for k in range(GRID + 1)]
        lines = []
        for attack in (*self.attacks, self.best):
            points = tuple((radius, attack.robust_acc(radius)) for radius in radii)
            lines.append(Line(attack.label, points))
        return LineChart(
            "Robust accuracy in percent",
            "eps",
            tuple(lines),
            fractions=True,
            mark=self.threat.eps,
            mark_name="the threat",
        )

    def _table(self) -> Table:
        rows = []
        ranked = sorted(self.attacks, key=lambda attack: -self.of(attack))
        for attack in (*ranked, self.best):
            xi = self.of(attack)
            cells = (
                attack.label,
                "not known" if math.isnan(xi) else percent(xi),
                percent(attack.robust_acc(self.threat.eps)),
                count(round(attack.forward / self.n)),
                count(round(attack.backward / self.n)),
            )
            rows.append(Cells(cells))
        names = ["optimality %", f"accuracy at {self.threat.eps:.4g}", "forward", "backward"]
        return Table(columns(["attack"], names), tuple(rows))


def measure(s: Subject) -> Optimality:
    """The diagnostic. Raises `ConfigError` for an evaluation without attacks."""
    specs = [spec for spec in s.attacks if spec.name != "clean"]
    if not specs:
        hint = "Name some: --attack pgd-20,apgd-ce,fmn --optimality."
        raise ConfigError(Problem("", "compares attacks, and none is given.", "--optimality", hint))
    s = s.with_at_most(IMAGES)
    reach = min(REACH * s.threat.eps, s.threat.whole_box(s.x).eps)
    attacks = []
    for spec in specs:
        s.say(f"optimality: {spec.label}")
        attacks.append(_Search(s, spec, reach).run())
    return Optimality(s.threat, reach, tuple(attacks))


class _Search:
    """The smallest radius of each image, on the grid, at which one attack breaks it.

    An image is between `low`, where the attack failed, and `high`, where it broke it: both count
    radii of the grid. Nothing is broken at 0, and one past the end stands for "not at all".
    """

    def __init__(self, subject: Subject, spec: AttackSpec, reach: float) -> None:
        self._subject, self._spec, self._reach = subject, spec, reach
        n = len(subject.x)
        self._low = torch.zeros(n, dtype=torch.int64)
        self._high = torch.full((n,), GRID + 1)
        self._distance = torch.full((n,), torch.inf)
        self._forward = self._backward = 0

    def run(self) -> Attacked:
        if ATTACKS[self._spec.name].minimizes:
            self._attack(GRID, torch.arange(len(self._low)))
            self._low = self._high.clone()
        while (open_ := self._high - self._low > 1).any():
            middle = (self._low + self._high) // 2
            for k in sorted(set(middle[open_].tolist())):
                self._attack(k, (open_ & (middle == k)).nonzero().flatten())
        label = self._spec.label
        return Attacked(label, tuple(self._distance.tolist()), self._forward, self._backward)

    def _attack(self, k: int, at: Tensor) -> None:
        s = self._subject
        x, y = s.x[at.to(s.x.device)], s.y[at.to(s.y.device)]
        evaluation = evaluate(
            s.model,
            x,
            y,
            [self._spec],
            Threat(s.threat.norm, self._reach * k / GRID),
            device=s.device,
            seed=s.seed,
            sources=self._sources(),
        )
        result = evaluation.results[0]
        self._forward += result.forward
        self._backward += result.backward
        wrong = evaluation.clean_predicted != evaluation.y
        broken = ~result.correct_after
        found = result.distance.masked_fill(wrong, 0.0)
        self._low[at[~broken]] = k
        self._distance[at[broken]] = torch.minimum(self._distance[at], found)[broken]
        reached = (self._distance[at] / self._reach * GRID - 1e-4).ceil().clamp_min(1).long()
        self._high[at[broken]] = torch.minimum(reached, torch.tensor(k))[broken]

    def _sources(self) -> dict[str, nn.Module]:
        """The model that a transfer attack makes its images on. Of several attacks on one model,
        the subject has it under the label of the first."""
        wanted, sources = self._spec.settings.get("source"), self._subject.sources
        for spec in self._subject.attacks:
            if wanted and spec.settings.get("source") == wanted and spec.label in sources:
                return {self._spec.label: sources[spec.label]}
        return {}
