"""The worst adversarial examples of an evaluation, kept beside its file for people to look at.

`evals/NAME.examples.npz` belongs to `evals/NAME.json`. It is small and bounded, plain arrays alone,
and read as data: nothing in it can run code or ask for much memory.
"""

import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rpat_cli.errors import RunFolderError
from rpat_cli.records.files import refuse_link, replacing
from rpat_cli.records.regular import irregular

PER_CLASS = 4
"""Examples kept of each true class, at most."""

MOST = 40
"""Examples kept in all."""

MAX_BYTES = 2**28
"""Of one array: forty images of 1,000 x 1,000 pixels need more, and are not kept."""


@dataclass(frozen=True)
class Examples:
    """Some images that an attack broke, the worst (smallest margin) first; K may be 0.

    index (K,) int64: number of the image in the test set, from 0. y, clean_predicted, predicted
    (K,) int64: its class, and what the model sees in the clean and in the adversarial image. margin
    (K,) float32: of the adversarial image, at most 0. clean (K, C, H, W) uint8: its pixels, 0 to
    255. delta (K, C, H, W) float32: x_adv - x, in pixels of [0, 1]. attack (K,) text: the label of
    the attack that found it.
    """

    index: NDArray[np.int64]
    y: NDArray[np.int64]
    clean_predicted: NDArray[np.int64]
    predicted: NDArray[np.int64]
    margin: NDArray[np.float32]
    clean: NDArray[np.uint8]
    delta: NDArray[np.float32]
    attack: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def x_adv(self) -> NDArray[np.float32]:
        """The adversarial images (K, C, H, W), in [0, 1]."""
        x_adv: NDArray[np.float32] = (self.clean / np.float32(255) + self.delta).clip(0, 1)
        return x_adv


_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zipfile, zlib and numpy raise for a file of another content."""

_KINDS = {"clean": "u1", "delta": "f4", "margin": "f4", "attack": "U"}
"""The types of the arrays; the others are int64."""


def examples_path(evaluation: Path) -> Path:
    """Where the examples of `evals/NAME.json` are."""
    return evaluation.with_suffix(".examples.npz")


def write_examples(evaluation: Path, examples: Examples) -> Path:
    """Write them beside the file of their evaluation. Raises `RunFolderError` if that fails."""
    path = examples_path(evaluation)
    write_arrays(path, {each.name: getattr(examples, each.name) for each in fields(Examples)})
    return path


def read_examples(evaluation: Path) -> Examples | None:
    """The examples of an evaluation's file; `None` where none were kept, or the file is damaged,
    too large or no regular file: they illustrate, and no number depends on them."""
    arrays = read_arrays(examples_path(evaluation))
    if arrays is None or not {each.name for each in fields(Examples)} <= arrays.keys():
        return None
    examples = Examples(**{each.name: arrays[each.name] for each in fields(Examples)})
    return examples if _fits(examples) else None


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """An .npz file that appears complete or not at all. Raises `RunFolderError`."""
    refuse_link(path.parent)
    try:
        with replacing(path) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror}.") from error


def read_arrays(path: Path) -> dict[str, NDArray[Any]] | None:
    """The arrays of an .npz file; `None` for a file that is missing, damaged or too large."""
    if irregular(path) or not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        if any(member.file_size > MAX_BYTES for member in members) or len(members) > 20:
            return None
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except _DAMAGE:
        return None


def _fits(examples: Examples) -> bool:
    count = len(examples.index) if examples.index.ndim == 1 else -1
    if not 0 <= count <= MOST or examples.clean.ndim != 4:
        return False
    for each in fields(Examples):
        array = getattr(examples, each.name)
        kind = _KINDS.get(each.name, "i8")
        right = array.dtype.kind == "U" if kind == "U" else array.dtype == np.dtype(kind)
        if not right or len(array) != count:
            return False
    same = examples.clean.shape == examples.delta.shape
    finite = np.isfinite(examples.delta).all() and np.isfinite(examples.margin).all()
    return bool(same and finite and (np.abs(examples.delta) <= 1).all())
