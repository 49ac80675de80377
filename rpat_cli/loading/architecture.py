"""Everything needed to build a network, except its weights."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

from torch.nn.parameter import is_lazy

from rpat_cli.data import DATASETS
from rpat_cli.data.base import LoadOptions, Shape
from rpat_cli.data.folders import form_of
from rpat_cli.errors import CheckpointError
from rpat_cli.models.base import build_model
from rpat_cli.models.normalize import Classifier
from rpat_cli.recipe.data_section import DataSection
from rpat_cli.records.metrics import is_count, is_number

MAX_CLASSES = 1_000_000
"""More than any data set has: a file that asks for more would only fill the memory."""

MAX_SIDE = 16_384
"""Pixels of an image's side, and channels, for the same reason."""


@dataclass(frozen=True)
class Architecture:
    """Everything needed to build a model. It is part of every checkpoint, so that loading a model
    takes no data set.

    `shape` is (C, H, W); `mean` and `std` normalize pixels in [0, 1], per channel.
    """

    name: str
    shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def build(self) -> Classifier:
        """A randomly initialized model, from images in [0, 1] to logits."""
        return build_model(
            self.name, shape=self.shape, classes=self.classes, mean=self.mean, std=self.std
        )

    def parameters(self) -> int:
        """How many it has. It is built for that. Those of a lazy module, which have no shape yet,
        count as none: what tries the network refuses it in words."""
        found = self.build().parameters()
        return sum(parameter.numel() for parameter in found if not is_lazy(parameter))

    def to_dict(self) -> dict[str, Any]:
        """Builtins only: JSON and `torch.load(weights_only=True)` have no tuples."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Any) -> "Architecture":
        """The inverse of `to_dict`. Raises `CheckpointError` for anything else."""
        known = [field.name for field in dataclass_fields(cls)]
        given = values if isinstance(values, Mapping) else {}
        if missing := [key for key in known if key not in given]:
            raise CheckpointError(
                f"the checkpoint is damaged: its architecture lacks {', '.join(missing)}."
            )
        if more := sorted(str(key) for key in given if key not in known):
            raise CheckpointError(
                "the checkpoint describes its network by what this version of rpat does not know "
                f"({', '.join(more)[:80]}). Please upgrade rpat."
            )
        for key, is_right in _IS_RIGHT.items():
            if not is_right(given[key]):
                raise CheckpointError(
                    f"the checkpoint is damaged: the {key} of its architecture is "
                    f"{str(given[key])[:60]!r}."
                )
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in given.items()
        }
        return cls(**fields)


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(map(is_number, values))


def _is_count(value: Any, most: int) -> bool:
    return is_count(value) and 1 <= int(value) <= most


def _is_shape(values: Any) -> bool:
    is_triple = isinstance(values, list | tuple) and len(values) == 3
    return is_triple and all(_is_count(value, MAX_SIDE) for value in values)


_IS_RIGHT: Mapping[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str),
    "shape": _is_shape,
    "classes": lambda value: _is_count(value, MAX_CLASSES),
    "mean": _are_numbers,
    "std": _are_numbers,
}


def image_shape(section: DataSection) -> Shape:
    """The (C, H, W) of a data set's images, before any file is read."""
    known = DATASETS[section.name].shape
    options = LoadOptions(
        Path(section.root), image_size=section.image_size, channels=section.channels
    )
    return known or form_of(options).shape
