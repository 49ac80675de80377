"""The plots of the experiment, as SVG files."""

from collections.abc import Callable, Collection, Sequence
from html import escape

from claim_data import Row, primary_checkpoint
from claim_pairs import Pair, by_seed, collapsed

from rpat_cli.reports.html import template
from rpat_cli.reports.pareto import Point, pareto_plot
from rpat_cli.reports.plots import nice_ticks
from rpat_cli.sweep.intervals import Difference, Stat

PLOT, LETTER, EDGE, TOP, STEP = 330, 6.8, 20, 40, 26
"""Pixels: a telephone shows the picture at some two thirds of its size, so it's no wider than its
labels need."""

STYLE = (
    "<style>.forest text{font:12px system-ui,sans-serif;fill:#16202c}"
    ".forest .paper{fill:#fff}.forest .zero{stroke:#566273;stroke-dasharray:4 3}"
    ".forest .line{stroke:#dfe4ea}.forest .bar{stroke:#1659c7;stroke-width:2}"
    ".forest .dot{fill:#1659c7}.forest .one{fill:#1659c7;fill-opacity:.35}"
    "@media (prefers-color-scheme:dark){.forest text{fill:#e7ecf2}.forest .paper{fill:#18202a}"
    ".forest .line{stroke:#2c3744}.forest .bar{stroke:#7fb2ff}"
    ".forest .dot,.forest .one{fill:#7fb2ff}}</style>"
)


def forest(pairs: Sequence[Pair], title: str) -> str:
    """Mean paired differences in points with their 95 % intervals, and every single pair, without
    those in which a training collapsed: beside 50 points nothing else could be seen."""
    drawn = [pair.without_collapses() for pair in pairs]
    labels = [f"{pair.variant} to {pair.baseline} ({_n(pair)})" for pair in pairs]
    left = EDGE + LETTER * max(map(len, labels), default=0)
    width = left + PLOT + EDGE
    values = [0.0]
    for pair, difference in zip(pairs, drawn, strict=True):
        values += pair.kept.values()
        values += (difference and difference.interval) or ()
    low, high = 100 * min(values), 100 * max(values)
    room = 0.05 * (high - low) or 1.0
    low, high = low - room, high + room

    def at(points: float) -> str:
        return f"{left + (points - low) / (high - low) * PLOT:.1f}"

    bottom = TOP + STEP * len(pairs)
    notes = ["difference in points; bar: 95 % t interval; pale: each pair"]
    if collapsing := [pair for pair in pairs if pair.collapsed]:
        notes.append(f"{_n(collapsing[0])}: without the pairs in which a training collapsed")
    height = bottom + 34 + 16 * len(notes)
    parts = [STYLE, f'<rect class="paper" width="{width:.0f}" height="{height}"/>']
    parts.append(f'<text x="10" y="20">{escape(title)}</text>')
    for tick in nice_ticks(low, high, 6):
        if low <= tick <= high:
            x, shown = at(tick), f"{tick:+g}" if tick else "0"
            parts.append(f'<line class="line" x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom}"/>')
            parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{shown}</text>')
    parts.append(f'<line class="zero" x1="{at(0)}" x2="{at(0)}" y1="{TOP}" y2="{bottom}"/>')
    for number, (pair, label, difference) in enumerate(zip(pairs, labels, drawn, strict=True)):
        y = TOP + STEP * number + STEP / 2
        parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(label)}</text>')
        parts += _line(pair, difference, y, at)
    for number, note in enumerate(notes):
        parts.append(f'<text x="{left}" y="{bottom + 38 + 16 * number}">{note}</text>')
    size = f'viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="forest" role="img" {size}>'
    return "\n".join([head, f"<title>{escape(title)}</title>", *parts, "</svg>", ""])


def _n(pair: Pair) -> str:
    """`n 5`, or `n 4 of 5`"""
    return f"n {_of(pair.kept, pair.by_seed) if pair.collapsed else len(pair.by_seed)}"


def _of(kept: Collection[int], every: Collection[int]) -> str:
    return f"{len(kept)} of {len(every)}"


def _line(
    pair: Pair, difference: Difference | None, y: float, at: Callable[[float], str]
) -> list[str]:
    parts = []
    for value in pair.kept.values():
        parts.append(f'<circle class="one" cx="{at(100 * value)}" cy="{y}" r="3"/>')
    if difference and difference.interval:
        low, high = (at(100 * end) for end in difference.interval)
        parts.append(f'<line class="bar" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>')
    if difference:
        parts.append(f'<circle class="dot" cx="{at(100 * difference.mean)}" cy="{y}" r="5"/>')
    return parts


def pareto(rows: Sequence[Row]) -> str:
    """Clean against robust accuracy at the primary checkpoints, as on the page of a sweep; without
    the trainings that collapsed, and their number in the name of the others: `mart (4 of 5)`."""
    lost = {(row.variant, row.seed) for row in collapsed(rows)}
    baselines = {row.baseline for row in rows}
    points = []
    for variant in dict.fromkeys(row.variant for row in rows):
        clean, robust = (by_seed(rows, variant, metric) for metric in ("clean", "robust"))
        kept = [seed for seed in sorted(clean) if (variant, seed) not in lost]
        if not kept:
            continue
        x, y = (Stat.of([found[seed] for seed in kept]) for found in (clean, robust))
        family = next(row.baseline or variant for row in rows if row.variant == variant)
        points.append(
            Point(
                name=variant if len(kept) == len(clean) else f"{variant} ({_of(kept, clean)})",
                kind=primary_checkpoint(variant),
                family=family,
                baseline=variant in baselines,
                x=x.mean,
                y=y.mean,
                x_sd=x.sd,
                y_sd=y.sd,
                tooltip=variant,
            )
        )
    plot = pareto_plot(points, "clean accuracy", f"accuracy under {rows[0].attack}")
    return template("pareto.svg.j2").render(plot=plot, reason="")
