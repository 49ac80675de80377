"""What `normalize_as` and `--normalize` name: mean and standard deviation of pixels in [0, 1]."""

from collections.abc import Sequence

from rpat_cli.data import DATASETS
from rpat_cli.errors import ConfigError, did_you_mean
from rpat_cli.text import wrong_constants

Constants = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation, each one value or one per channel."""

NAMED: dict[str, Constants] = {
    "none": ((0.0,), (1.0,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5,), (0.5,)),
}

FORMS = "none, imagenet, half, MEAN/STD such as 0.49,0.48,0.45/0.25,0.24,0.26, or a data set"


def normalization(text: str, channels: int | None = None) -> Constants:
    """Mean and std of a data set, `none`, `imagenet`, `half` (0.5 and 0.5) or `MEAN/STD`, for
    images of so many channels. Raises `ConfigError` for anything else, and for what is not meant
    for pixels in [0, 1] or so many channels."""
    constants = _constants(text, channels)
    if channels is None:
        return constants
    return per_channel(constants[0], channels), per_channel(constants[1], channels)


def _constants(text: str, channels: int | None) -> Constants:
    if text in NAMED:
        return NAMED[text]
    if text in DATASETS:
        spec = DATASETS[text]
        return spec.constants(channels or len(spec.mean))
    mean, slash, std = text.partition("/")
    if not slash:
        near = did_you_mean(text, [*NAMED, *DATASETS])
        allowed = f"{FORMS}: {', '.join(DATASETS)}"
        raise ConfigError(
            f"unknown data set {text!r}. {near} Allowed: {allowed}.".replace("  ", " ")
        )
    constants = _numbers(mean, text), _numbers(std, text)
    if problem := wrong_constants(*constants):
        raise ConfigError(problem)
    return constants


def per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """One value per channel; a single value holds for all. Raises `ConfigError` for any other
    number of them."""
    if len(values) not in (1, channels):
        raise ConfigError(
            f"the normalization has {len(values)} values, the images have {channels} channels."
        )
    return tuple(values) if len(values) == channels else tuple(values) * channels


def _numbers(text: str, whole: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"{whole!r} is not of the form MEAN/STD, such as 0.49,0.48,0.45/0.25,0.24,0.26."
        ) from None
