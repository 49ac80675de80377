"""A model and the attacks of a suite, made ready to attack chunk after chunk, here or in another
process."""

import copy
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.audited import Audited
from rpat_cli.attacks.autoattack import AutoAttack, Ensemble
from rpat_cli.attacks.brought import Perturb, attacked
from rpat_cli.attacks.cascade import Cascade
from rpat_cli.attacks.catalogue import NoAttack, Transfer
from rpat_cli.attacks.side_effects import exact_float32, frozen, own_randomness
from rpat_cli.attacks.surrogate import Surrogate, backward_through
from rpat_cli.attacks.threat import Threat
from rpat_cli.data.heap import give_back
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.evaluation.fast import Reduced, check_in_float32, is_worth_it
from rpat_cli.evaluation.parallel.chunks import ChooseRows, ChunkResult, Kept, Task
from rpat_cli.evaluation.suite import AttackSpec, parse_suite
from rpat_cli.evaluation.verify import Verified, verify
from rpat_cli.evaluation.words import row_of_stage
from rpat_cli.passes import count_passes
from rpat_cli.registry import import_file, imported_files
from rpat_cli.user_code import is_brought

PROBABILITIES = (
    "the model returns probabilities, not logits: a second softmax in the loss flattens its "
    "gradients, and the robust accuracy comes out too high. Return the logits, or log(p)."
)


@dataclass(frozen=True)
class Prepared:
    """An attack of the suite, ready for a model.

    `attack`: its name in the catalogue. `stages`: what it consists of, by name; the attack alone,
    the parts of a cascade, or those of AutoAttack, whose `ensemble` is there only then. `settings`
    are resolved, for the record. `flags` are warnings, and `notes` remarks, that hold from the
    start. `fast`: it searches in reduced precision, and its last stage attacks in float32 what is
    left. `audited`: it attacks a random sample only.
    """

    attack: str
    stages: Mapping[str, Perturb]
    settings: Mapping[str, Any]
    ensemble: Ensemble | None = None
    flags: tuple[str, ...] = ()
    audited: Audited | None = None
    notes: tuple[str, ...] = ()
    fast: bool = False

    def then_checked(self, name: str, perturb: Perturb, dtype: torch.dtype) -> "Prepared":
        """The same, searching in `dtype`, with a last stage that attacks in float32 what is
        left."""
        search = str(dtype).removeprefix("torch.")
        settings = {**self.settings, "search": search, "checked_by": name}
        return replace(self, stages={**self.stages, name: perturb}, settings=settings, fast=True)

    def on_probabilities(self) -> "Prepared":
        """The same for a model that returns probabilities: what follows its gradient is warned
        of."""
        if not self._following():
            return self
        return replace(self, flags=(*self.flags, PROBABILITIES))

    def without_gradient(self) -> "Prepared":
        """The same for a model that no gradient comes through: what follows one does nothing."""
        stuck = self._following()
        if not stuck:
            return self
        flag = (
            "no gradient reaches the input: the model cuts it off (detach, no_grad?), so "
            f"{', '.join(stuck)} could not take a step and broke nothing. Judge it by attacks "
            "without gradients: square, transfer:RUN."
        )
        stages = {**self.stages, **dict.fromkeys(stuck, _unchanged)}
        return replace(self, stages=stages, flags=(*self.flags, flag))

    def past(self, surrogates: Sequence[Surrogate]) -> "Prepared":
        """The same where gradients pass stand-ins, which is recorded."""
        if not surrogates or not self._following():
            return self
        written = {each.module: each.written for each in surrogates}
        listed = ", ".join(f"{module} as {text}" for module, text in written.items())
        note = f"its gradients pass {listed} (--surrogate); what the model computes is unchanged"
        settings = {**self.settings, "surrogates": written}
        return replace(self, settings=settings, notes=(*self.notes, note))

    def _following(self) -> list[str]:
        """The stages that follow a gradient."""
        rows = {name: row_of_stage(self.attack, name) for name in self.stages}
        return [name for name, row in rows.items() if row.follows_gradient]


