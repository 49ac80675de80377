"""Checks of what an evaluation is called with."""

from collections.abc import Sequence

from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.threat import Threat, too_long
from rpat_cli.data.reading import AnyImages, Images
from rpat_cli.errors import ConfigError, DataError, Problem
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.evaluation.verify import check_precision


def check_images(model: nn.Module, x: AnyImages, y: Tensor, batch_size: int) -> None:
    """Raise `RpatError` for a model that is not float32, `ConfigError` for a batch size below 1,
    and `DataError` for images that are not (N, C, H, W) floats in [0, 1] with labels (N,).

    Pixels of images that are still to be read are for `check_pixels`."""
    check_precision(model)
    if batch_size < 1:
        raise ConfigError(f"a batch must hold at least 1 image, given {batch_size}.")
    if len(x.shape) != 4 or y.shape != x.shape[:1] or not len(x):
        raise DataError(
            f"evaluation needs images (N, C, H, W) and labels (N,), given {tuple(x.shape)} and "
            f"{tuple(y.shape)}."
        )
    if isinstance(x, Tensor):
        check_pixels(x)


def check_pixels(x: Tensor) -> None:
    """Raise `DataError` unless they are floats in [0, 1]."""
    low, high = x.aminmax()
    if not x.is_floating_point() or not (low >= 0 and high <= 1):
        raise DataError(
            f"images must be floats in [0, 1], given {x.dtype} in [{low:.4g}, {high:.4g}]. "
            "Divide bytes by 255; normalization belongs in the model."
        )


def check_lengths(threat: Threat, specs: Sequence[AttackSpec], x: Tensor) -> None:
    """Raise `ConfigError` for a radius or steps that no two images have between them."""
    pixels = x[0].numel()
    problems = []
    if problem := too_long(threat.norm, threat.eps, pixels):
        problems.append(Problem("eps", f"{threat.eps:g}: {problem}"))
    for spec in specs:
        step_size = spec.settings.get("step_size")
        if isinstance(step_size, int | float) and (
            problem := too_long(threat.norm, step_size, pixels)
        ):
            problems.append(Problem("step_size", f"{step_size:g}: {problem}", spec.label))
    if problems:
        raise ConfigError(*problems, title="these lengths are impossible" if problems[1:] else "")


def check_files(threat: Threat, specs: Sequence[AttackSpec], x: Images) -> None:
    """Raise `ConfigError` where a file of saved examples is not for the images `x` (N, C, H, W), or
    not for the threat."""
    for spec in specs:
        if spec.name == "file":
            attack = ATTACKS[spec.name](threat, **spec.settings)
            for part in x.batches(256, "cpu"):
                attack.check(part)


def check_labels(y: Tensor, classes: int) -> None:
    """Raise `DataError` for labels `y` (N,) that are not among the model's classes."""
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"labels run from {low} to {high}, but the model has {classes} classes (0 to "
            f"{classes - 1}). Is this the data set that it was trained on?"
        )
