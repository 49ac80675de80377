"""Measure a model against a suite of attacks, sample by sample.

Every attack of the suite faces all samples that the model gets right; what it returns is verified
before it counts. The worst case over the attacks is the robust accuracy of the whole evaluation.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS, SEARCHES
from rpat_cli.attacks.autoattack import AutoAttack, Ensemble
from rpat_cli.attacks.forward import gradient_reaches
from rpat_cli.attacks.side_effects import frozen, own_randomness
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError, DataError, Problem
from rpat_cli.evaluation.forecast import Forecast, Load, loads_of
from rpat_cli.evaluation.parallel.chunks import (
    ChunkResult,
    Execute,
    OnChunk,
    OnProgress,
    Progress,
    Runner,
    State,
    Task,
)
from rpat_cli.evaluation.parallel.desk import NotPortableError
from rpat_cli.evaluation.parallel.processes import Helpers
from rpat_cli.evaluation.results import AttackResult, Evaluation, StageResult
from rpat_cli.evaluation.suite import FOLLOW_A_GRADIENT, AttackSpec
from rpat_cli.evaluation.verify import Prediction, batches, check_precision, checked_logits, verify
from rpat_cli.passes import count_passes

__all__ = ["AttackResult", "Evaluation", "OnResult", "Progress", "default_batch_size", "evaluate"]

OnResult = Callable[[AttackResult], None]
OnRemark = Callable[[str], None]


def default_batch_size(device: torch.device) -> int:
    """Images attacked at a time: AutoAttack's own 250, but on a CPU pieces small enough to be
    shared out evenly.

    There, 100 costs a few per cent more arithmetic than 250, and keeps two cores busy to the end
    with a few hundred images.
    """
    return 100 if device.type == "cpu" else 250


@dataclass(frozen=True)
class _Prepared:
    """An attack of the suite made ready for a model: functions from a batch (x, y) to x_adv, by the
    stage's name.

    The ensemble is there only if it is AutoAttack. `flags` are warnings that hold from the start.
    """

    stages: Mapping[str, Callable[[Tensor, Tensor], Tensor]]
    settings: dict[str, Any]
    ensemble: Ensemble | None = None
    flags: tuple[str, ...] = ()

    def without_gradient(self) -> "_Prepared":
        """The same for a model through which no gradient comes: what would follow one stays where
        it is."""
        stuck = [name for name in self.stages if name in FOLLOW_A_GRADIENT]
        flag = (
            "no gradient reaches the input: the model cuts it off (detach, no_grad?), so "
            f"{', '.join(stuck)} could not "
            "take a step and broke nothing. Judge it by attacks without gradients: square, "
            "transfer:RUN."
        )
        stages = {**self.stages, **dict.fromkeys(stuck, _stay)}
        return replace(self, stages=stages, flags=(flag,)) if stuck else self


@dataclass
class _Bench:
    """A model and the attacks of a suite, ready to attack chunks: in this process, or pickled, in
    others.

    `x`, `y` are a first batch for AutoAttack to look at the model with. `connected`: a gradient
    comes through it.
    `sources`: the model that a transfer attack makes its images on, by the attack's label.
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
    _prepared: dict[str, _Prepared] = field(default_factory=dict)

    def open(self, device: torch.device) -> None:
        """Move to another device, after the way to another process."""
        self.device = device
        self.model, self.x, self.y = self.model.to(device), self.x.to(device), self.y.to(device)
        for source in self.sources.values():
            source.to(device)

    def __getstate__(self) -> dict[str, Any]:
        """AutoAttack is built anew where it arrives; other attacks travel, since a plugin's table
        stays here.

        Tensors travel through main memory: otherwise every process would also open the GPU that
        this one uses.
        """
        portable = {
            label: attack for label, attack in self._prepared.items() if attack.ensemble is None
        }
        model = self.model if self.device.type == "cpu" else copy.deepcopy(self.model).cpu()
        return {
            **self.__dict__,
            "model": model,
            "x": self.x.cpu(),
            "y": self.y.cpu(),
            "_prepared": portable,
        }

    def prepared(self, label: str) -> _Prepared:
        if label not in self._prepared:
            attacked = self.sources.get(label, self.model)
            prepared = _prepare(self.specs[label], self.threat, self.seed, attacked, self.x, self.y)
            self._prepared[label] = prepared if self.connected else prepared.without_gradient()
        return self._prepared[label]

    def attack_all(self, tasks: Iterable[Task]) -> Iterator[ChunkResult]:
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
            torch.autocast(self.device.type, enabled=False),
            count_passes(model) as passes,
            own_randomness(self.device, task.seed),
        ):
            verified = verify(model, self.threat, x, y, perturb(x, y))
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
        )


