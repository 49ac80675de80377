"""Numbers and keys as people write them: `8/255` and `1e-3` read, percentages, durations and counts
written, nested values by dotted keys."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator


def parse_number(value: Any) -> Any:
    """Turn `"8/255"` or `"1e-3"` into a float; other types are returned as they are, for pydantic.

    Raises `ValueError` for a bool, for a string that is not a number, and for a number that is not
    finite or too large for a float.
    """
    if isinstance(value, bool):
        raise ValueError(_EXAMPLES)
    if isinstance(value, int | float):
        _check_finite(value)
        return value
    if not isinstance(value, str):
        return value
    numerator, slash, denominator = value.partition("/")
    try:
        number = float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        raise ValueError(_EXAMPLES) from None
    _check_finite(number)
    return number


MOST = 2.0
"""No mean or standard deviation of pixels in [0, 1] comes near it; some networks use a std of 1."""


def wrong_constants(mean: Sequence[float], std: Sequence[float]) -> str:
    """What is wrong with a mean and a std for pixels in [0, 1]; "" if nothing is."""
    if not all(math.isfinite(value) for value in (*mean, *std)):
        return f"mean and std must be finite; given {list(mean)} and {list(std)}."
    if not all(value > 0 for value in std):
        return f"std must be positive in every channel; given {list(std)}."
    if max(*mean, *std) > MOST:
        shown = [",".join(f"{value / 255:.4g}" for value in values) for values in (mean, std)]
        return (
            "mean and std are for pixels in [0, 1], and these look like those of bytes in 0..255: "
            f"{list(mean)} and {list(std)}. Did you mean {shown[0]}/{shown[1]}?"
        )
    return ""


_EXAMPLES = "must be a number such as 0.5, 1e-3 or 8/255"


def _check_finite(number: int | float) -> None:
    try:
        finite = math.isfinite(number)
    except OverflowError:  # a whole number larger than any float
        finite = False
    if not finite:
        raise ValueError("must be a finite number")


LARGEST_COUNT = 10**9
"""More epochs, steps or images than anybody wants; products of two of them fit into 64 bits."""


def check_count(value: Any) -> Any:
    """The value itself. Raises `ValueError` for a whole number beyond `LARGEST_COUNT`; for use as a
    validator of every field."""
    if isinstance(value, int) and abs(value) > LARGEST_COUNT:
        raise ValueError(f"must be at most {LARGEST_COUNT:,}")
    return value


DASH = "\N{EN DASH}"
"""Shown for what was not measured, and between the ends of a range."""

Number = Annotated[float, BeforeValidator(parse_number)]
"""A float field that also reads `8/255`."""


def show_number(value: float) -> str:
    """The reverse: 0.03137… is shown as `8/255`, 0.5 as `0.5`."""
    if not math.isfinite(value * 1000):
        return f"{value:g}"
    levels = round(value * 255)
    # 0.2 is 51/255, but nobody writes it so: a short decimal is shown as it is.
    is_short = round(value * 1000) == value * 1000
    if 0 < value < 10 and value == levels / 255 and not is_short:
        return f"{levels}/255"
    return f"{value:g}"


def percent(fraction: float | None, digits: int = 2) -> str:
    """`0.5104` as `51.04`; a dash for what was not measured."""
    return DASH if fraction is None else f"{100 * fraction:.{digits}f}"


def percent_range(interval: tuple[float, float]) -> str:
    """An interval of fractions as `46.7–55.4`."""
    low, high = interval
    return f"{percent(low, 1)}{DASH}{percent(high, 1)}"


def signed_percent(difference: float) -> str:
    """A difference of fractions in points, 0.012 as `+1.20`."""
    return f"{100 * difference:+.2f}"


def signed_range(interval: tuple[float, float]) -> str:
    """`[-0.40, +2.80]`"""
    low, high = interval
    return f"[{signed_percent(low)}, {signed_percent(high)}]"


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


def remaining(seconds: float) -> str:
    """A forecast as `duration` writes it: at least a second, since what is not over takes time."""
    return duration(max(1.0, seconds))


def compact(number: int) -> str:
    """`1234567` as `1.23M`: for tables, where the order of magnitude is what counts."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def count(number: int | None) -> str:
    """`1234567` as `1,234,567`; a dash for what was not recorded."""
    return DASH if number is None else f"{number:,}"


def counted(number: int, word: str) -> str:
    """`1 thread`, `2 threads`, `1,600 images`."""
    return f"{count(number)} {word}" if number == 1 else f"{count(number)} {word}s"


def file_size(number: int) -> str:
    """`1234567` bytes as `1.2 MB`."""
    size, unit = float(number), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted keys: {"optimizer.lr": 0.1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
