"""Closer looks at a model as tables for the terminal. Nothing in them needs colour to be
understood."""

from collections.abc import Sequence
from statistics import fmean

from rich import box
from rich.table import Table
from rich.text import Text

from rpat_cli.data.corrupted import EXTRA, STANDARD
from rpat_cli.diagnostics.corruptions import Corruption, Corruptions
from rpat_cli.diagnostics.eps_curve import EpsCurve
from rpat_cli.diagnostics.loss_surface import LossSurface
from rpat_cli.diagnostics.perception import HALF, Gap, Perception
from rpat_cli.diagnostics.verdict.verdict import Verdict
from rpat_cli.evaluation.compare import Comparison
from rpat_cli.reports.terminal import show_threat
from rpat_cli.text import DASH, count, percent, percent_range

CLAIM = "RPAT (Wang & Liu, ICCV 2025)"

STRETCH_NAMES = {
    "first_half": "clean to half",
    "second_half": "half to end",
    "whole": "clean to end",
}

LOSS_NAMES = {"ce": "cross-entropy", "margin": "margin"}

FEW_CHANGED = 10
"""So many changed images are named for each attack and model unless all are asked for."""


def verdict_table(verdict: Verdict) -> Table:
    """One line per check: its level, its name and the reason; for what did not pass, also the paper
    behind it."""
    images = count(verdict.evidence.correct.n)
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Verdict: {verdict.level} (can this robustness be trusted? {images} images)",
        title_justify="left",
    )
    for name in ("", "check", "what was seen"):
        table.add_column(name, no_wrap=name == "")
    for finding in verdict.findings:
        passed = finding.level == "PASS"
        reason = finding.reason if passed else f"{finding.reason}\n[{finding.paper}]"
        table.add_row(finding.level, finding.name, Text(reason), style="" if passed else "bold")
    return table


