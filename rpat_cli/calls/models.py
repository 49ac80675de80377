"""Networks by name."""

from rpat_cli.data import DATASETS
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.models import model_names
from rpat_cli.models.base import build_model
from rpat_cli.models.normalize import Classifier


def names() -> list[str]:
    """What `model` may be."""
    return model_names()


def build(
    name: str,
    data: str | None = None,
    *,
    shape: tuple[int, int, int] | None = None,
    classes: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Classifier:
    """A randomly initialized classifier: images (B, C, H, W) in [0, 1] to logits (B, classes).

    Shape (C, H, W), number of classes, and the mean and std that it normalizes with are those of
    the data set named, or as given; without either, mean 0 and std 1. Raises `ConfigError`.
    """
    spec = None if data is None else DATASETS[data]
    shape = shape or (spec.shape if spec else None)
    classes = classes or (spec.classes if spec else None)
    if shape is None or classes is None:
        message = "needs the shape of the images and the number of classes."
        hint = 'Example: build("small-cnn", "cifar10"), or shape=(3, 64, 64), classes=5.'
        raise ConfigError(Problem(name, message, "models.build()", hint))
    usual = spec.constants(shape[0]) if spec else ((0.0,) * shape[0], (1.0,) * shape[0])
    return build_model(
        name, shape=shape, classes=classes, mean=mean or usual[0], std=std or usual[1]
    )
