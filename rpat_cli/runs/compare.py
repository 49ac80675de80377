"""Two models from disk, compared: what `rpat compare` calls.

What is compared must match: the same checkpoint, the same images, the same threat model, the same
settings of an attack. A run has many evaluations; its attacks are gathered from all that match.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rpat_cli.attacks.threat import Threat
from rpat_cli.data.splits import limited_choice
from rpat_cli.errors import DataError, RunFolderError
from rpat_cli.evaluation.attack_result import AttackResult
from rpat_cli.evaluation.compare import Comparison, compare, restricted, settings_differ
from rpat_cli.evaluation.results import Evaluation, parse_evaluation
from rpat_cli.records import eval_file
from rpat_cli.records.run_folder import RunFolder, is_run, open_run
from rpat_cli.reports.evaluations import Measured, read_evaluations
from rpat_cli.reports.training import read_checkpoints
from rpat_cli.reports.words import show_threat
from rpat_cli.runs.compare_more import audits, compared_unions
from rpat_cli.runs.matched import Matched
from rpat_cli.text import counted

BEST = "best"


@dataclass(frozen=True)
class Side:
    """One of the two models: the evaluations of one checkpoint of it, oldest first, on any images
    and under any threat."""

    path: Path
    checkpoint: str
    evaluations: tuple[Measured, ...]
    remarks: tuple[str, ...] = ()


def compare_files(a: Path, b: Path, checkpoint: str | None = None) -> list[Comparison]:
    """The comparisons of `match`."""
    return match(a, b, checkpoint).comparisons


def match(a: Path, b: Path, checkpoint: str | None = None) -> Matched:
    """Compare two evaluations by their JSON files, or two runs by all of their evaluations, or one
    of each.

    `checkpoint`: which one of a run (default: that of the file on the other side, or "best").
    Raises `RunFolderError` for a file that is missing or no evaluation and for a checkpoint that
    was not evaluated, `DataError` when images, threat models or settings do not match.
    """
    wanted = checkpoint or _of_a_file(a) or _of_a_file(b) or BEST
    first, second = _side(a, wanted), _side(b, wanted)
    pairs = _same_images_and_threat(first, second)
    chosen_a, chosen_b = pairs[0]
    remarks = [*first.remarks, *second.remarks]
    if first.checkpoint != second.checkpoint:
        remarks.append(
            f"A is the checkpoint {first.checkpoint}, and B is {second.checkpoint}: the difference "
            "may come from that"
        )
    for name, side, chosen in (("A", first, chosen_a), ("B", second, chosen_b)):
        if not any(chosen[0] is each for each in side.evaluations):
            n = chosen[0].evaluation.n
            remarks.append(
                f"{name} was evaluated on all test images, and the other on {n} of them: these are "
                "compared"
            )
    remarks += [
        f"both were also evaluated on {_described(others[0])}: name those files to compare them"
        for others, _ in pairs[1:]
    ]
    files_a, files_b, said = _gathered(chosen_a, chosen_b)
    said += [*audits("A", files_a), *audits("B", files_b)]
    joined_a, joined_b = _joined(chosen_a, files_a), _joined(chosen_b, files_b)
    return Matched(
        [*compare(joined_a, joined_b), *compared_unions(first.evaluations, second.evaluations)],
        chosen_a[0].file.data,
        joined_a.limit,
        joined_a.threat,
        first.checkpoint,
        second.checkpoint,
        {source.file.path: list(results) for source, results in files_a},
        {source.file.path: list(results) for source, results in files_b},
        [*remarks, *said],
    )


def evals_of(path: Path) -> Path:
    """The folder with the evaluations of a run, or of a model that rpat has not trained
    (`runs/external/NAME`). Raises `RunFolderError` for any other folder."""
    folder = RunFolder(path)
    return folder.evals if folder.evals.is_dir() else open_run(path).evals


def _of_a_file(path: Path) -> str | None:
    """The checkpoint that an evaluation's file is about; None for a folder."""
    return None if path.is_dir() else eval_file.read(path).checkpoint


