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
    STEP,
    STEPPING,
    AttackRow,
    Cost,
    Setting,
    passes_per_step,
    queries,
    row_of,
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


def _passes_of_apgd(settings: Mapping[str, Any]) -> float:
    """`settings` are those of the library, the standard version's where they are not known yet."""
    steps, restarts = settings.get("n_iter", 100), settings.get("n_restarts", 1)
    return float(steps * restarts * settings.get("eot_iter", 1) * STEP)


def _passes_of_targeted(settings: Mapping[str, Any]) -> float:
    return _passes_of_apgd(settings) * float(settings.get("n_target_classes", 9))


def _passes_of_square(settings: Mapping[str, Any]) -> float:
    return float(settings.get("n_queries", 5000) * settings.get("n_restarts", 1))


def _passes_of_autoattack(settings: Mapping[str, Any]) -> float:
    parts = settings.get("attacks") or ("apgd-ce", "apgd-t", "fab-t", "square")
    return sum(ATTACKS[part].passes({}) for part in parts)


def _draws(settings: Mapping[str, Any]) -> float:
    return float(settings.get("restarts", settings.get("draws", 1)))


def _gradient(builder: str, description: str, **others: Any) -> AttackRow:
    """An attack of `variants`: PGD with some of its settings fixed."""
    row = AttackRow(
        f"rpat_cli.attacks.variants:{builder}",
        description,
        follows_gradient=True,
        transfers=True,
        trains=True,
    )
    return replace(row, **others)


def _autoattack(description: str, version: str, *parts: str) -> AttackRow:
    """A version of AutoAttack, or with `parts` some of its attacks as that version runs them."""
    fixed: dict[str, Setting] = {"version": version}
    if parts:
        fixed["attacks"] = parts
    return AttackRow(
        "rpat_cli.attacks.autoattack:autoattack",
        description,
        fixed=fixed,
        recorded_as="autoattack",
        cost=_passes_of_autoattack,
    )


def _part(
    name: str, description: str, *, cost: Cost = _passes_of_apgd, follows_gradient: bool = True
) -> AttackRow:
    row = _autoattack(description, "standard", name)
    return replace(row, cost=cost, follows_gradient=follows_gradient)


def _smallest(builder: str, description: str, steps: int, **others: Any) -> AttackRow:
    """An attack of `minimum_norm`, which looks for the smallest perturbation."""
    row = AttackRow(
        f"rpat_cli.attacks.minimum_norm:{builder}",
        description,
        defaults={"steps": steps},
        takes=("steps",),
        extra="attacks",
        package="foolbox",
    )
    return replace(row, **others)


ATTACKS = Catalogue(
    "attack",
    {
        "clean": AttackRow(
            NoAttack,
            "no attack: the accuracy on the images as they are",
            cost=passes_per_step(1.0),
        ),
        "noise": _gradient(
            "noise",
            "random noise of the size of the threat; a baseline that no defense should lose to",
            follows_gradient=False,
            transfers=False,
            cost=_draws,
        ),
        "fgsm": _gradient(
            "fgsm",
            "one step along the gradient's sign (Goodfellow 2015)",
            takes=("step_size",),
        ),
        "bim": _gradient(
            "bim",
            "iterated FGSM from the image itself (Kurakin 2017)",
            defaults={"steps": 10},
            takes=STEPPING,
        ),
        "mim": _gradient(
            "mim", "BIM with momentum (Dong 2018)", defaults={"steps": 10}, takes=STEPPING
        ),
        "pgd": _gradient(
            "pgd",
            "projected gradient descent (Madry 2018); pgd-50x10: 50 steps from each of 10 random "
            "starts",
            defaults={"steps": 20},
            takes=ITERATIVE,
        ),
        "cw-pgd": _gradient(
            "cw_pgd",
            "PGD on the margin loss (Carlini & Wagner 2017)",
            defaults={"steps": 20},
            takes=ITERATIVE,
            needs_class=True,
        ),
        "autoattack": _autoattack(
            "AutoAttack standard: apgd-ce, apgd-t, fab-t, square (Croce & Hein 2020)", "standard"
        ),
        "autoattack-plus": _autoattack(
            "AutoAttack plus: also apgd-dlr and fab, five restarts", "plus"
        ),
        "autoattack-rand": _autoattack(
            "AutoAttack for randomized models: apgd-ce, apgd-dlr, EOT over 20 gradients", "rand"
        ),
        "autoattack-apgd": _autoattack(
            "AutoAttack standard without fab-t and square", "standard", "apgd-ce", "apgd-t"
        ),
        "audit": AttackRow(
            "rpat_cli.attacks.audited:audited",
            "AutoAttack on a random sample of what the other attacks leave: how many points lower "
            "may it be?",
            takes=("width", "level"),
            form="audit:POINTS",
            cost=_passes_of_autoattack,
        ),
        "file": AttackRow(
            "rpat_cli.attacks.saved:SavedExamples",
            "examples that --save-adv has written, checked as those of any attack",
            form="file:FILE.npz",
            cost=passes_per_step(1.0),
        ),
        "apgd-ce": _part("apgd-ce", "step-size-free PGD on the cross-entropy (Croce & Hein 2020)"),
        "apgd-dlr": _part(
            "apgd-dlr", "the same on the difference of logits ratio; 3 classes or more"
        ),
        "apgd-t": _part(
            "apgd-t",
            "the same, targeted, on the targeted ratio; 4 classes or more",
            cost=_passes_of_targeted,
        ),
        "fab": _part(
            "fab", "smallest perturbation across the nearest decision boundary (Croce & Hein 2020)"
        ),
        "fab-t": _part(
            "fab-t", "the same, toward one class after another", cost=_passes_of_targeted
        ),
        "square": _part(
            "square",
            "random search with squares, no gradient (Andriushchenko 2020)",
            follows_gradient=False,
            cost=_passes_of_square,
        ),
        "cw-l2": _smallest(
            "cw_l2",
            "smallest L2 perturbation (Carlini & Wagner 2017)",
            1000,
            norms=("L2",),
            follows_gradient=True,
        ),
        "ddn": _smallest(
            "ddn",
            "smallest L2 perturbation, direction and norm apart (Rony 2019)",
            100,
            norms=("L2",),
            follows_gradient=True,
        ),
        "fmn": _smallest(
            "fmn", "smallest perturbation in any norm (Pintor 2021)", 100, follows_gradient=True
        ),
        "hopskipjump": _smallest(
            "hopskipjump",
            "sees the predicted class only; Linf, L2 (Chen 2020)",
            64,
            norms=("Linf", "L2"),
            cost=passes_per_step(300.0),
        ),
        "boundary": _smallest(
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
