"""Two models compared, as an HTML page: what is compared, the paired table, the curves of both
trainings, in what their recipes differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation.compare import WORST, Comparison
from rpat_cli.reports.comparison import changed_images
from rpat_cli.reports.html import template
from rpat_cli.reports.plots import Chart
from rpat_cli.reports.training_charts import Curves, training_charts
from rpat_cli.version import __version__

LEVEL = 0.05
"""A difference counts as more than chance below this p-value."""


@dataclass(frozen=True)
class ComparedSide:
    """A or B. `files`: what each evaluation was used for. `facts`: what is known of its training,
    by headings. `page`: the address of its report; `curves`: None where it is no run of ours."""

    name: str
    title: str
    path: str
    checkpoint: str
    files: Mapping[Path, Sequence[str]]
    facts: Mapping[str, str] = field(default_factory=dict)
    page: str = ""
    curves: Curves | None = None


@dataclass(frozen=True)
class ComparedPage:
    """`images` in words. `recipes`: the keys that differ, with both values; None where one of the
    two has no recipe. `commands` make the page again. `most`: how many images are listed for each
    attack and model, None for all."""

    a: ComparedSide
    b: ComparedSide
    comparisons: Sequence[Comparison]
    images: str
    threat: Threat
    remarks: Sequence[str]
    recipes: Mapping[str, tuple[str, str]] | None
    commands: Sequence[str]
    most: int | None


def render_comparison(page: ComparedPage) -> str:
    """The whole page. External text (names, paths, recipes) is escaped."""
    charts, whose = _charts(page)
    ends = [abs(end) for each in page.comparisons for end in each.interval]
    return template("comparison.html.j2").render(
        page=page,
        cards=list(dict.fromkeys([page.comparisons[0], strongest(page.comparisons)])),
        verdict=verdict,
        charts=charts,
        whose=whose,
        reach=max(ends, default=0.0) or 1.0,
        changed=changed_images(page.comparisons, page.most),
        version=__version__,
    )


def _charts(page: ComparedPage) -> tuple[list[Chart], str]:
    """The curves, and whose they are in words."""
    a, b = page.a.curves, page.b.curves
    if a and b and a != b:
        return training_charts(b, a, ("B", "A")), "B is drawn solid, and A dashed below it"
    if a and b:
        return training_charts(b), "A and B are of the same training"
    for side in (page.a, page.b):
        if side.curves:
            said = f"Only {side.name} has records of its training"
            return training_charts(side.curves), said
    return [], ""


def strongest(comparisons: Sequence[Comparison]) -> Comparison:
    """The worst case over all attacks, or the attack that left least of both; "clean" if no attack
    is compared."""
    found = next((each for each in comparisons if each.label == WORST), None)
    return found or min(comparisons, key=lambda each: each.a.correct + each.b.correct)


def verdict(comparison: Comparison) -> str:
    """What McNemar's test says, in words."""
    if comparison.p >= LEVEL:
        return "no more than chance could do"
    return f"{'B' if comparison.difference > 0 else 'A'} is better by more than chance"
