"""Folders of image files: any tree `train/CLASS/*` and `test/CLASS/*`, one of the two alone, or a
tree `CLASS/*` without splits."""

from dataclasses import replace
from pathlib import Path

import torch

from rpat_cli.data.base import COLOR_EPS, DatasetSpec, LoadOptions, RawData, Split
from rpat_cli.data.images import Form, RandomCrop, printable
from rpat_cli.data.splits import StreamSplit, counted, stratified_choice
from rpat_cli.data.trees import SPLITS, Labeled, class_folders, labeled, split_folder
from rpat_cli.errors import DataError

DEFAULT_IMAGE_SIZE = 64
"""Pixels a side to which images of any size are resized unless the recipe says otherwise."""

MEMORY_BUDGET_GB = 0.1
"""Less than for the published sets, whose size is known: whatever the number of images, more of
them should not need more memory."""

TEST_SEED = 0
"""Chooses the test images of a tree without splits: the same ones whatever the recipe's seed."""


def load_imagefolder(options: LoadOptions) -> RawData:
    """Read `train/CLASS/*` and `test/CLASS/*` (or `val/CLASS/*`) in the data root.

    Images become rectangles of `options.image_size` pixels (default 64). The test set is `test/` if
    its classes are those of `train/`, else `val/`; with `test_only` it is enough alone. Without
    folders of splits, all images `CLASS/*` are test images, or `options.test_size` of them.
    Raises `DataError` for a missing folder, an empty class, or classes that differ.
    """
    try:
        return _load(options)
    except OSError as error:  # of a folder: those of files are reported where they are read
        where = printable(error.filename or options.root)
        raise DataError(f"imagefolder: cannot read {where}: {error.strerror}.") from error


def _load(options: LoadOptions) -> RawData:
    root = options.root
    folders = {split: split_folder(root, split) for split in SPLITS}
    if not any(folders.values()):
        return _flat(options)
    train = folders["train"]
    tests = [folder for folder in (folders["test"], folders["val"]) if folder]
    if not tests or not (train or options.test_only):
        raise _nothing_there(options)
    classes = class_folders(train or tests[0])
    test = next((folder for folder in tests if class_folders(folder) == classes), tests[0])
    _check_classes(classes, train or root, test)
    remarks = _about_form(options)
    if options.test_only or train is None:
        return raw_data(options, root, None, labeled(test, classes), classes, remarks=remarks)
    images = labeled(train, classes), labeled(test, classes)
    raw = raw_data(options, root, *images, classes, remarks=remarks)
    if options.val_folder:
        return replace(raw, val=_validation(options, test, classes))
    return replace(raw, remarks=(*remarks, *_about_unused(test, tests)))


def _validation(options: LoadOptions, test: Path, classes: list[str]) -> Split:
    """The images of `val/`, which may lack a class: they are not trained on."""
    folder = split_folder(options.root, "val")
    if folder is None or folder == test:
        raise DataError(
            f"imagefolder: data.val_folder needs {printable(options.root.absolute())} to have both "
            "test/CLASS/* and val/CLASS/*. Leave it out to hold validation images out of train/."
        )
    images = labeled(folder, class_folders(folder))
    return raw_data(options, options.root, None, images, classes).test


def _check_classes(classes: list[str], train: Path, test: Path) -> None:
    different = sorted(set(classes) ^ set(class_folders(test)))
    if different:
        some = ", ".join(map(printable, different[:5])) + (", ..." if len(different) > 5 else "")
        raise DataError(
            f"imagefolder: {printable(train)} and {printable(test)} have different "
            f"classes; in one of them only: {some}."
        )


def _about_unused(test: Path, folders: list[Path]) -> list[str]:
    """A remark on each of the folders that is not read."""
    return [
        f"the test images are those of {test.name}/; {unused.name}/ is not used: the validation "
        "images are held out of the training images (data.val_size; --set data.val_folder=true "
        f"takes those of {unused.name}/)"
        for unused in folders
        if unused != test
    ]


