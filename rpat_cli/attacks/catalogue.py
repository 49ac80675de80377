"""The catalogue of attacks: one row per attack, which holds all that is known of it.

`ATTACKS[name](threat, **settings)` builds the attack. The language of `--attack`, evaluation, its
forecast and its processes, transfer attacks, training, help pages and error messages read these
rows, so that an attack is added in one line:

    ATTACKS.add("mine", factory)          # `(threat, **settings) -> attack`; its signature tells
    ATTACKS.add("mine", AttackRow("my_package.attacks:factory", follows_gradient=True))

Nothing here imports torch before an attack is built.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rpat_cli.attacks.row import (
    ITERATIVE,
    STEPPING,
    AttackRow,
    passes_per_step,
    queries,
    row_of,
)
from rpat_cli.attacks.rows import (
    OWN,
    PARTS,
    autoattack,
    draws,
    gradient,
    own,
    passes_of_a3,
    passes_of_autoattack,
    passes_of_best,
    smallest,
    stepping,
)
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError, unknown
from rpat_cli.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn


class Catalogue(Registry[Any]):
    """The rows by name, in the order in which they are listed.

    A bare factory, as in `ATTACKS.add("mine", factory)`, becomes a row: see `row_of`.
    """

    def __getitem__(self, name: str) -> AttackRow:
        entry = super().__getitem__(name)
        row = entry if isinstance(entry, AttackRow) else row_of(entry)
        if row.name != name:
            row = replace(row, name=name)
            self._entries[name] = row
        return row


class TrainingAttacks(Registry[Any]):
    """The rows of a catalogue that can make training examples, those added later included."""

    def __init__(self, catalogue: Catalogue) -> None:
        super().__init__(catalogue.kind, {})
        self._catalogue = catalogue

    def __getitem__(self, name: str) -> AttackRow:
        if name not in self:
            raise ConfigError(unknown(self.kind, name, list(self)))
        return self._catalogue[name]

    def __contains__(self, name: object) -> bool:
        return name in self._catalogue and self._catalogue[str(name)].trains

    def __iter__(self) -> Iterator[str]:
        return (name for name, row in self._catalogue.items() if row.trains)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True)
class NoAttack:
    """What "clean" is: the images as they are."""

    threat: Threat

    def __call__(self, model: "nn.Module", x: "Tensor", y: "Tensor") -> "Tensor":  # noqa: ARG002
        return x


@dataclass(frozen=True)
class Transfer:
    """Images made on another model (Papernot et al., 2017, arXiv 1602.02697).

    `source` names the model, `attack` the row that makes the images; called with the source's
    network, `made_by` makes them.
    """

    source: str
    attack: str
    made_by: Any

    def __call__(self, model: "nn.Module", x: "Tensor", y: "Tensor") -> "Tensor":
        """`x` (B, C, H, W) in [0, 1] with classes `y` (B,), attacked on `model`."""
        x_adv: Tensor = self.made_by(model, x, y)
        return x_adv


def transfer(threat: Threat, *, source: str, attack: str, **settings: Any) -> Transfer:
    """The attack of that name, to be run on the source. Raises what building it raises."""
    return Transfer(source, attack, ATTACKS[attack](threat, **settings))


def _passes_of_source(settings: Mapping[str, Any]) -> float:
    return ATTACKS[str(settings["attack"])].passes(settings)


ATTACKS = Catalogue(
    "attack",
    {
        "clean": AttackRow(
            NoAttack,
            "no attack: the accuracy on the images as they are",
            cost=passes_per_step(1.0),
        ),
        "noise": gradient(
            "noise",
            "random noise of the size of the threat; a baseline that no defense should lose to",
            follows_gradient=False,
            transfers=False,
            cost=draws,
        ),
        "fgsm": gradient(
            "fgsm",
            "one step along the gradient's sign (Goodfellow 2015)",
            takes=("step_size", "eot"),
        ),
        "bim": gradient(
            "bim",
            "iterated FGSM from the image itself (Kurakin 2017)",
            defaults={"steps": 10},
            takes=STEPPING,
        ),
        "mim": gradient(
            "mim", "BIM with momentum (Dong 2018)", defaults={"steps": 10}, takes=STEPPING
        ),
        "pgd": gradient(
            "pgd",
            "projected gradient descent (Madry 2018); pgd-50x10: 50 steps from each of 10 random "
            "starts",
            defaults={"steps": 20},
            takes=ITERATIVE,
        ),
        "cw-pgd": gradient(
            "cw_pgd",
            "PGD on the margin loss (Carlini & Wagner 2017)",
            defaults={"steps": 20},
            takes=ITERATIVE,
            needs_class=True,
        ),
        "best": AttackRow(
            "rpat_cli.attacks.cascade:best",
            "cheap strong attacks first, apgd-t on what is left: an eighth of autoattack's passes",
            follows_gradient=True,
            cost=passes_of_best,
        ),
        "autoattack": autoattack(
            "AutoAttack standard: apgd-ce, apgd-t, fab-t, square (Croce & Hein 2020)", "standard"
        ),
        "autoattack-plus": autoattack(
            "AutoAttack plus: also apgd-dlr and fab, five restarts", "plus"
        ),
        "autoattack-rand": autoattack(
            "AutoAttack for randomized models: apgd-ce, apgd-dlr, EOT over 20 gradients", "rand"
        ),
        "autoattack-apgd": autoattack(
            "AutoAttack standard without fab-t and square", "standard", "apgd-ce", "apgd-t"
        ),
        "audit": AttackRow(
            "rpat_cli.attacks.audited:audited",
            "AutoAttack on a random sample of what the other attacks leave: how many points lower "
            "may it be?",
            takes=("width", "level"),
            form="audit:POINTS",
            cost=passes_of_autoattack,
        ),
        "file": AttackRow(
            "rpat_cli.attacks.saved:SavedExamples",
            "examples that --save-adv has written, checked as those of any attack",
            form="file:FILE.npz",
            cost=passes_per_step(1.0),
        ),
        "fab": PARTS["fab"],
        "fab-t": PARTS["fab-t"],
        "square": PARTS["square"],
        "apgd": own(
            "autopgd:AutoPGD",
            "PGD whose step size adapts itself, 100 steps; @loss=ce, dlr, margin or pm (Croce & "
            "Hein 2020)",
            stepping(100),
            takes=(*OWN, "loss"),
            trains=True,
            in_training={"steps": 10, "keep": "loss", "large_radii": False},
        ),
        "apgd-ce": own(
            "autopgd:AutoPGD",
            "the same on the cross-entropy",
            stepping(100),
            fixed={"loss": "ce"},
        ),
        "apgd-dlr": own(
            "autopgd:AutoPGD",
            "the same on the difference of logits ratio",
            stepping(100),
            fixed={"loss": "dlr"},
        ),
        "apgd-t": own(
            "targeted:apgd_t",
            "the same toward nine classes, one after another, on the targeted ratio",
            stepping(100, targets=9),
            takes=(*OWN, "targets", "loss"),
        ),
        "multitargeted": own(
            "targeted:multitargeted",
            "PGD on the margin toward every other class (Gowal 2019)",
            stepping(20, targets=9),
            defaults={"steps": 20},
            takes=(*OWN, "step_size", "targets", "loss"),
        ),
        "mm": own(
            "targeted:mm",
            "Minimum-Margin attack: 20 steps toward each of three classes; mm-9: of nine (Gao "
            "2022)",
            stepping(20, targets=3),
            defaults={"targets": 3},
            takes=(*OWN, "targets"),
            counts="targets",
        ),
        "malt": own(
            "targeted:malt",
            "apgd-t toward the classes nearest by a linear estimate (Melamed 2024)",
            stepping(100, targets=9),
            takes=(*OWN, "targets", "candidates", "loss"),
        ),
        "pma": own(
            "pma:MarginDecomposition",
            "the two ends of the margin of probabilities, then both; Linf (Xie 2024)",
            stepping(100, stages=2),
            takes=("steps", "eot"),
            norms=("Linf",),
        ),
        "md": own(
            "pma:md",
            "the same with logits: margin decomposition; Linf (Ma 2020)",
            stepping(100, stages=2),
            takes=("steps", "eot"),
            norms=("Linf",),
        ),
        "a3": own(
            "a3:A3",
            "Adaptive Auto Attack: 13 rounds of short descents that learn from each other; Linf, "
            "L2 (Liu 2022)",
            passes_of_a3,
            takes=("rounds", "eot"),
            counts="rounds",
            norms=("Linf", "L2"),
        ),
        "odi-pgd": own(
            "odi:OdiPGD",
            "PGD on the margin from 20 starts that differ in their logits (Tashiro 2020)",
            stepping(22, restarts=20),
            takes=(*OWN, "step_size", "loss"),
        ),
        "cw-l2": smallest(
            "cw_l2",
            "smallest L2 perturbation (Carlini & Wagner 2017)",
            1000,
            norms=("L2",),
            follows_gradient=True,
        ),
        "ddn": smallest(
            "ddn",
            "smallest L2 perturbation, direction and norm apart (Rony 2019)",
            100,
            norms=("L2",),
            follows_gradient=True,
        ),
        "fmn": smallest(
            "fmn", "smallest perturbation in any norm (Pintor 2021)", 100, follows_gradient=True
        ),
        "hopskipjump": smallest(
            "hopskipjump",
            "sees the predicted class only; Linf, L2 (Chen 2020)",
            64,
            norms=("Linf", "L2"),
            cost=passes_per_step(300.0),
        ),
        "boundary": smallest(
            "boundary",
            "sees the predicted class only; L2 (Brendel 2018)",
            5000,
            norms=("L2",),
            cost=passes_per_step(1.0),
        ),
        "zoo": AttackRow(
            "rpat_cli.attacks.zoo:ZOO",
            "gradients estimated from queries; zoo-10000 makes 10,000 (Chen 2017)",
            defaults={"queries": 10_000},
            takes=("queries",),
            counts="queries",
            cost=queries,
        ),
        "transfer": AttackRow(
            transfer,
            "made on another model: pgd-20, or transfer:RUN@mim-10 (Papernot 2017)",
            form="transfer:RUN",
            cost=_passes_of_source,
        ),
    },
)
"""Name -> `AttackRow`; see there."""

TRAINING_ATTACKS = TrainingAttacks(ATTACKS)
"""Those of them that a recipe's `attack.name` may be."""
