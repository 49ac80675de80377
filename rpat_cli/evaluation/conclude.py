"""What came of an attack: from the states of its samples to its result."""

from collections.abc import Mapping, Sequence

from rpat_cli.attacks.threat import Threat, wider_than_ball
from rpat_cli.evaluation.attack_result import AttackResult, StageResult
from rpat_cli.evaluation.audit import Audit
from rpat_cli.evaluation.bench import Prepared
from rpat_cli.evaluation.fast import note_on
from rpat_cli.evaluation.parallel.stages import SampleStates
from rpat_cli.evaluation.results import Evaluation
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.evaluation.words import IN_FLOAT32


def conclude(
    spec: AttackSpec,
    prepared: Prepared,
    state: SampleStates,
    whole: Evaluation,
    audit: Audit | None,
) -> AttackResult:
    """The result of an attack: `state` is what it left, `whole` what was known before it."""
    attacked = audit.sampled if audit else whole.clean.correct
    stages = _stages(prepared, state, attacked)
    flags = list(prepared.flags)
    notes = [note_on(stages)] if prepared.fast else []
    notes += [*prepared.notes, *_doubt(whole.threat, spec.settings)]
    if prepared.ensemble:
        total = audit.sampled if audit else whole.n
        prepared.ensemble.look_at_result(_accuracies(stages, attacked, total))
        flags += prepared.ensemble.flags
        notes += prepared.ensemble.notes
    for chunk in state.chunks:
        flags += chunk.flags
    if strays := sum(chunk.strays for chunk in state.chunks):
        notes.append(
            f"{strays} images that the attack returned were outside the threat model and did not "
            "count"
        )
    if audit:
        notes.append(audit.statement)
    return AttackResult(
        name=spec.name,
        label=spec.label,
        threat=whole.threat,
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
        audit=audit,
    )


def _stages(prepared: Prepared, state: SampleStates, attacked: int) -> list[StageResult]:
    """What each stage did; those that no image was left for are left out."""
    stages = []
    for number, name in enumerate(prepared.stages):
        chunks = [chunk for chunk in state.chunks if chunk.stage == number]
        if not chunks:
            break
        stage = StageResult(
            name,
            attacked=attacked,
            broken=sum(int(chunk.broken.sum()) for chunk in chunks),
            seconds=sum(chunk.seconds for chunk in chunks),
            forward=sum(chunk.forward for chunk in chunks),
            backward=sum(chunk.backward for chunk in chunks),
        )
        stages.append(stage)
        attacked -= stage.broken
    return stages


def _accuracies(stages: Sequence[StageResult], attacked: int, total: int) -> dict[str, float]:
    """Robust accuracy after each stage, with "clean" first, as AutoAttack's last check takes it."""
    accuracy = {"clean": attacked / max(total, 1)}
    for stage in stages:
        # What attacks again after Square would hide that Square was the strongest.
        if stage.name.endswith(IN_FLOAT32):
            continue
        accuracy[stage.name] = (stage.attacked - stage.broken) / total
    return accuracy


def _doubt(threat: Threat, settings: Mapping[str, object]) -> list[str]:
    step_size = settings.get("step_size")
    doubt = wider_than_ball(step_size, threat.eps) if isinstance(step_size, int | float) else ""
    return [doubt] if doubt else []