def evaluate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    specs: Sequence[AttackSpec],
    threat: Threat,
    *,
    batch_size: int | None = None,
    device: torch.device | None = None,
    seed: int = 0,
    sources: Mapping[str, nn.Module] = MappingProxyType({}),
    workers: Helpers | None = None,
    on_progress: OnProgress | None = None,
    on_chunk: OnChunk | None = None,
    on_result: OnResult | None = None,
    on_remark: OnRemark | None = None,
    known: Iterable[ChunkResult] = (),
) -> Evaluation:
    """Attack `model` with every spec on images `x` (N, C, H, W) in [0, 1] and labels `y` (N,), in
    float32.

    `x`, `y` may lie on any device; batches of at most `batch_size` (default: `default_batch_size`)
    go to `device` (default: where the model is), or to the `workers`, who then share them. The
    model is evaluated in eval mode; it, its gradients, and every global random generator come out
    as they went in. The same seed, model, data and batch size give the same flags, however many
    workers there are.

    `sources` holds, by label, the model that each transfer attack makes its images on; it too comes
    out as it went in, but for its device.

    `on_progress` hears of every chunk begun and done, `on_chunk` gets each new chunk's result and
    `on_result` each attack's, as soon as they are there: what they keep survives an interruption.
    Chunks kept from an earlier run of the same evaluation come back as `known` and are not run
    again. `on_remark` is told when the model cannot be handed to the workers, and all work is done
    here.

    Raises `DataError` for images or labels that are not as said, `RpatError` for a model that is
    not float32 or whose logits are not finite, `ConfigError` for settings that an attack does not
    take or a batch size below 1.
    """
    device = device or _device_of(model)
    batch_size = default_batch_size(device) if batch_size is None else batch_size
    if batch_size < 1:
        raise ConfigError(f"a batch must hold at least 1 image, given {batch_size}.")
    _check_data(x, y)
    known = list(known)
    results: list[AttackResult] = []
    with (
        frozen(model) as model,
        torch.autocast(device.type, enabled=False),
        own_randomness(device, seed),
        _ready(sources, specs, device) as own_sources,
    ):
        check_precision(model)
        classes = checked_logits(model, x[:1].to(device)).shape[1]
        _check_labels(y, classes)
        parts = batches(x, y, batch_size, device)
        clean = Prediction.join(
            [Prediction.of(checked_logits(model, x_part), y_part) for x_part, y_part in parts]
        )
        y_cpu = y.cpu()
        first_x, first_y = x[:batch_size].clone().to(device), y[:batch_size].clone().to(device)
        connected = gradient_reaches(model, first_x[:1])
        by_label = {spec.label: spec for spec in specs}
        bench = _Bench(
            model, threat, by_label, first_x, first_y, seed, device, connected, own_sources
        )
        _prepare_all(bench)  # before the first runs: mistakes in the last need not wait for hours
        if on_progress:
            loads = [load for spec in specs for load in _loads(spec, bench.prepared(spec.label))]
            on_progress = Forecast(
                loads, len(y), int((clean.predicted == y_cpu).sum()), on_progress
            )
        execute = _executor(bench, workers, on_remark)
        for spec in specs:
            prepared = bench.prepared(spec.label)
            state = State.clean(clean, y_cpu)
            runner = Runner(
                label=spec.label,
                execute=execute,
                x=x,
                y=y,
                chunk_size=batch_size,
                seed=seed,
                known=known,
                on_progress=on_progress,
                on_chunk=on_chunk,
            )
            runner.run(list(prepared.stages), state)
            result = _result(spec, prepared, state, threat, int((clean.predicted == y_cpu).sum()))
            results.append(result)
            if on_result:
                on_result(result)
    return Evaluation(
        threat=threat,
        y=y_cpu,
        clean_predicted=clean.predicted,
        results=tuple(results),
        seed=seed,
        batch_size=batch_size,
        clean_margin=clean.margin,
        clean_confidence=clean.confidence,
        classes=classes,
    )


@contextmanager
def _ready(
    sources: Mapping[str, nn.Module], specs: Sequence[AttackSpec], device: torch.device
) -> Iterator[Mapping[str, nn.Module]]:
    """The models that transfer attacks start from, on the device and frozen. Raises `ConfigError`
    if one is missing."""
    if missing := [
        spec.label for spec in specs if spec.name == "transfer" and spec.label not in sources
    ]:
        raise ConfigError(f"no source model was given for {', '.join(missing)}.")
    with ExitStack() as stack:
        for source in sources.values():
            check_precision(source)
        yield {
            label: stack.enter_context(frozen(source.to(device)))
            for label, source in sources.items()
        }


def _executor(bench: _Bench, workers: Helpers | None, on_remark: OnRemark | None) -> Execute:
    """Who attacks the chunks."""
    if workers is not None:
        try:
            workers.give(bench)
            return workers.execute
        except NotPortableError as error:
            if on_remark:
                on_remark(
                    f"the model cannot be handed to other processes ({error}): going on in this "
                    "one alone"
                )
    return bench.attack_all


def _prepare_all(bench: _Bench) -> None:
    """Raises `ConfigError` with the mistakes of all attacks."""
    problems: list[Problem] = []
    for label in bench.specs:
        try:
            bench.prepared(label)
        except ConfigError as error:
            problems += [replace(problem, source=label) for problem in error.problems]
    if problems:
        raise ConfigError(
            *problems, title=f"{len(problems)} mistakes in the attacks" if len(problems) > 1 else ""
        )


