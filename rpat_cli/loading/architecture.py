"""Everything needed to build a network, except its weights."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rpat_cli.data import DATASETS
from rpat_cli.data.base import LoadOptions, Shape
from rpat_cli.data.folders import form_of
from rpat_cli.models.base import build_model
from rpat_cli.models.normalize import Classifier
from rpat_cli.recipe.data_section import DataSection


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

    def to_dict(self) -> dict[str, Any]:
        """Builtins only: JSON and `torch.load(weights_only=True)` have no tuples."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Architecture":
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**fields)


def image_shape(section: DataSection) -> Shape:
    """The (C, H, W) of a data set's images, before any file is read."""
    known = DATASETS[section.name].shape
    options = LoadOptions(
        Path(section.root), image_size=section.image_size, channels=section.channels
    )
    return known or form_of(options).shape