def perception_table(perception: Perception) -> Table:
    """One line per perturbation and group: the mean squared changes of the logits, and the accuracy
    half-way."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=(
            f"Perception: mean squared change of the logits (pgd-{perception.steps}, "
            f"{count(perception.n)} images)"
        ),
        title_justify="left",
        caption="\n".join(
            [
                "Broken and defended by the attack, of the images that are right without it. "
                "Weak: half-way, mix 0.5.",
                f"Do the broken ones change less, as {CLAIM} says? Adversarial, defended less "
                "broken, 95 % interval:",
                *(f"  {STRETCH_NAMES[gap.figure]}: {show_gap(gap)}" for gap in perception.gaps),
            ]
        ),
        caption_justify="left",
    )
    for name in ("perturbation", "samples", "n", *STRETCH_NAMES.values(), "weak accuracy"):
        text = name in ("perturbation", "samples")
        table.add_column(name, justify="left" if text else "right", no_wrap=text)
    for change in perception.changes:
        steps = (change.first_half, change.second_half, change.whole)
        weak = change.accuracy[HALF] if change.n else None
        figures = (DASH if value is None else f"{value:.4g}" for value in steps)
        table.add_row(change.perturbation, change.group, count(change.n), *figures, percent(weak))
    return table


def show_gap(gap: Gap) -> str:
    """`-0.131 (-0.205 to -0.0572), contradicts it`"""
    if gap.difference is None or gap.interval is None:
        return "cannot tell: too few samples"
    low, high = gap.interval
    verb = gap.claim if gap.claim == "cannot tell" else f"{gap.claim} it"
    return f"{gap.difference:.3g} ({low:.3g} to {high:.3g}), {verb}"


def eps_table(curve: EpsCurve) -> Table:
    """One line per radius: robust accuracy in per cent with its interval, and what the attack had
    to be helped with."""
    title = (
        f"Robust accuracy against eps ({curve.threat.norm}, {curve.attack}, {count(curve.n)} "
        "images)"
    )
    table = Table(
        box=box.SIMPLE_HEAD,
        min_width=len(title),
        title=title,
        title_justify="left",
        caption=show_mended(curve),
        caption_justify="left",
    )
    for name in ("eps", "accuracy", "95 % interval", "left", "mended"):
        table.add_column(name, justify="right", no_wrap=True)
    for point in curve.points:
        accuracy = point.accuracy
        figures = (
            percent(accuracy.value),
            percent_range(accuracy.interval),
            count(accuracy.correct),
            count(point.mended),
        )
        table.add_row(
            f"{point.eps:.4g}", *figures, style="bold" if point.eps == curve.threat.eps else ""
        )
    return table


def show_mended(curve: EpsCurve) -> str:
    """In words, whether the curve falls by itself."""
    if not curve.mended:
        return "Every image that falls at some eps falls at all larger ones too."
    cases = "1 case" if curve.mended == 1 else f"{count(curve.mended)} cases"
    return (
        f"Mended, {cases}: an image that fell at a smaller eps stood at a larger one, where the "
        "attack must have "
        "missed it. It counts as broken, since the larger ball contains the smaller."
    )


def surface_table(surface: LossSurface) -> Table:
    """Both losses at a few places along each direction, and how linear they are."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=(
            f"Loss around the images, mean over {count(surface.n)} ({show_threat(surface.threat)})"
        ),
        title_justify="left",
        caption="\n".join(["Columns: shares of eps.", *show_linearity(surface)]),
        caption_justify="left",
    )
    middle = len(surface.shares) // 2
    places = sorted({0, middle // 2, middle, middle + (middle + 1) // 2, len(surface.shares) - 1})
    for name in ("loss", "direction", *(f"{surface.shares[k]:g}" for k in places)):
        table.add_column(
            name, justify="left" if name in ("loss", "direction") else "right", no_wrap=True
        )
    for name, each in surface.surfaces.items():
        table.add_row(
            LOSS_NAMES[name], "gradient", *(_loss(each.values[middle][k]) for k in places)
        )
        table.add_row(
            "", "random", *(_loss(each.values[k][middle]) for k in places), end_section=True
        )
    return table


def _loss(value: float) -> str:
    """Short enough for seven columns on 80 characters."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


def show_linearity(surface: LossSurface) -> list[str]:
    """A line for each loss: what the gradient promises at one eps, what comes, and the largest
    departure from it."""
    return [
        f"{LOSS_NAMES[name]}: one eps along the gradient promises {each.predicted_rise:+.3g} and "
        "brings "
        f"{each.rise:+.3g}; in this plane's part of the ball it departs from linear by up to "
        f"{each.nonlinearity:.3g}."
        for name, each in surface.surfaces.items()
    ]


def corruption_table(found: Corruptions) -> Table:
    """One line per corruption: its errors in per cent by severity, their mean, and CE where there
    is a baseline."""
    against = (
        f" CE: the errors as per cent of those of {found.baseline}; its mean over the "
        f"{len(STANDARD)} is mCE."
    )
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Corruptions: error in per cent by severity ({count(found.n)} images each)",
        title_justify="left",
        caption=(
            f"Hendrycks & Dietterich, ICLR 2019; {found.folder}.{against if found.baseline else ''}"
        ),
        caption_justify="left",
    )
    for name in (
        "corruption",
        "1",
        "2",
        "3",
        "4",
        "5",
        "mean",
        *(["CE"] if found.baseline else []),
    ):
        table.add_column(name, justify="left" if name == "corruption" else "right", no_wrap=True)

    def add(
        name: str, means: Sequence[float | None], ce: float | None, *, end: bool = False
    ) -> None:
        cells = (percent(value) for value in (*means, *([ce] if found.baseline else [])))
        table.add_row(name, *cells, style="bold" if end else "", end_section=end)

    def add_group(
        corruptions: Sequence[Corruption], name: str, mean: float | None, mce: float | None
    ) -> None:
        for each in corruptions:
            add(each.name, (*each.errors, each.mean_error), each.ce)
        if mean is not None:  # all of them are there
            by_severity = [
                fmean(errors) for errors in zip(*(each.errors for each in corruptions), strict=True)
            ]
            add(name, (*by_severity, mean), mce, end=True)

    add_group(found.standard, f"mean of the {len(STANDARD)}", found.mean_error, found.mce)
    add_group(found.extra, f"mean of the {len(EXTRA)} extra", found.extra_mean_error, None)
    return table


def changed_images(comparisons: Sequence[Comparison], most: int | None = FEW_CHANGED) -> list[str]:
    """One line per attack and model: which images (rows of the data, from 0) only it gets right,
    `most` at most."""
    lines, hidden = [], 0
    for each in comparisons:
        for name, images in (("A", each.only_a), ("B", each.only_b)):
            listed = ", ".join(map(str, images[:most])) or "none"
            more = len(images) - len(images[:most])
            lines.append(
                f"{each.label}, only {name} is right: "
                f"{listed}{f' and {count(more)} more' if more else ''}"
            )
            hidden += more
    return [*lines, "--changed names them all"] if hidden else lines


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """One line per attack: both accuracies in per cent, on how many images they differ, and
    McNemar's p-value."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Accuracy in per cent on the same {count(comparisons[0].a.n)} images",
        title_justify="left",
        caption="p: how likely such a difference is between equally good models (McNemar, exact)",
        caption_justify="left",
    )
    for name in ("attack", "A", "B", "only A right", "only B right", "p"):
        table.add_column(
            name, justify="left" if name == "attack" else "right", no_wrap=name != "attack"
        )
    for each in comparisons:
        accuracies = (percent(each.a.value), percent(each.b.value))
        table.add_row(
            each.label,
            *accuracies,
            count(len(each.only_a)),
            count(len(each.only_b)),
            f"{each.p:.2g}",
        )
    return table
