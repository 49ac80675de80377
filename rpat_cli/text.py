"""Numbers as people in this field write them: `8/255`, `1e-3`, `0.5`."""

import math
from typing import Annotated, Any

from pydantic import BeforeValidator


def parse_number(value: Any) -> Any:
    """Turn `"8/255"` or `"1e-3"` into a float; anything that is not such a text is passed on
    untouched.

    Raises `ValueError` for a text that is no finite number.
    """
    if isinstance(value, bool):
        raise ValueError("must be a number such as 0.5, 1e-3 or 8/255")
    if not isinstance(value, str):
        return value
    numerator, slash, denominator = value.partition("/")
    try:
        number = float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        raise ValueError("must be a number such as 0.5, 1e-3 or 8/255") from None
    if not math.isfinite(number):
        raise ValueError("must be a finite number")
    return number


Number = Annotated[float, BeforeValidator(parse_number)]
"""A float field that also reads `8/255`."""


def show_number(value: float) -> str:
    """The short way back: 0.03137… is shown as `8/255`, 0.5 as `0.5`."""
    if 0 < value < 10 and value == round(value * 255) / 255 and round(value * 1000) != value * 1000:
        return f"{round(value * 255)}/255"
    return f"{value:g}"
