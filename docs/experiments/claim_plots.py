"""The plots of the experiment, as SVG files."""

from collections.abc import Callable, Sequence
from html import escape

from claim_data import Row, primary_checkpoint
from claim_pairs import Pair, by_seed

from rpat_cli.reports.html import template
from rpat_cli.reports.pareto import Point, pareto_plot
from rpat_cli.reports.plots import nice_ticks
from rpat_cli.sweep.intervals import Stat

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
    """Mean paired differences in points with their 95 % intervals, and every single pair."""
    labels = [f"{pair.variant} to {pair.baseline} (n {pair.difference.n})" for pair in pairs]
    left = EDGE + LETTER * max(map(len, labels), default=0)
    width = left + PLOT + EDGE
    values = [0.0]
    for pair in pairs:
        values += [*pair.by_seed.values(), *(pair.difference.interval or ())]
    low, high = 100 * min(values), 100 * max(values)
    room = 0.05 * (high - low) or 1.0
    low, high = low - room, high + room

    def at(points: float) -> str:
        return f"{left + (points - low) / (high - low) * PLOT:.1f}"

    bottom = TOP + STEP * len(pairs)
    parts = [STYLE, f'<rect class="paper" width="{width:.0f}" height="{bottom + 50}"/>']
    parts.append(f'<text x="10" y="20">{escape(title)}</text>')
    for tick in nice_ticks(low, high, 6):
        if low <= tick <= high:
            x, shown = at(tick), f"{tick:+g}" if tick else "0"
            parts.append(f'<line class="line" x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom}"/>')
            parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{shown}</text>')
    parts.append(f'<line class="zero" x1="{at(0)}" x2="{at(0)}" y1="{TOP}" y2="{bottom}"/>')
    for number, (pair, label) in enumerate(zip(pairs, labels, strict=True)):
        y = TOP + STEP * number + STEP / 2
        parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(label)}</text>')
        parts += _line(pair, y, at)
    note = "difference in points; bar: 95 % t interval; pale: each pair"
    parts.append(f'<text x="{left}" y="{bottom + 38}">{note}</text>')
    size = f'viewBox="0 0 {width:.0f} {bottom + 50}" width="{width:.0f}" height="{bottom + 50}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="forest" role="img" {size}>'
    return "\n".join([head, f"<title>{escape(title)}</title>", *parts, "</svg>", ""])


def _line(pair: Pair, y: float, at: Callable[[float], str]) -> list[str]:
    parts = []
    for value in pair.by_seed.values():
        parts.append(f'<circle class="one" cx="{at(100 * value)}" cy="{y}" r="3"/>')
    if pair.difference.interval:
        low, high = (at(100 * end) for end in pair.difference.interval)
        parts.append(f'<line class="bar" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>')
    parts.append(f'<circle class="dot" cx="{at(100 * pair.difference.mean)}" cy="{y}" r="5"/>')
    return parts


def pareto(rows: Sequence[Row]) -> str:
    """Clean against robust accuracy at the primary checkpoints, as on the page of a sweep."""
    baselines = {row.baseline for row in rows}
    points = []
    for variant in dict.fromkeys(row.variant for row in rows):
        clean, robust = (by_seed(rows, variant, metric) for metric in ("clean", "robust"))
        if not clean:
            continue
        x, y = (Stat.of([found[seed] for seed in sorted(found)]) for found in (clean, robust))
        family = next(row.baseline or variant for row in rows if row.variant == variant)
        points.append(
            Point(
                name=variant,
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