@dataclass
class Bench:
    """A model and the attacks of a suite, by label.

    `x`, `y` are a first batch for AutoAttack to look at the model with. `connected`: a gradient
    comes through the model. `sources`: the model that a transfer attack makes its images on, by the
    attack's label. `classes`: how many the model tells apart. `probabilities`: it returns them, in
    place of logits. `search`: the reduced precision in which long attacks search; None: all is in
    float32. `keep`: whose adversarial images come along with the results. `surrogates`: what the
    gradients of attacks pass in place of its modules.
    """

    model: nn.Module
    threat: Threat
    specs: Mapping[str, AttackSpec]
    x: Tensor
    y: Tensor
    seed: int
    device: torch.device
    connected: bool
    sources: Mapping[str, nn.Module]
    classes: int
    probabilities: bool = False
    search: torch.dtype | None = None
    keep: ChooseRows | None = None
    surrogates: Sequence[Surrogate] = ()
    _prepared: dict[str, Prepared] = field(default_factory=dict)

    def open(self, device: torch.device) -> None:
        """Move to another device, after the way to another process."""
        self.device = device
        self.model, self.x, self.y = self.model.to(device), self.x.to(device), self.y.to(device)
        for source in self.sources.values():
            source.to(device)

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is pickled: what it is made of comes after the files that define parts of it.

        AutoAttack is built anew where it arrives; other attacks travel. Tensors travel through main
        memory: otherwise every process would also open the GPU that this one uses.
        """
        portable = {
            label: attack
            for label, attack in self._prepared.items()
            if attack.ensemble is None and not attack.fast
        }
        model = self.model if self.device.type == "cpu" else copy.deepcopy(self.model).cpu()
        state = {
            **self.__dict__,
            "model": model,
            "x": self.x.cpu(),
            "y": self.y.cpu(),
            "_prepared": portable,
        }
        return _arrive, (imported_files(),), state

    def prepare_all(self) -> None:
        """Prepare every attack before the first runs: mistakes in the last need not wait for hours.

        Raises `ConfigError` with the mistakes of all attacks.
        """
        problems: list[Problem] = []
        for label in self.specs:
            try:
                self.prepared(label)
            except ConfigError as error:
                problems += [replace(problem, source=label) for problem in error.problems]
        if problems:
            title = f"{len(problems)} mistakes in the attacks" if len(problems) > 1 else ""
            raise ConfigError(*problems, title=title)

    def prepared(self, label: str) -> Prepared:
        """The attack of that label. Raises `ConfigError` for settings that it does not take."""
        if label not in self._prepared:
            prepared = self._prepare(label)
            if self.probabilities:
                prepared = prepared.on_probabilities()
            prepared = prepared if self.connected else prepared.without_gradient()
            self._prepared[label] = prepared.past(self.surrogates)
        return self._prepared[label]

    def attack_all(self, tasks: Iterable[Task]) -> Iterator[ChunkResult]:
        """Attack chunk after chunk in this process."""
        return map(self.attack, tasks)

    def attack(self, task: Task) -> ChunkResult:
        """Attack one chunk, and verify what comes back."""
        prepared = self.prepared(task.label)
        flags = prepared.ensemble.flags if prepared.ensemble else []
        flags_before = len(flags)
        perturb = list(prepared.stages.values())[task.stage]
        x, y = task.x.to(self.device), task.y.to(self.device)
        with (
            frozen(self.model) as model,
            exact_float32(self.device),
            count_passes(model) as passes,
            own_randomness(self.device, task.seed),
        ):
            with backward_through(self.model, self.surrogates):
                x_adv = attacked(perturb, x, y)
            verified = verify(model, self.threat, x, y, x_adv)
        give_back()
        return ChunkResult(
            label=task.label,
            stage=task.stage,
            chunk=task.chunk,
            indices=task.indices,
            broken=verified.broken.cpu(),
            predicted=verified.prediction.predicted.cpu(),
            margin=verified.prediction.margin.cpu(),
            confidence=verified.prediction.confidence.cpu(),
            distance=verified.distance.cpu(),
            strays=int((~verified.inside).sum()),
            forward=passes.forward_samples,
            backward=passes.backward_samples,
            flags=tuple(flags[flags_before:]),
            kept=self._kept(verified, task.y),
        )

    def _kept(self, verified: Verified, y: Tensor) -> Kept | None:
        if self.keep is None:
            return None
        rows = self.keep(verified.broken.cpu(), verified.prediction.margin.cpu(), y.cpu())
        return Kept(rows, verified.x_adv[rows.to(verified.x_adv.device)].cpu())

    def _prepare(self, label: str) -> Prepared:
        spec = self.specs[label]
        model = self.sources.get(label, self.model)
        attack = ATTACKS[spec.name](self.threat, **spec.settings)
        if isinstance(attack, NoAttack):
            return Prepared(spec.name, {}, {})
        exact = isinstance(attack, Audited)  # its bound is on AutoAttack as it is
        if self.search is None or exact or label in self.sources or not is_worth_it(spec):
            return self._on(model, attack, spec)
        check = check_in_float32(model, self.threat, self.x, self.y, self.seed)
        prepared = self._on(Reduced(model, self.search), attack, spec)
        return prepared.then_checked(*check, self.search)

    def _on(self, model: nn.Module, attack: Any, spec: AttackSpec) -> Prepared:
        if isinstance(attack, Cascade):
            return self._of_cascade(model, attack, spec.name)
        if isinstance(attack, AutoAttack):
            return _of_autoattack(replace(attack, seed=self.seed).on(model, self.x, self.y), attack)
        if isinstance(attack, Audited):
            inner = replace(attack.autoattack, seed=self.seed)
            prepared = _of_autoattack(inner.on(model, self.x, self.y), inner)
            asked = {"width": attack.width, "level": attack.level}
            return replace(prepared, settings={**prepared.settings, **asked}, audited=attack)
        stages = {spec.name: partial(attack, model)}
        settings = _settings_of(attack, spec.settings)
        return Prepared(spec.name, stages, settings, notes=_remarks(attack, self.classes))

    def _of_cascade(self, model: nn.Module, cascade: Cascade, name: str) -> Prepared:
        stages: dict[str, Perturb] = {}
        settings: dict[str, Any] = {}
        notes: list[str] = []
        for spec in parse_suite(cascade.words):
            attack = ATTACKS[spec.name](self.threat, **spec.settings)
            stages[spec.label] = partial(attack, model)
            settings[spec.label] = _settings_of(attack, spec.settings)
            notes += _remarks(attack, self.classes)
        return Prepared(name, stages, {"attacks": settings}, notes=tuple(dict.fromkeys(notes)))


def _of_autoattack(ensemble: Ensemble, attack: AutoAttack) -> Prepared:
    stages = {name: partial(ensemble.perturb, name) for name in ensemble.names}
    settings = {
        "version": attack.version,
        "library": ensemble.library,
        "attacks": {name: ensemble.settings(name) for name in ensemble.names},
    }
    return Prepared("autoattack", stages, settings, ensemble)


def _settings_of(attack: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every field of an attack with its resolved value but the threat, which is recorded elsewhere.

    Of an attack that is no dataclass, as a plugin's may be, only the settings given are known.
    """
    if isinstance(attack, Transfer):
        made_on = {"source": attack.source, "attack": attack.attack}
        own = {key: value for key, value in given.items() if key not in made_on}
        return made_on | _settings_of(attack.made_by, own)
    if not is_dataclass(attack):
        return dict(given)
    values = {each.name: getattr(attack, each.name) for each in fields(attack)}
    return {
        key: value if isinstance(value, int | float | str) else repr(value)
        for key, value in values.items()
        if key != "threat"
    }


def _remarks(attack: Any, classes: int) -> tuple[str, ...]:
    """What an attack of ours has to say of a model of so many classes."""
    made_by = attack.made_by if isinstance(attack, Transfer) else attack
    if is_brought(type(made_by)) or not hasattr(made_by, "remarks"):
        return ()
    return tuple(made_by.remarks(classes))


def _unchanged(x: Tensor, y: Tensor) -> Tensor:  # noqa: ARG001  (an attack's arguments)
    return x


def _arrive(files: Mapping[str, Path]) -> Bench:
    """An empty bench in another process, where the user's files are run first: the classes of their
    attacks and models are found in them.

    A file that fails here may not be needed; if it is, reading the bench fails at the class that is
    missing, and the sender gets that error.
    """
    for name, path in files.items():
        if name not in sys.modules:
            with suppress(Exception, SystemExit):
                import_file(path, name)
    return Bench.__new__(Bench)
