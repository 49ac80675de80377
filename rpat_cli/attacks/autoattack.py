"""AutoAttack (Croce & Hein, ICML 2020, arXiv 2003.01690), one of its attacks and one batch at a
time.

The attacks themselves are those of `pyautoattack` (or of an installed `autoattack`); only the loop
around them is not used. Each of its attacks reseeds itself whenever it starts, so calling them on
the same batches in the same order gives the same adversarial examples as its own
`run_standard_evaluation`, and the caller of the loop can show progress, stop and resume. What the
library leaves behind is undone: seeds, parameter gradients, modes, trace functions.
"""

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version as installed_version
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from rpat_cli.attacks.fab_projection import onto_hyperplane
from rpat_cli.attacks.forward import unwrap
from rpat_cli.attacks.side_effects import frozen, own_randomness
from rpat_cli.attacks.square_search import search_squares
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError, RpatError, unknown

VERSIONS: Mapping[str, tuple[str, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
    "custom": (),
}
"""The attacks of each version, in their order; "custom" has those that its user lists."""

_LEAST_CLASSES = {"apgd-ce": 2, "apgd-dlr": 3, "apgd-t": 4, "fab": 2, "fab-t": 2, "square": 2}
"""The DLR loss divides by the gap to the third largest logit, its targeted form also looks at the
fourth."""

_LEAST_SIDE_OF_SQUARE = 5
"""Square's L2 and L1 forms begin with a 5 x 5 grid of tiles, none of which may be empty."""


@dataclass(frozen=True)
class AutoAttack:
    """Which version, and within it which attacks (empty: all of the version's), with which threat
    and seed.

    A version sets the budgets (restarts, targets, iterations), `attacks` chooses:
    `AutoAttack(threat, attacks=("square",))` is Square as the standard version runs it, unless
    `queries` says how many it has. "custom" has the library's default budgets: five restarts of
    APGD and FAB; in L1 it begins with larger radii, as the standard version does. Raises
    `ConfigError` for unknown names, and for "custom" without a list.
    """

    threat: Threat
    version: str = "standard"
    attacks: tuple[str, ...] = ()
    seed: int = 0
    queries: int | None = None

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise ConfigError(unknown("version of AutoAttack", self.version, list(VERSIONS)))
        if wrong := [name for name in self.attacks if name not in _LEAST_CLASSES]:
            raise ConfigError(
                *(unknown("part of AutoAttack", name, list(_LEAST_CLASSES)) for name in wrong)
            )
        if not self.names:
            raise ConfigError(
                "a custom AutoAttack needs a list of attacks. Allowed: "
                f"{', '.join(_LEAST_CLASSES)}."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The attacks asked for, in the order they run."""
        return self.attacks or VERSIONS[self.version]

    def on(self, model: nn.Module, x: Tensor, y: Tensor) -> "Ensemble":
        """Make the attacks ready for a model, and look at it first, as AutoAttack does, on `x` (B,
        C, H, W), `y` (B,).

        Attacks that are not defined for the model's class count or image size are left out and
        listed in `notes`. Raises `ConfigError` when none remains.
        """
        return Ensemble(self, model, x, y)


def autoattack(
    threat: Threat, *, version: str = "standard", attacks: Iterable[str] = (), **settings: Any
) -> AutoAttack:
    """`AutoAttack`, whose list of attacks may come as a list, as JSON and YAML have it."""
    return AutoAttack(threat, version, tuple(attacks), **settings)


class Ensemble:
    """AutoAttack's attacks on one model.

    `names`: the attacks that run. `notes`: what was left out and why. `flags`: AutoAttack's own
    warnings (randomized, probabilities instead of logits, zero gradients, dynamic, Square stronger
    than the rest), as they come.
    """

    def __init__(self, config: AutoAttack, model: nn.Module, x: Tensor, y: Tensor) -> None:
        self._config, self._model, self._device = config, unwrap(model), x.device
        self._library, self._checks = _import_library()
        self._log = _Warnings()
        self.flags = self._log.messages
        with frozen(self._model), torch.no_grad():
            self.classes = self._model(x[:1]).shape[1]
        self.names, self.notes = self._defined(x.shape[-2], x.shape[-1])
        self._attacks = self._build()
        self._look_at_model(x, y)

    def perturb(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """Run one attack on one batch: `x` (B, C, H, W) in [0, 1] and its labels to `x_adv`, or `x`
        where it failed."""
        attack = self._attack(name)
        with self._no_trace(), torch.no_grad(), self._own_projection():
            x_adv: Tensor = attack.perturb(x.clone(), y.clone())
        return x_adv.detach()

    def settings(self, name: str) -> dict[str, int | float | str]:
        """The budget that an attack runs with, for the record."""
        attack = self._attack(name)
        keys = (
            "loss",
            "n_restarts",
            "n_iter",
            "n_queries",
            "n_target_classes",
            "eot_iter",
            "use_largereps",
        )
        return {key: getattr(attack, key) for key in keys if getattr(attack, key, None) is not None}

    def look_at_result(self, accuracy: Mapping[str, float]) -> None:
        """AutoAttack's last check: `accuracy` is the robust accuracy after each attack, with
        "clean" first."""
        self._checks.check_square_sr(dict(accuracy), logger=self._log)

    @property
    def library(self) -> str:
        """Name and version of the package that the attacks come from."""
        return f"{self._library.__name__} {installed_version(self._library.__name__)}"

    def _defined(self, height: int, width: int) -> tuple[tuple[str, ...], list[str]]:
        reasons = {name: self._undefined(name, height, width) for name in self._config.names}
        names = tuple(name for name, reason in reasons.items() if not reason)
        notes = [f"{name} left out: {reason}" for name, reason in reasons.items() if reason]
        if not names:
            possible = [name for name in _LEAST_CLASSES if not self._undefined(name, height, width)]
            remedy = f" Defined here: {', '.join(possible)}." if possible else ""
            raise ConfigError(f"nothing of AutoAttack is left to run: {'; '.join(notes)}.{remedy}")
        return names, notes

    def _undefined(self, name: str, height: int, width: int) -> str:
        least = _LEAST_CLASSES[name]
        if self.classes < least:
            return f"it needs at least {least} classes, the model has {self.classes}"
        if (
            name == "square"
            and self._config.threat.norm != "Linf"
            and min(height, width) < _LEAST_SIDE_OF_SQUARE
        ):
            return (
                f"in {self._config.threat.norm} it needs images of at least 5 x 5 pixels, not "
                f"{height} x {width}"
            )
        return ""

    def _build(self) -> Any:
        """The library's object, of which only the attacks are used. Its two packages differ in one
        argument."""
        constructor = self._library.AutoAttack
        quiet = {"verbose": False} if "verbose" in inspect.signature(constructor).parameters else {}
        threat = self._config.threat
        attacks = constructor(
            self._model,
            norm=threat.norm,
            eps=threat.eps,
            seed=self._config.seed,
            version=self._config.version,
            device=self._device,
            **quiet,
        )
        for targeted in (attacks.apgd_targeted, attacks.fab):
            targeted.n_target_classes = min(targeted.n_target_classes, self.classes - 1)
        for attack in (attacks.apgd, attacks.apgd_targeted):
            attack.logger = self._log
            if self._config.version == "custom" and threat.norm == "L1":
                # A list of one's own runs as the standard version does, which in L1 begins with
                # larger radii: without them a list is weaker than each of its parts alone.
                attack.use_largereps = True
        self._fab_restarts = attacks.fab.n_restarts
        if self._config.queries is not None:
            attacks.square.n_queries = self._config.queries
        if threat.norm == "Linf" and self._on_cpu_with_pyautoattack:
            attacks.square.attack_single_run = partial(search_squares, attacks.square)
        return attacks

    def _attack(self, name: str) -> Any:
        """The attack object, set up for `name` alone, so that nothing depends on which attacks ran
        before."""
        family = {
            "apgd-ce": "apgd",
            "apgd-dlr": "apgd",
            "apgd-t": "apgd_targeted",
            "fab-t": "fab",
        }.get(name, name)
        attack = getattr(self._attacks, family)
        attack.seed = self._config.seed
        if family == "apgd":
            attack.loss = name.removeprefix("apgd-")
        if family == "fab":
            attack.targeted = name == "fab-t"
            attack.n_restarts = 1 if attack.targeted else self._fab_restarts
        return attack

    def _look_at_model(self, x: Tensor, y: Tensor) -> None:
        with self._no_trace():
            if self._config.version != "rand":
                self._checks.check_randomized(self._model, x, y, bs=len(x), logger=self._log)
            self._checks.check_range_output(self._model, x, logger=self._log)
            # The library counts calls in a table that it never clears: one dynamic model would
            # taint all after it.
            self._checks.funcs.update(dict.fromkeys(self._checks.funcs, 0))
            self._checks.check_dynamic(self._model, x, False, logger=self._log)

    @contextmanager
    def _no_trace(self) -> Iterator[None]:
        """Undo what the library does to the world; a debugger's or a coverage tool's trace function
        lives on."""
        tracer = sys.gettrace()
        try:
            with own_randomness(self._device), frozen(self._model):
                yield
        finally:
            sys.settrace(tracer)

    @property
    def _on_cpu_with_pyautoattack(self) -> bool:
        """Where our own pieces of FAB and Square were shown to give the library's numbers."""
        return self._device.type == "cpu" and self._library.__name__ == "pyautoattack"

    @contextmanager
    def _own_projection(self) -> Iterator[None]:
        """FAB with our projection, which gives the numbers of `pyautoattack`'s in half the time on
        a CPU."""
        if not self._on_cpu_with_pyautoattack:
            yield
            return
        fab: Any = import_module("pyautoattack.fab_base")
        theirs = fab.projection_linf
        fab.projection_linf = onto_hyperplane
        try:
            yield
        finally:
            fab.projection_linf = theirs


class _Warnings:
    """Stands in for the library's logger: keeps each warning once, prints nothing."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def warning(self, message: object) -> None:
        text = str(message).split(" See ")[0].strip()  # without the pointer to a file of theirs
        if text not in self.messages:
            self.messages.append(text)

    log = warning  # `autoattack` logs its warnings by this name, `pyautoattack` by the other

    def debug(self, message: object) -> None:
        """Progress lines: the caller shows progress."""

    info = debug


def _import_library() -> tuple[ModuleType, ModuleType]:
    for name in ("pyautoattack", "autoattack"):
        try:
            return import_module(name), import_module(f"{name}.checks")
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    raise RpatError("AutoAttack is not installed. Install it with: pip install pyautoattack")
