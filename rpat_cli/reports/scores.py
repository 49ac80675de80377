"""Accuracies in one figure, as RPAT reports them (Wang & Liu, ICCV 2025), and how figures are
written for people."""

from rpat_cli.evaluation.statistics import Accuracy

DASH = "\N{EN DASH}"


def mean_acc(clean_acc: float, robust_acc: float) -> float:
    """Mean = (clean + robust) / 2, of fractions."""
    return (clean_acc + robust_acc) / 2


def nrr(clean_acc: float, robust_acc: float) -> float:
    """NRR = 2 · clean · robust / (clean + robust): the harmonic mean, low when either is; 0 when
    both are 0."""
    total = clean_acc + robust_acc
    return 2 * clean_acc * robust_acc / total if total else 0.0


def percent(fraction: float | None, digits: int = 2) -> str:
    """`0.5104` as `51.04`; a dash for what was not measured."""
    return DASH if fraction is None else f"{100 * fraction:.{digits}f}"


def percent_range(accuracy: Accuracy) -> str:
    """The 95 % interval as `46.7–55.4`."""
    low, high = accuracy.interval
    return f"{percent(low, 1)}{DASH}{percent(high, 1)}"


def duration(seconds: float) -> str:
    """`0.4 s`, `37 s`, `5 min 12 s`, `3 h 05 min`, `2 d 3 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def compact(number: int) -> str:
    """`1234567` as `1.23M`: for tables, where the order of magnitude is what counts."""
    size, unit = next(
        ((size, unit) for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if number >= size),
        (1, ""),
    )
    return f"{number / size:.3g}{unit}" if unit else str(number)


def count(number: int | None) -> str:
    """`1234567` as `1,234,567`; a dash for what was not recorded."""
    return DASH if number is None else f"{number:,}"
