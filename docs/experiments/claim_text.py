"""How figures are written on the page."""

from collections.abc import Sequence

from rpat_cli.sweep.intervals import Difference, Stat
from rpat_cli.sweep.table import signed


def table(head: Sequence[str], lines: Sequence[Sequence[str]], texts: int = 1) -> str:
    """In Markdown; all but the first columns, the `texts`, are figures."""
    rule = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


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
    low, high = f"{100 * min(values):+.2f}", f"{100 * max(values):+.2f}"
    return low if low == high else f"{low} to {high}"
