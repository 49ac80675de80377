"""Measure a model against a suite of attacks, sample by sample.

Every attack of the suite faces all samples that the model gets right; what it returns is verified
before it counts. The worst case over the attacks is the robust accuracy of the whole evaluation.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from rpat_cli.attacks.forward import gradient_reaches
from rpat_cli.attacks.side_effects import differentiable, frozen, own_randomness
from rpat_cli.attacks.surrogate import Surrogate, backward_through
from rpat_cli.attacks.threat import Threat
from rpat_cli.data.reading import AnyImages
from rpat_cli.data.splits import as_classes
from rpat_cli.errors import ConfigError
from rpat_cli.evaluation.arguments import check_images, check_labels, check_lengths, check_pixels
from rpat_cli.evaluation.attack_result import AttackResult
from rpat_cli.evaluation.audited import after_all, run_audit
from rpat_cli.evaluation.bench import Bench
from rpat_cli.evaluation.conclude import conclude
from rpat_cli.evaluation.fast import search_precision
from rpat_cli.evaluation.forecast import Forecast, Load, loads_of
from rpat_cli.evaluation.parallel.chunks import (
    ChooseRows,
    ChunkResult,
    Execute,
    OnChunk,
    OnProgress,
    Progress,
)
from rpat_cli.evaluation.parallel.desk import NotPortableError
from rpat_cli.evaluation.parallel.processes import Pool
from rpat_cli.evaluation.parallel.stages import SampleStates, StageRunner
from rpat_cli.evaluation.results import Evaluation
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.evaluation.verify import (
    NotFiniteError,
    Prediction,
    are_probabilities,
    batches,
    check_precision,
    checked_logits,
)
from rpat_cli.user_code import ascribed

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


def evaluate(
    model: nn.Module,
    x: AnyImages,
    y: Tensor,
    specs: Sequence[AttackSpec],
    threat: Threat,
    *,
    batch_size: int | None = None,
    device: torch.device | None = None,
    seed: int = 0,
    sources: Mapping[str, nn.Module] = MappingProxyType({}),
    workers: Pool | None = None,
    on_progress: OnProgress | None = None,
    on_chunk: OnChunk | None = None,
    on_result: OnResult | None = None,
    on_remark: OnRemark | None = None,
    known: Iterable[ChunkResult] = (),
    fast: bool = False,
    keep: ChooseRows | None = None,
    surrogates: Sequence[Surrogate] = (),
) -> Evaluation:
    """Attack `model` with every spec, in float32: images `x` (N, C, H, W) in [0, 1], labels `y`
    (N,).

    `x` may also be `Images`, which are read chunk by chunk, so that memory does not grow with their
    number. `x`, `y` may lie on any device; batches of at most `batch_size` (default:
    `default_batch_size`) go to `device` (default: where the model is), or to the `workers`, which
    then share them. The model is evaluated in eval mode; it, its gradients, and every global random
    generator come out as they went in. The same seed, model, data and batch size give the same
    flags, however many workers there are.

    `sources` holds, by label, the model that each transfer attack makes its images on; it too comes
    out as it went in, but for its device.

    `surrogates`: what the attacks' gradients pass in place of modules of the model (BPDA).

    `on_progress` is called for every chunk begun and done, `on_chunk` with each new chunk's result
    and `on_result` with each attack's, as soon as they are there: what they keep survives an
    interruption. Chunks kept from an earlier run of the same evaluation come back as `known` and
    are not run again. `on_remark` gets a message when the model cannot be sent to the workers, and
    all work is done here. `keep` chooses the adversarial images that come with each new chunk.

    `fast`: long attacks search in bfloat16 where that is faster on this model and device; see
    `rpat_cli.evaluation.fast`. What counts is measured in float32, as always.

    Raises `DataError` for images or labels of another form, `RpatError` for a model that is
    not float32 or whose logits are not finite, `ConfigError` for settings that an attack does not
    take or a batch size below 1.
    """
    device = device or _device_of(model)
    batch_size = default_batch_size(device) if batch_size is None else batch_size
    check_images(model, x, y, batch_size)
    y, known = as_classes(y), list(known)
    states: list[SampleStates] = []
    with (
        ascribed(model),
        differentiable(),
        frozen(model) as model,
        torch.autocast(device.type, enabled=False),
        own_randomness(device, seed),
        _ready(sources, specs, device) as own_sources,
    ):
        x, y = _usable(x), _usable(y)
        clean, classes, probabilities = _predict_clean(model, x, y, batch_size, device)
        whole = _without_results(threat, y, clean, classes, seed, batch_size)
        first = x[:batch_size].clone().to(device), y[:batch_size].clone().to(device)
        search = search_precision(fast, model, device, on_remark)
        more = (classes, probabilities, search, keep, surrogates)
        bench = _bench(model, threat, specs, first, seed, own_sources, *more)
        on_progress = on_progress and _forecast(bench, whole, on_progress)
        shared = (_executor(bench, workers, on_remark), x, y, batch_size, seed, known)
        for spec in specs:
            runner = StageRunner(spec.label, *shared, on_progress, on_chunk)
            states.append(SampleStates.clean(clean, whole.y))
            whole = _attack(runner, spec, bench, states, whole, on_remark)
            if on_result:
                on_result(whole.results[-1])
    return whole


def _usable(x: Any) -> Any:
    """Outside of `torch.inference_mode`, whose tensors no attack can follow a gradient to."""
    return x.clone() if isinstance(x, Tensor) and x.is_inference() else x


def _attack(
    runner: StageRunner,
    spec: AttackSpec,
    bench: Bench,
    states: list[SampleStates],
    whole: Evaluation,
    on_remark: OnRemark | None,
) -> Evaluation:
    """Attack all samples that the model gets right, or audit what the attacks before have left: the
    evaluation with the result.

    `states` are those of the attacks before and, last, a clean one, which becomes that of this
    attack.
    """
    prepared = bench.prepared(spec.label)
    stages, audit = list(prepared.stages), None
    if prepared.audited:
        *before, clean = states
        states[-1] = after_all(before, clean)
        audit = run_audit(runner, stages, states[-1], prepared.audited, on_remark)
    else:
        runner.run(stages, states[-1])
    result = conclude(spec, prepared, states[-1], whole, audit)
    return replace(whole, results=(*whole.results, result))


def _without_results(
    threat: Threat, y: Tensor, clean: Prediction, classes: int, seed: int, batch_size: int
) -> Evaluation:
    """What is known before the first attack."""
    return Evaluation(
        threat=threat,
        y=y.cpu(),
        clean_predicted=clean.predicted,
        results=(),
        seed=seed,
        batch_size=batch_size,
        clean_margin=clean.margin,
        clean_confidence=clean.confidence,
        classes=classes,
    )


def _bench(
    model: nn.Module,
    threat: Threat,
    specs: Sequence[AttackSpec],
    first: tuple[Tensor, Tensor],
    seed: int,
    sources: Mapping[str, nn.Module],
    classes: int,
    probabilities: bool,
    search: torch.dtype | None,
    keep: ChooseRows | None,
    surrogates: Sequence[Surrogate],
) -> Bench:
    """All attacks ready to run; `first` is a batch of images and classes, on the device."""
    x, y = first
    check_lengths(threat, specs, x)
    by_label = {spec.label: spec for spec in specs}
    with backward_through(model, surrogates):
        connected = gradient_reaches(model, x[:1])
    bench = Bench(
        model,
        threat,
        by_label,
        x,
        y,
        seed,
        x.device,
        connected,
        sources,
        classes,
        probabilities,
        search,
        keep,
        surrogates,
    )
    bench.prepare_all()
    return bench


def _predict_clean(
    model: nn.Module, x: AnyImages, y: Tensor, batch_size: int, device: torch.device
) -> tuple[Prediction, int, bool]:
    """What the model makes of the images as they are, how many classes it tells apart, and whether
    it returns probabilities.

    Raises what `checked_logits` raises, and `DataError` for labels of no class, or pixels outside
    of [0, 1].
    """
    clean: list[Prediction] = []
    done, classes, probabilities = 0, 0, True
    for x_part, y_part in batches(x, y, batch_size, device):
        check_pixels(x_part)
        try:
            logits = checked_logits(model, x_part)
        except NotFiniteError as error:
            raise NotFiniteError(error.bad, error.x, first=done) from None
        if not done:
            classes = logits.shape[1]
            check_labels(y, classes)
        probabilities = probabilities and are_probabilities(logits)
        clean.append(Prediction.of(logits, y_part))
        done += len(x_part)
    return Prediction.join(clean), classes, probabilities


def _forecast(bench: Bench, whole: Evaluation, on_progress: OnProgress) -> Forecast:
    loads: list[Load] = []
    for spec in bench.specs.values():
        prepared = bench.prepared(spec.label)
        loads += loads_of(spec, list(prepared.stages), prepared.settings)
    return Forecast(loads, whole.n, whole.clean.correct, on_progress)


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


def _executor(bench: Bench, workers: Pool | None, on_remark: OnRemark | None) -> Execute:
    """Who attacks the chunks."""
    if workers is not None:
        try:
            workers.give(bench)
            return workers.execute
        except NotPortableError as error:
            if on_remark:
                on_remark(
                    f"the model or an attack cannot be sent to other processes ({error}): "
                    "continuing in this one alone"
                )
    return bench.attack_all


def _device_of(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
