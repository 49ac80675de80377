"""Trees of image files as people have them on disk: which folders are splits and classes, which
files are images, and what is litter of operating systems and notebooks."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from rpat_cli.data.images import printable
from rpat_cli.errors import DataError

EXTENSIONS = frozenset(
    {
        *(".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe"),
        *(".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff"),
        ".webp",
    }
)

SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation"),
}
"""What the folders of the splits may be called, in upper or lower case."""

LITTER = frozenset(
    {
        *("__macosx", "__pycache__", "@eadir", "#recycle", "$recycle.bin", "lost+found"),
        "system volume information",
    }
)
"""Folders that systems leave behind, in lower case. What is hidden (`.ipynb_checkpoints`,
`._x.png`) is litter too."""

Labeled = list[tuple[str, str]]
"""The paths of image files, "/"-separated, with the names of their classes. As `Path`s, a million
of them would take a GB."""


def is_litter(name: str) -> bool:
    return name.startswith(".") or name.casefold() in LITTER


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in `folder`, sorted, without litter."""
    return sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not is_litter(path.name)
    )


def split_folder(root: Path, split: str) -> Path | None:
    """The folder of "train", "test" or "val" in `root`, if it has folders of classes in it."""
    names = class_folders(root) if root.is_dir() else []
    for spelling in SPLITS[split]:
        for name in names:
            if name.casefold() == spelling and class_folders(root / name):
                return root / name
    return None


def labeled(folder: Path, classes: Iterable[str]) -> Labeled:
    """Every image file anywhere below `folder/CLASS`, sorted. Raises `DataError` for a class
    without images."""
    found: Labeled = []
    for name in classes:
        images = sorted(images_below(folder / name))
        if not images:
            looked_for = ", ".join(sorted(EXTENSIONS))
            where = printable((folder / name).absolute())
            raise DataError(f"no image in {where} (looked for {looked_for}).")
        found += [(path.as_posix(), name) for path in images]
    return found


def images_below(folder: Path) -> Iterator[Path]:
    """Every image file anywhere below a folder. Raises `DataError` for folders that cannot be
    read."""
    for inner, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not is_litter(name)]
        for name in files:
            path = Path(inner, name)
            if path.suffix.lower() in EXTENSIONS and not is_litter(name):
                yield path


def _refuse(error: OSError) -> None:
    """A folder that cannot be read is no empty folder."""
    raise DataError(f"cannot read {printable(str(error.filename))}: {error.strerror}.")
