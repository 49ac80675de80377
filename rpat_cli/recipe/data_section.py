"""The recipe's section `data`: which images, and how they are read, held out, and augmented."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from rpat_cli.data import DATASETS
from rpat_cli.data.normalization import normalization
from rpat_cli.recipe.components import (
    Section,
    as_value_error,
    count_or_share,
    files_in,
    names_in,
    one_of,
    sides_in,
)
from rpat_cli.records.files import user_path
from rpat_cli.text import Number

Side = Annotated[int, Field(ge=8, le=8192)]
"""Pixels."""

Share = Annotated[Number, Field(gt=0, le=1)]
Ratio = Annotated[Number, Field(gt=0, le=100)]


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"{list(pair)} must be the smallest, then the largest.")
    return pair


UserPath = Annotated[str, as_value_error(user_path)]


def _check_files(paths: str | list[str] | None) -> None:
    for path in [paths] if isinstance(paths, str) else paths or []:
        user_path(path)


def _check_augment(specs: list[Any]) -> None:
    from rpat_cli.data.augment import build_augment

    build_augment(specs, image_size=32)


Augmentations = Annotated[
    list[str | dict[str, dict[str, Any] | None]],
    BeforeValidator(names_in),
    as_value_error(_check_augment),
]


class AugmentFromSection(Section):
    """Other augmentations from the middle of the training on (AutoAugment, say, as Consistency-AT
    can do)."""

    epoch: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description=("epochs before these augmentations replace data.augment (default: never)"),
    )
    augment: Augmentations = Field(
        [], description="augmentations from then on, written like data.augment"
    )


class ExtraSection(Section):
    """Further training images, generated ones for example."""

    path: Annotated[
        str | list[str] | None, BeforeValidator(files_in), as_value_error(_check_files)
    ] = Field(
        None,
        description=(
            ".npz or .npy files, or folders of .npy files, with more training images: uint8 "
            "images, integer labels"
        ),
    )
    share: Annotated[Number, Field(gt=0, lt=1)] = Field(
        0.7, description="share of these images in every batch"
    )

    @property
    def paths(self) -> list[str]:
        if self.path is None:
            return []
        return [self.path] if isinstance(self.path, str) else self.path


class TrainCropSection(Section):
    """Random parts of photographs in place of whole ones, in training."""

    scale: Annotated[tuple[Share, Share], AfterValidator(_rising)] | None = Field(
        None,
        description=(
            "smallest and largest share of the area that random crops of the training images "
            "keep; ImageNet's usual are [0.08, 1] (default: no random crops); for imagefolder only"
        ),
    )
    ratio: Annotated[tuple[Ratio, Ratio], AfterValidator(_rising)] = Field(
        (3 / 4, 4 / 3), description="smallest and largest ratio of their width to their height"
    )


class DataSection(Section):
    name: Annotated[str, one_of(DATASETS)] = Field("fashion-mini", description="data set")
    root: UserPath = Field("data", description="folder that holds the data sets")
    download: bool = Field(False, description="download the data set if it is missing")
    val_size: Annotated[Number, Field(gt=0), AfterValidator(count_or_share)] = Field(
        1000,
        description=(
            "images held out of the training set for validation: a count, or a share below 1"
        ),
    )
    val_folder: bool = Field(
        False,
        description=(
            "validate on the images of val/ instead of ones held out of train/; for imagefolder "
            "only"
        ),
    )
    augment: Augmentations = Field(
        [],
        description="augmentations, in order, with settings as in `cutout:size=8`; `none` for none",
    )
    augment_from: AugmentFromSection = Field(default_factory=AugmentFromSection)
    extra: ExtraSection = Field(default_factory=ExtraSection)
    normalize_as: Annotated[str, as_value_error(normalization)] | None = Field(
        None,
        description=(
            "normalize with the mean and std of this data set, `none`, `imagenet` or MEAN/STD "
            "(default: the data set's own)"
        ),
    )
    image_size: Annotated[Side | tuple[Side, Side] | None, BeforeValidator(sides_in)] = Field(
        None,
        description="image size in pixels, or height and width (48x64), for imagefolder only",
    )
    channels: Literal[1, 3] | None = Field(
        None, description="1 reads images as gray, 3 in color (the default); for imagefolder only"
    )
    center_crop: Annotated[Number, Field(gt=0, le=1)] = Field(
        1.0,
        description=(
            "share of the resized image's side that the crop at the center keeps, 0.875 in "
            "ImageNet's usual preprocessing (default: 1, the largest cut of the right shape); for "
            "imagefolder only"
        ),
    )
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = Field(
        "bilinear", description="how images are resized, for imagefolder only"
    )
    train_crop: TrainCropSection = Field(default_factory=TrainCropSection)
    test_size: Annotated[Number, Field(gt=0), AfterValidator(count_or_share)] | None = Field(
        None,
        description=(
            "images held out as test images where the folders CLASS/* are not sorted into train/ "
            "and test/: a count, or a share below 1; for imagefolder only"
        ),
    )
    test_data: UserPath | None = Field(
        None,
        description=(
            "test images instead of the data set's own, for evaluations: a folder CLASS/*, or an "
            ".npz or .npy file"
        ),
    )
    workers: int = Field(
        2, ge=0, le=1024, description="worker processes for data sets that stream from disk"
    )
    memory_budget_gb: float = Field(
        2.0, ge=0, le=1e6, description="data sets larger than this stream from disk"
    )

    @property
    def memory_budget(self) -> int:
        """In bytes."""
        return int(self.memory_budget_gb * 2**30)