def _side(path: Path, checkpoint: str) -> Side:
    if not path.is_dir():
        file = eval_file.read(path)
        return Side(path, file.checkpoint, (Measured(file, parse_evaluation(file), ()),))
    remarks: list[str] = []
    evals_of(path)
    folder = RunFolder(path)
    checkpoints = read_checkpoints(folder) if is_run(path) else ()
    every = read_evaluations(folder, checkpoints, remarks)
    remarks = [f"{path}: {remark}" for remark in remarks]
    if not every:
        damaged = f" ({'; '.join(remarks)})" if remarks else ""
        raise RunFolderError(
            f"{path} has not been evaluated yet{damaged}. Evaluate it: rpat eval {path}"
        )
    names = _names(every, known=bool(checkpoints))
    if checkpoint not in names and not is_run(path) and len(names) == 1:
        (checkpoint,) = names  # a file of other code has no "best"
    if checkpoint not in names:
        measured = ", ".join(names) or "none that is still there"
        raise RunFolderError(
            f"the checkpoint {checkpoint} of {path} has not been evaluated; evaluated: {measured}. "
            f"Evaluate it with rpat eval {path} --checkpoint {checkpoint}, or name another "
            "checkpoint with --checkpoint."
        )
    return Side(path, checkpoint, names[checkpoint], tuple(remarks))


def _names(every: Sequence[Measured], *, known: bool) -> dict[str, tuple[Measured, ...]]:
    """The evaluations by the checkpoint that they are about.

    Where the training is `known`, those of weights that it has replaced are of no checkpoint.
    """
    found: dict[str, tuple[Measured, ...]] = {}
    for each in every:
        names = [checkpoint.name for checkpoint in each.checkpoints]
        for name in names if known else [each.file.checkpoint]:
            found[name] = (*found.get(name, ()), each)
    return found


Group = tuple[Measured, ...]


def _same_images_and_threat(a: Side, b: Side) -> list[tuple[Group, Group]]:
    """The evaluations of both sides that can be compared, the most telling pair first: those that
    share an attack, on the most images, with the most attacks that both have, then the newest.

    Where one side has only all test images and the other only some, these are compared. Raises
    `DataError` if there are none.
    """
    groups_a, groups_b = _groups(a), _groups(b)
    every = [(group, other) for group in groups_a for other in groups_b]
    pairs = [(group, other) for group, other in every if _alike(group[0], other[0])]
    if not pairs:
        for group, other in every:
            one, two = _on_those_of(group, other[0]), _on_those_of(other, group[0])
            if one or two:
                pairs.append((one or group, two or other))
    if not pairs:
        raise DataError(_why_not(groups_a, groups_b))
    order = {group[-1].file.path: place for place, group in enumerate(groups_a)}

    def value(pair: tuple[Group, Group]) -> tuple[bool, int, int, int]:
        shared = _labels(pair[0]) & _labels(pair[1])
        n = pair[0][0].evaluation.n
        return bool(shared), n, len(shared), order[pair[0][-1].file.path]

    return sorted(pairs, key=value, reverse=True)


def _groups(side: Side) -> list[Group]:
    """The evaluations of a side that are of the same images under the same threat, together."""
    groups: list[Group] = []
    for each in side.evaluations:
        for place, group in enumerate(groups):
            if _alike(group[0], each):
                del groups[place]
                groups.append((*group, each))
                break
        else:
            groups.append((each,))
    return groups


def _alike(a: Measured, b: Measured) -> bool:
    same_threat = a.evaluation.threat == b.evaluation.threat
    same_data = a.file.fingerprint == b.file.fingerprint
    # Labels do not tell all: the first images and others may have equal ones.
    same_data = same_data and a.evaluation.limit == b.evaluation.limit
    return same_threat and same_data and torch.equal(a.evaluation.y, b.evaluation.y)


def _on_those_of(group: Group, part: Measured) -> Group | None:
    """Evaluations on all test images, reduced to those of an evaluation with a limit; None if that
    is not what the two are, or they are not of the same images and threat."""
    whole, limited = group[0], part.evaluation
    if whole.file.fingerprint != part.file.fingerprint:
        return None
    if whole.evaluation.threat != limited.threat:
        return None
    if whole.evaluation.limit is not None or not isinstance(limited.limit, int):
        return None
    chosen = limited_choice(whole.evaluation.y, limited.limit)
    if not torch.equal(whole.evaluation.y[chosen], limited.y):
        return None
    return tuple(
        replace(each, evaluation=restricted(each.evaluation, chosen, limited.limit))
        for each in group
    )


