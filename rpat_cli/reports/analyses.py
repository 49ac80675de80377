"""Closer looks at a model as tables for the terminal. Nothing in them needs colour to be understood."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from rpat_cli.evaluation.compare import Comparison
from rpat_cli.evaluation.perception import HALF, Perception
from rpat_cli.evaluation.verdict import Verdict
from rpat_cli.reports.scores import DASH, count, percent


def verdict_table(verdict: Verdict) -> Table:
    """One line per check: its level, its name and the reason; for what did not pass, also the paper behind it."""
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
    """One line per perturbation and group: the mean squared changes of the logits, and the accuracy half-way."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Perception: mean squared change of the logits (pgd-{perception.steps}, {count(perception.n)} images)",
        title_justify="left",
        caption="Broken and defended by the attack, of the images that are right without it. Weak: half-way, mix 0.5.",
        caption_justify="left",
    )
    for name in ("perturbation", "samples", "n", "clean to half", "half to end", "clean to end", "weak accuracy"):
        text = name in ("perturbation", "samples")
        table.add_column(name, justify="left" if text else "right", no_wrap=text)
    for change in perception.changes:
        steps = (change.first_half, change.second_half, change.whole)
        weak = change.accuracy[HALF] if change.n else None
        figures = (DASH if value is None else f"{value:.4g}" for value in steps)
        table.add_row(change.perturbation, change.group, count(change.n), *figures, percent(weak))
    return table


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """One line per attack: both accuracies in per cent, on how many images they differ, and McNemar's p-value."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Accuracy in per cent on the same {count(comparisons[0].a.n)} images",
        title_justify="left",
        caption="p: how likely such a difference is between equally good models (McNemar, exact)",
        caption_justify="left",
    )
    for name in ("attack", "A", "B", "only A right", "only B right", "p"):
        table.add_column(name, justify="left" if name == "attack" else "right", no_wrap=name != "attack")
    for each in comparisons:
        accuracies = (percent(each.a.value), percent(each.b.value))
        table.add_row(each.label, *accuracies, count(len(each.only_a)), count(len(each.only_b)), f"{each.p:.2g}")
    return table
