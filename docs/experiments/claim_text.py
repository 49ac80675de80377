"""How figures are written on the page."""

from collections.abc import Sequence

from rpat_cli.sweep.intervals import Difference, Stat

EXPLORATORY = "Exploratory: intervals without correction."
"""Of everything but the primary comparisons."""


def table(head: Sequence[str], lines: Sequence[Sequence[str]], texts: int = 1) -> str:
    """In Markdown; all but the first columns, the `texts`, are figures."""
    rule = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def points(fraction: float, digits: int = 2) -> str:
    """In points with a sign, 0.012 as `+1.20`; what rounds to 0 is `+0.00`."""
    return f"{round(100 * fraction, digits) + 0.0:+.{digits}f}"


def signed(difference: Difference) -> str:
    """`+0.80 [-0.10, +1.70]`, in points; without the interval below two values.

    With a third decimal where an end would be shown as 0 and is not: the interval shall not seem to
    include 0 when it doesn't, nor the other way round.
    """
    if difference.interval is None:
        return points(difference.mean)
    digits = 3 if any(1e-9 < abs(end) < 0.5e-4 for end in difference.interval) else 2
    low, high = (points(end, digits) for end in difference.interval)
    return f"{points(difference.mean, digits)} [{low}, {high}]"


def signed_n(difference: Difference | None) -> str:
    """`+0.80 [-0.10, +1.70] (8)`: in points, with n."""
    return "" if difference is None else f"{signed(difference)} ({difference.n})"


def spread_n(values: Sequence[float], unit: str = "") -> str:
    """`0.0123 ± 0.001 (8)`: mean, standard deviation, unit and n."""
    if not values:
        return ""
    stat = Stat.of(values)
    sd = "" if stat.sd is None else f" ± {stat.sd:.3g}"
    return f"{stat.mean:.3g}{sd}{unit} ({stat.n})"


def span(values: Sequence[float]) -> str:
    """`+0.12`, or `-0.10 to +0.45`: fractions in points."""
    low, high = points(min(values)), points(max(values))
    return low if low == high else f"{low} to {high}"