def _prepare(
    spec: AttackSpec, threat: Threat, seed: int, model: nn.Module, x: Tensor, y: Tensor
) -> _Prepared:
    """Build the attack of a spec on `model`; `x`, `y` are a first batch for AutoAttack to look at
    it with."""
    if spec.name == "clean":
        return _Prepared({}, {})
    if spec.name == "autoattack":
        ensemble = AutoAttack(threat, seed=seed, **_typed(spec.settings)).on(model, x, y)
        stages = {name: partial(ensemble.perturb, name) for name in ensemble.names}
        settings = {
            "version": spec.settings.get("version", "standard"),
            "library": ensemble.library,
            "attacks": {name: ensemble.settings(name) for name in ensemble.names},
        }
        return _Prepared(stages, settings, ensemble)
    if spec.name == "transfer":
        settings = dict(spec.settings)
        made_on = {key: settings.pop(key) for key in ("source", "attack")}
        attack = ATTACKS[str(made_on["attack"])](threat, **settings)
        return _Prepared({spec.name: partial(attack, model)}, {**made_on, **_settings_of(attack)})
    attack = (SEARCHES if spec.name in SEARCHES else ATTACKS)[spec.name](threat, **spec.settings)
    return _Prepared({spec.name: partial(attack, model)}, _settings_of(attack))


def _loads(spec: AttackSpec, prepared: _Prepared) -> list[Load]:
    return loads_of(spec, list(prepared.stages), prepared.settings)


def _stay(x: Tensor, y: Tensor) -> Tensor:  # noqa: ARG001  (an attack's arguments)
    return x


def _typed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A suite read from JSON or YAML has lists where AutoAttack wants tuples."""
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()
    }


def _settings_of(attack: Any) -> dict[str, Any]:
    """Every field of an attack, with its resolved value; the threat stands elsewhere."""
    values = {
        field.name: getattr(attack, field.name)
        for field in fields(attack)
        if field.name != "threat"
    }
    return {
        key: value if isinstance(value, int | float | str) else repr(value)
        for key, value in values.items()
    }


def _result(
    spec: AttackSpec, prepared: _Prepared, state: State, threat: Threat, clean_correct: int
) -> AttackResult:
    stages = []
    accuracy = {"clean": clean_correct / len(state.robust)}
    left = clean_correct
    for number, name in enumerate(prepared.stages):
        chunks = [chunk for chunk in state.chunks if chunk.stage == number]
        if not chunks:  # nothing was left to attack
            break
        broken = sum(int(chunk.broken.sum()) for chunk in chunks)
        stages.append(
            StageResult(
                name,
                attacked=left,
                broken=broken,
                seconds=sum(chunk.seconds for chunk in chunks),
                forward=sum(chunk.forward for chunk in chunks),
                backward=sum(chunk.backward for chunk in chunks),
            )
        )
        left -= broken
        accuracy[name] = left / len(state.robust)
    flags = list(prepared.flags)
    notes: list[str] = []
    if prepared.ensemble:
        prepared.ensemble.look_at_result(accuracy)
        flags += prepared.ensemble.flags
        notes += prepared.ensemble.notes
    flags += [flag for chunk in state.chunks for flag in chunk.flags]
    if strays := sum(chunk.strays for chunk in state.chunks):
        notes.append(
            f"{strays} answers of the attack were no images inside the threat and did not count"
        )
    return AttackResult(
        name=spec.name,
        label=spec.label,
        threat=threat,
        settings=prepared.settings,
        correct_after=state.robust,
        predicted=state.predicted,
        broken_by=state.broken_by,
        distance=state.distance,
        margin=state.margin,
        confidence=state.confidence,
        stages=tuple(stages),
        seconds=sum(chunk.seconds for chunk in state.chunks),
        forward=sum(chunk.forward for chunk in state.chunks),
        backward=sum(chunk.backward for chunk in state.chunks),
        flags=tuple(dict.fromkeys(flags)),
        notes=tuple(notes),
    )


def _device_of(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _check_data(x: Tensor, y: Tensor) -> None:
    if x.ndim != 4 or y.shape != x.shape[:1] or not len(x):
        raise DataError(
            f"evaluation needs images (N, C, H, W) and labels (N,), given {tuple(x.shape)} and "
            f"{tuple(y.shape)}."
        )
    low, high = x.aminmax()
    if not x.is_floating_point() or not (low >= 0 and high <= 1):
        raise DataError(
            f"images must be floats in [0, 1], given {x.dtype} in [{low:.4g}, {high:.4g}]. "
            "Divide bytes by 255; normalisation belongs into the model."
        )


def _check_labels(y: Tensor, classes: int) -> None:
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"labels run from {low} to {high}, but the model has {classes} classes (0 to "
            f"{classes - 1}). "
            "Is this the data set that it was trained on?"
        )
