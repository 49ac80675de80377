"""One value per sample, as JSON: short, and the same numbers when it is read."""

from collections.abc import Sequence

import torch
from torch import Tensor


def bits_to_text(flags: Tensor) -> str:
    """(N,) bool as "0110...": short, and still readable in the file."""
    return "".join("1" if flag else "0" for flag in flags.tolist())


def text_to_bits(text: str) -> Tensor:
    """The inverse of `bits_to_text`. Raises `ValueError` for any other text."""
    if set(text) - {"0", "1"}:
        raise ValueError("flags are not all 0 or 1")
    return torch.tensor([character == "1" for character in text], dtype=torch.bool)


def floats_to_list(values: Tensor | None) -> list[float] | None:
    """(N,) float32 with as many digits as it needs: half as long as `tolist`, and exact."""
    return None if values is None else [float(str(value)) for value in values.numpy()]


def list_to_floats(values: Sequence[float] | None) -> Tensor | None:
    """The inverse of `floats_to_list`."""
    return None if values is None else torch.tensor(values, dtype=torch.float32)