def _labels(group: Group) -> set[str]:
    return {result.label for each in group for result in each.evaluation.attacks}


def _why_not(groups_a: Sequence[Group], groups_b: Sequence[Group]) -> str:
    """In what the newest evaluations differ that come closest."""
    common = _fingerprints(groups_a) & _fingerprints(groups_b)
    if not common:
        a, b = groups_a[-1][0].file, groups_b[-1][0].file
        return (
            f"the two evaluations are of different test images ({a.data} and {b.data}). Compare "
            "evaluations of the same test set."
        )
    threats_a, threats_b = _threats(groups_a, common), _threats(groups_b, common)
    if not threats_a & threats_b:
        return (
            f"the two evaluations have different threat models ({_listed(threats_a)}, and "
            f"{_listed(threats_b)}). Evaluate both with the same --norm and --eps."
        )
    return (
        f"the two evaluations are of different images ({_sizes(groups_a)}, and "
        f"{_sizes(groups_b)}). Compare evaluations of the same test set, with the same --limit."
    )


def _fingerprints(groups: Sequence[Group]) -> set[str]:
    return {group[0].file.fingerprint for group in groups}


def _threats(groups: Sequence[Group], fingerprints: set[str]) -> set[Threat]:
    """Those under which the sets of images were evaluated."""
    fitting = [group[0] for group in groups if group[0].file.fingerprint in fingerprints]
    return {each.evaluation.threat for each in fitting}


def _listed(threats: set[Threat]) -> str:
    return ", ".join(sorted(f"{each.norm}, eps {each.eps:.4g}" for each in threats))


def _sizes(groups: Sequence[Group]) -> str:
    return ", ".join(_described(group[0]) for group in groups)


def _described(measured: Measured) -> str:
    evaluation = measured.evaluation
    images = counted(evaluation.n, "image")
    return f"{images} of {measured.file.data} under {show_threat(evaluation.threat)}"


Sources = list[tuple[Measured, dict[str, AttackResult]]]
"""Which results are taken from which evaluation, the oldest first."""


def _gathered(a: Group, b: Group) -> tuple[Sources, Sources, list[str]]:
    """For each attack that both sides have, the newest results with the same settings; for one
    that only one side has, its newest. And what cannot be compared, as remarks."""
    # The newest evaluation is always used: the accuracy on clean images is its.
    taken_a: dict[int, dict[str, AttackResult]] = {len(a) - 1: {}}
    taken_b: dict[int, dict[str, AttackResult]] = {len(b) - 1: {}}
    remarks = []
    for label in dict.fromkeys([*_in_order(a), *_in_order(b)]):
        have_a, have_b = list(_newest_first(a, label)), list(_newest_first(b, label))
        if not have_a or not have_b:
            have, name = ("A", "B") if have_a else ("B", "A")
            remarks.append(f"{label} was measured on {have} only: {name} is without it")
            continue
        pair = next(
            (
                (one, other)
                for one in have_a
                for other in have_b
                if not settings_differ(one[1], other[1])
            ),
            (have_a[0], have_b[0]),  # `compare` says in what they differ
        )
        for taken, (place, result) in zip((taken_a, taken_b), pair, strict=True):
            taken.setdefault(place, {})[label] = result
    return (
        [(a[place], taken_a[place]) for place in sorted(taken_a)],
        [(b[place], taken_b[place]) for place in sorted(taken_b)],
        remarks,
    )


def _in_order(group: Group) -> Iterator[str]:
    for each in group:
        yield from (result.label for result in each.evaluation.attacks)


def _newest_first(group: Group, label: str) -> Iterator[tuple[int, AttackResult]]:
    for place in reversed(range(len(group))):
        for result in group[place].evaluation.attacks:
            if result.label == label:
                yield place, result


def _joined(group: Group, sources: Sources) -> Evaluation:
    """One evaluation with the attacks of several; on clean images as the newest."""
    results = [result for _, taken in sources for result in taken.values()]
    return replace(group[-1].evaluation, results=tuple(results))
