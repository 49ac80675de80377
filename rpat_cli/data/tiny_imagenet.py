"""Tiny-ImageNet: 64 x 64 pixels, 200 classes (Stanford's course CS231n), as published or rearranged
into a tree of class folders."""

from pathlib import Path

from rpat_cli.data.base import COLOR_EPS, DatasetSpec, LoadOptions, RawData
from rpat_cli.data.folders import raw_data
from rpat_cli.data.sources import File, Source
from rpat_cli.data.trees import Labeled, class_folders, labeled
from rpat_cli.errors import DataError
from rpat_cli.records.regular import read_regular

FOLDER = "tiny-imagenet-200"
SOURCE = Source(
    "tiny-imagenet",
    files=(File(f"{FOLDER}/train"), File(f"{FOLDER}/val")),
    archives=(
        File(
            f"{FOLDER}.zip",
            "90528d7ca1a48142e341f4ef8d21d0de",
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        ),
    ),
)
UNPACK_AGAIN = f"Delete the folder and unpack again: {SOURCE.command}"


def load_tiny_imagenet(options: LoadOptions) -> RawData:
    """Read `tiny-imagenet-200/` below the data root, with `val/` as published or rearranged into
    class folders.

    Its published `val/` is the test set here, since the published test labels are secret. Raises
    `DataError`.
    """
    folder = options.root / FOLDER
    needed = ("val",) if options.test_only else ("train", "val")
    if not all((folder / part).is_dir() for part in needed):
        SOURCE.obtain(options, lambda fetch: _unpack(options.root, fetch))
    wnids = _wnids(folder)
    if len(wnids) != TINY_IMAGENET.classes:
        raise DataError(
            f"tiny-imagenet: {folder} holds {len(wnids)} classes, not 200. {UNPACK_AGAIN}"
        )
    rearranged = any((folder / "val" / wnid).is_dir() for wnid in wnids)
    test = labeled(folder / "val", wnids) if rearranged else _annotated(folder / "val")
    return raw_data(
        options,
        folder,
        None if options.test_only else labeled(folder / "train", wnids),
        test,
        wnids,
        _english(folder / "words.txt", wnids),
    )


def _wnids(folder: Path) -> list[str]:
    """The classes, which are named by their WordNet ids."""
    if (folder / "train").is_dir():
        return class_folders(folder / "train")
    listed = folder / "wnids.txt"
    if listed.is_file():
        return sorted(_text(listed).split())
    rearranged = class_folders(folder / "val")
    if len(rearranged) > 1:
        return rearranged
    return sorted({name for _, name in _annotated(folder / "val")})


def _annotated(val: Path) -> Labeled:
    """The published layout: `images/` and a table that begins with file name and class."""
    table = val / "val_annotations.txt"
    if not table.is_file():
        raise DataError(
            f"tiny-imagenet: neither {table.absolute()} nor class folders in {val} found. "
            f"{UNPACK_AGAIN}"
        )
    rows = [line.split("\t") for line in _text(table).splitlines() if line.strip()]
    if any(len(row) < 2 for row in rows):
        raise DataError(
            f"tiny-imagenet: {table.absolute()} is damaged: a line has no class. {UNPACK_AGAIN}"
        )
    found = [(val / "images" / row[0], row[1]) for row in rows]
    missing = [image for image, _ in found if not image.is_file()]
    if missing:
        raise DataError(
            f"tiny-imagenet: {len(missing)} files are missing, {missing[0]} for example. "
            f"{UNPACK_AGAIN}"
        )
    return [(image.as_posix(), name) for image, name in found]


def _text(file: Path) -> str:
    try:
        return read_regular(file).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"tiny-imagenet: {file.absolute()} cannot be read: {error}. {UNPACK_AGAIN}"
        ) from error


def _english(words: Path, wnids: list[str]) -> tuple[str, ...]:
    """The first English name of each class where `words.txt` gives one, else its WordNet id."""
    lines = _text(words).splitlines() if words.is_file() else []
    table = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return tuple(table.get(wnid, wnid).split(",")[0].strip() for wnid in wnids)


def _unpack(root: Path, fetch: bool) -> None:
    from torchvision.datasets.utils import download_and_extract_archive

    if not fetch:
        raise FileNotFoundError(root / FOLDER)
    archive = SOURCE.archives[0]
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