def _nothing_there(options: LoadOptions) -> DataError:
    root = printable(options.root.absolute())
    places = f"{root}/test/CLASS/* (or val instead of test)"
    if not options.test_only:
        places = f"{root}/train/CLASS/* and {places}"
    return DataError(
        f"imagefolder: no images at {places}. Set the data root to the folder that holds them."
    )


def _flat(options: LoadOptions) -> RawData:
    """A tree `CLASS/*` without splits."""
    root, share = options.root, options.test_size
    classes = class_folders(root) if root.is_dir() else []
    if len(classes) < 2:
        raise _nothing_there(options)
    if share is None and not options.test_only:
        raise DataError(
            f"imagefolder: {printable(root.absolute())} has neither train/ nor test/, only folders "
            "of classes. Sort the images into train/CLASS/* and test/CLASS/*, or hold out a share "
            "of each class as test images: --set data.test_size=0.2"
        )
    images = labeled(root, classes)
    remarks = _about_form(options)
    if share is None:
        return raw_data(options, root, None, images, classes, remarks=remarks)
    whole = raw_data(options, root, images, images, classes)
    assert whole.train is not None
    count = counted("test_size", share, whole.test.labels)
    held_out = stratified_choice(whole.test.labels, count, TEST_SEED)
    kept = torch.ones(len(images), dtype=torch.bool)
    kept[held_out] = False
    train = whole.train.subset(kept.nonzero().flatten())
    names = whole.class_names
    remark = f"{count} of the {len(images)} images are held out as test images (data.test_size)"
    return RawData(train, whole.test.subset(held_out), names, (*remarks, remark))


def _about_form(options: LoadOptions) -> tuple[str, ...]:
    form = form_of(options)
    if form.center_crop == 1:
        return ()
    sizes = " x ".join(map(str, form.resized))
    crop = f"{form.height} x {form.width}"
    return (
        f"images are resized to at least {sizes} pixels ({form.interpolation}) and cropped to "
        f"{crop} at the center (data.center_crop)",
    )


def form_of(options: LoadOptions) -> Form:
    """What the images are made into."""
    size = options.image_size or DEFAULT_IMAGE_SIZE
    height, width = (size, size) if isinstance(size, int) else size
    return Form(height, width, options.channels or 3, options.center_crop, options.interpolation)


def raw_data(
    options: LoadOptions,
    root: Path,
    train: Labeled | None,
    test: Labeled,
    classes: list[str],
    names: tuple[str, ...] = (),
    remarks: tuple[str, ...] = (),
) -> RawData:
    """The splits made of image files. Raises `DataError` for test images of other classes."""
    index = {name: i for i, name in enumerate(classes)}
    unknown = sorted({name for _, name in test} - set(index))
    if unknown:
        raise DataError(
            f"{printable(root.absolute())}: the test images have a class that is not in train/: "
            f"{printable(unknown[0])}."
        )

    def split(images: Labeled, crop: RandomCrop | None = None) -> StreamSplit:
        return StreamSplit(
            root=root,
            files=tuple(path.removeprefix(f"{root.as_posix()}/") for path, _ in images),
            labels=torch.tensor([index[name] for _, name in images], dtype=torch.int64),
            form=form_of(options),
            workers=options.workers,
            memory_budget=options.memory_budget,
            crop=crop,
        )

    names = names or tuple(map(printable, classes))
    training = None if train is None else split(train, options.train_crop)
    return RawData(training, split(test), names, remarks)


IMAGEFOLDER = DatasetSpec(
    name="imagefolder",
    shape=None,
    classes=None,
    mean=(0.485, 0.456, 0.406),  # ImageNet's, as usual for photographs
    std=(0.229, 0.224, 0.225),
    eps=COLOR_EPS,
    load=load_imagefolder,
    defaults={
        "data": {"augment": ["crop-flip"], "val_size": 0.1, "memory_budget_gb": MEMORY_BUDGET_GB}
    },
)
