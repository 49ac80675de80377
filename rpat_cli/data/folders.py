"""Folders of image files: any tree `train/CLASS/*` and `val|test/CLASS/*`, and Tiny-ImageNet, as
published or rearranged into such a tree."""

from collections.abc import Iterable
from pathlib import Path

import torch

from rpat_cli.data.base import COLOR_EPS, DatasetSpec, LoadOptions, RawData
from rpat_cli.data.sources import File, Source
from rpat_cli.data.splits import StreamSplit
from rpat_cli.errors import DataError

EXTENSIONS = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
)
DEFAULT_IMAGE_SIZE = 64
"""Pixels a side to which images of any size are resized unless the recipe says otherwise."""

TINY_FOLDER = "tiny-imagenet-200"
TINY_SOURCE = Source(
    "tiny-imagenet",
    files=(File(f"{TINY_FOLDER}/train"), File(f"{TINY_FOLDER}/val")),
    archives=(
        File(
            f"{TINY_FOLDER}.zip",
            "90528d7ca1a48142e341f4ef8d21d0de",
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        ),
    ),
)

Labeled = list[tuple[Path, str]]
"""Image files with the names of their classes."""


def load_imagefolder(options: LoadOptions) -> RawData:
    """Read `train/CLASS/*` and `test/CLASS/*` (or `val/CLASS/*`) in the data root.

    Images become RGB squares of `options.image_size` pixels (default 64). The test set is `test/`
    if its classes are those of `train/`, else `val/`. Raises `DataError` for a missing folder, an
    empty class, or classes that differ.
    """
    root = options.root
    train = root / "train"
    tests = [folder for folder in (root / "test", root / "val") if folder.is_dir()]
    if not train.is_dir() or not tests:
        test = (root / "test").absolute()
        raise DataError(
            f"imagefolder: no images at {train.absolute()}/CLASS/* and {test}/CLASS/* (or val "
            "instead of test). Set the data root to the folder that holds them."
        )
    classes = class_folders(train)
    test = next((folder for folder in tests if class_folders(folder) == classes), tests[0])
    different = sorted(set(classes) ^ set(class_folders(test)))
    if different:
        some = ", ".join(different[:5]) + (", ..." if len(different) > 5 else "")
        raise DataError(
            f"imagefolder: {train} and {test} have different classes; in one of them only: {some}."
        )
    return _raw(options, root, labeled(train, classes), labeled(test, classes), classes)


def load_tiny_imagenet(options: LoadOptions) -> RawData:
    """Read `tiny-imagenet-200/` below the data root, with `val/` as published or rearranged into
    class folders.

    Its published `val/` is the test set here, since the published test labels are secret. Raises
    `DataError`.
    """
    folder = options.root / TINY_FOLDER
    if not ((folder / "train").is_dir() and (folder / "val").is_dir()):
        TINY_SOURCE.obtain(options, lambda fetch: _unpack_tiny(options.root, fetch))
    wnids = class_folders(folder / "train")  # classes are named by their WordNet ids
    if len(wnids) != TINY_IMAGENET.classes:
        raise DataError(
            f"tiny-imagenet: {folder / 'train'} holds {len(wnids)} class folders, not 200. "
            f"{_UNPACK_AGAIN}"
        )
    rearranged = any((folder / "val" / wnid).is_dir() for wnid in wnids)
    test = labeled(folder / "val", wnids) if rearranged else _annotated(folder / "val")
    return _raw(
        options,
        folder,
        labeled(folder / "train", wnids),
        test,
        wnids,
        _english(folder / "words.txt", wnids),
    )


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in `folder`, sorted, without hidden ones."""
    return sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def labeled(folder: Path, classes: Iterable[str]) -> Labeled:
    """Every image file anywhere below `folder/CLASS`, sorted. Raises `DataError` for a class
    without images."""
    found: Labeled = []
    for name in classes:
        images = sorted(
            path
            for path in (folder / name).rglob("*")
            if path.suffix.lower() in EXTENSIONS and path.is_file()
        )
        if not images:
            looked_for = ", ".join(sorted(EXTENSIONS))
            raise DataError(f"no image in {(folder / name).absolute()} (looked for {looked_for}).")
        found += [(path, name) for path in images]
    return found


_UNPACK_AGAIN = f"Delete the folder and unpack again: {TINY_SOURCE.command}"


def _annotated(val: Path) -> Labeled:
    """The published layout: `images/` and a table that begins with file name and class."""
    table = val / "val_annotations.txt"
    if not table.is_file():
        raise DataError(
            f"tiny-imagenet: neither {table.absolute()} nor class folders in {val} found. "
            f"{_UNPACK_AGAIN}"
        )
    rows = [line.split("\t") for line in table.read_text().splitlines() if line.strip()]
    if any(len(row) < 2 for row in rows):
        raise DataError(
            f"tiny-imagenet: {table.absolute()} is damaged: a line has no class. {_UNPACK_AGAIN}"
        )
    found = [(val / "images" / row[0], row[1]) for row in rows]
    missing = [image for image, _ in found if not image.is_file()]
    if missing:
        raise DataError(
            f"tiny-imagenet: {len(missing)} files are missing, {missing[0]} for example. "
            f"{_UNPACK_AGAIN}"
        )
    return found


def _raw(
    options: LoadOptions,
    root: Path,
    train: Labeled,
    test: Labeled,
    classes: list[str],
    names: tuple[str, ...] = (),
) -> RawData:
    index = {name: i for i, name in enumerate(classes)}
    unknown = sorted({name for _, name in test} - set(index))
    if unknown:
        raise DataError(
            f"{root.absolute()}: the test images have a class that is not in train/: {unknown[0]}."
        )

    def split(images: Labeled) -> StreamSplit:
        return StreamSplit(
            root=root,
            files=tuple(path.relative_to(root).as_posix() for path, _ in images),
            labels=torch.tensor([index[name] for _, name in images], dtype=torch.int64),
            size=options.image_size or DEFAULT_IMAGE_SIZE,
            workers=options.workers,
            memory_budget=options.memory_budget,
        )

    return RawData(split(train), split(test), names or tuple(classes))


def _english(words: Path, wnids: list[str]) -> tuple[str, ...]:
    """The first English name of each class where `words.txt` gives one, else its WordNet id."""
    lines = words.read_text().splitlines() if words.is_file() else []
    table = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return tuple(table.get(wnid, wnid).split(",")[0].strip() for wnid in wnids)


def _unpack_tiny(root: Path, fetch: bool) -> None:
    from torchvision.datasets.utils import download_and_extract_archive

    if not fetch:
        raise FileNotFoundError(root / TINY_FOLDER)
    archive = TINY_SOURCE.archives[0]
    download_and_extract_archive(archive.url, str(root), filename=archive.path, md5=archive.md5)


TINY_IMAGENET = DatasetSpec(
    name="tiny-imagenet",
    shape=(3, 64, 64),
    classes=200,
    mean=(0.4802, 0.4481, 0.3975),
    std=(0.2770, 0.2691, 0.2821),
    eps=COLOR_EPS,
    load=load_tiny_imagenet,
    defaults={"model": "preact-resnet18-stem", "data": {"augment": ["crop-flip"]}},
    train_images=100_000,
)
IMAGEFOLDER = DatasetSpec(
    name="imagefolder",
    shape=None,
    classes=None,
    mean=(0.485, 0.456, 0.406),  # ImageNet's, as usual for photographs
    std=(0.229, 0.224, 0.225),
    eps=COLOR_EPS,
    load=load_imagefolder,
    defaults={"data": {"augment": ["crop-flip"], "val_size": 0.1}},
)
