"""Augmentations of training images: on the device, a batch at a time, random for every sample.

Why not torchvision's: its v2 transforms draw once per call, so a whole batch would get one and the
same crop. All random numbers come from torch's global generator of the device that holds the images
(AutoAugment and RandAugment: of the CPU), so a seed or a restored generator state repeats them.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeAlias, get_args, get_origin

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rpat_cli.data import AUGMENTATIONS
from rpat_cli.errors import ConfigError, Problem, UserCodeError, unknown
from rpat_cli.user_code import where_defined

Augment: TypeAlias = Callable[[Tensor], Tensor]
"""From x (B, C, H, W) float in [0, 1] to the same shape and range."""

AugmentSpec: TypeAlias = str | Mapping[str, Mapping[str, Any] | None]
"""`"cutout"`, `"cutout:size=8"`, or `{"cutout": {"size": 8}}`."""

Padding = Annotated[
    int | None,
    Field(description="black pixels a side (default: an eighth of the image's side)"),
]
FlipProbability = Annotated[float, Field(description="probability that an image is mirrored")]


def build_augment(specs: Iterable[AugmentSpec] | AugmentSpec, image_size: int) -> Augment:
    """The augmentations named by `specs`, one after the other; without any, images stay as they
    are.

    `image_size` (pixels) decides defaults such as the crop's padding. Raises `ConfigError` for an
    unknown name or setting and for a value out of range.
    """
    listed = [specs] if isinstance(specs, str | Mapping) else list(specs)
    steps = []
    for spec in listed:
        for name, settings in _parse(spec).items():
            steps.append(_build(name, settings, image_size))
    return compose(*steps)


def names_of(specs: Iterable[AugmentSpec]) -> list[str]:
    """The names of the augmentations, as they are in the table."""
    return [AUGMENTATIONS.spelled(name) for spec in specs for name in _parse(spec)]


def compose(*steps: Augment) -> Augment:
    """One augmentation that applies `steps` in order."""

    def augment(x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return x

    return augment


def random_crop(image_size: int, padding: Padding = None) -> Augment:
    """Pad with black, then crop at a uniformly random place; `padding` (pixels a side) is an eighth
    of the image by default: 4 of 32."""
    width = round(image_size / 8) if padding is None else padding
    check_setting(0 <= width <= image_size, "padding", width, f"must be 0 to {image_size} pixels")

    def augment(x: Tensor) -> Tensor:
        rows, columns = torch.randint(2 * width + 1, (2, len(x)), device=x.device)
        return crop_at(x, rows, columns, width)

    return augment


def crop_at(x: Tensor, rows: Tensor, columns: Tensor, padding: int) -> Tensor:
    """Crops (B, C, H, W) of x (B, C, H, W), padded with `padding` black pixels a side.

    `rows` and `columns` (B,) int64 are the top left corners in the padded images.
    """
    B, C, H, W = x.shape
    padded = F.pad(x, (padding,) * 4)
    row = rows.view(B, 1, 1) + torch.arange(H, device=x.device).view(1, H, 1)
    column = columns.view(B, 1, 1) + torch.arange(W, device=x.device).view(1, 1, W)
    # One gather over flattened pixels is several times faster than padded[:, :, row, column].
    pixel = (row * padded.shape[-1] + column).view(B, 1, H * W).expand(B, C, H * W)
    return padded.flatten(2).gather(2, pixel).view_as(x)


def random_flip(image_size: int, p: FlipProbability = 0.5) -> Augment:  # noqa: ARG001  (all factories share this signature)
    """Flip left and right with probability `p`."""
    check_setting(0 <= p <= 1, "p", p, "must be a probability, 0 to 1")

    def augment(x: Tensor) -> Tensor:
        flipped = torch.rand(len(x), device=x.device) < p
        return torch.where(flipped.view(-1, 1, 1, 1), x.flip(-1), x)

    return augment


def crop_flip(image_size: int, padding: Padding = None, p: FlipProbability = 0.5) -> Augment:
    """Random crop, then random flip: the standard for CIFAR, and the base augmentation of
    Consistency-AT."""
    return compose(random_crop(image_size, padding), random_flip(image_size, p))


def cutout(
    image_size: int,
    size: Annotated[
        int | None,
        Field(description="side of the square in pixels (default: half of the image's side)"),
    ] = None,
) -> Augment:
    """Black out a square around a uniformly random pixel (DeVries & Taylor 2017, arXiv 1708.04552).

    `size` is its side in pixels, half of the image by default; the square may extend beyond the
    image.
    """
    side = image_size // 2 if size is None else size
    check_setting(side >= 1, "size", side, "must be at least 1 pixel")

    def augment(x: Tensor) -> Tensor:
        rows = _hit(x.shape[-2], side, x).unsqueeze(2)
        columns = _hit(x.shape[-1], side, x).unsqueeze(1)
        return x.masked_fill((rows & columns).unsqueeze(1), 0)

    return augment


def autoaugment(
    image_size: int,  # noqa: ARG001
    policy: Annotated[
        str, Field(description="data set that the policy was found for: cifar10, imagenet, svhn")
    ] = "cifar10",
) -> Augment:
    """AutoAugment (Cubuk et al. 2019, arXiv 1805.09501) with the policy found for cifar10, imagenet
    or svhn.

    Cost: torchvision's transform runs sample by sample. A batch of 128 took 30 ms on one CPU core,
    and a GPU is no faster, since it launches its kernels for one small image at a time. That is
    little next to ten attack steps, and much without them.
    """
    from torchvision.transforms import v2

    policies = {member.value: member for member in v2.AutoAugmentPolicy}
    if policy not in policies:
        raise ConfigError(Problem("policy", unknown("AutoAugment policy", policy, list(policies))))
    return _per_sample(v2.AutoAugment(policies[policy]))


def randaugment(
    image_size: int,  # noqa: ARG001
    n: Annotated[int, Field(description="operations per image")] = 2,
    m: Annotated[int, Field(description="magnitude of each operation, 0 to 30")] = 9,
) -> Augment:
    """RandAugment (Cubuk et al. 2020, arXiv 1909.13719): `n` operations at magnitude `m` (0 to 30).

    Cost: as for `autoaugment`.
    """
    from torchvision.transforms import v2

    check_setting(n >= 0, "n", n, "must be a number of operations, 0 or more")
    check_setting(0 <= m <= 30, "m", m, "must be a magnitude, 0 to 30")
    return _per_sample(v2.RandAugment(num_ops=n, magnitude=m, num_magnitude_bins=31))


def trivialaugment(image_size: int) -> Augment:  # noqa: ARG001
    """TrivialAugment, the wide form: one operation of a random strength per image (Müller & Hutter,
    ICCV 2021, arXiv 2103.10158).

    Cost: as for `autoaugment`.
    """
    from torchvision.transforms import v2

    return _per_sample(v2.TrivialAugmentWide())


def _per_sample(transform: Callable[[Tensor], Tensor]) -> Augment:
    """A torchvision transform applied to each image by itself: called on a batch it would draw one
    operation for all.

    The images become uint8 in between, since AutoAugment's operations are defined on 0 to 255.
    """

    def augment(x: Tensor) -> Tensor:
        if not len(x):  # stack needs at least one
            return x
        pixels = (x * 255).round().to(torch.uint8)
        return torch.stack([transform(image) for image in pixels]).to(x.dtype) / 255

    return augment


def _hit(length: int, side: int, x: Tensor) -> Tensor:
    """Which of `length` positions lie in an interval of `side` around a random center: (B, length)
    bool."""
    first = torch.randint(length, (len(x), 1), device=x.device) - side // 2
    position = torch.arange(length, device=x.device)
    return (position >= first) & (position < first + side)


def _parse(spec: AugmentSpec) -> dict[str, dict[str, Any]]:
    if not isinstance(spec, str):
        return {name: dict(settings or {}) for name, settings in spec.items()}
    name, _, text = spec.partition(":")
    pairs = [item.partition("=") for item in text.split(",") if item]
    return {name.strip(): {key.strip(): _number(value.strip()) for key, _, value in pairs}}


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _build(name: str, settings: Mapping[str, Any], image_size: int) -> Augment:
    name = AUGMENTATIONS.spelled(name)
    factory = AUGMENTATIONS[name]
    fields = inspect.signature(factory, eval_str=True).parameters
    allowed = [field for field in fields if field != "image_size"]
    wrong = [
        Problem(f"{name}.{key}", unknown("setting", key, allowed))
        for key in settings
        if key not in allowed
    ]
    wrong += [
        Problem(f"{name}.{key}", f"{value!r} is not of type {_type_name(fields[key])}.")
        for key, value in settings.items()
        if key in allowed and not _fits(value, fields[key])
    ]
    if wrong:
        raise ConfigError(*wrong)
    augment = factory(image_size, **settings)
    if not callable(augment):
        raise UserCodeError(
            f"{where_defined(factory)}: must return a function of images; it returned {augment!r}."
        )
    return augment


def type_of_setting(field: inspect.Parameter) -> Any:
    """The type of a factory's parameter, without the description that it is annotated with."""
    annotation = field.annotation
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _type_name(field: inspect.Parameter) -> str:
    kind = type_of_setting(field)
    return str(getattr(kind, "__name__", kind))


def _fits(value: Any, field: inspect.Parameter) -> bool:
    # Whole numbers are fine where a float is expected.
    kind = type_of_setting(field)
    allowed = float | int if kind is float else kind
    return isinstance(value, allowed)


def check_setting(holds: bool, key: str, value: object, rule: str) -> None:
    """Raise `ConfigError` unless it holds; `rule` says what must."""
    if not holds:
        raise ConfigError(Problem(key, f"{value} {rule}."))
