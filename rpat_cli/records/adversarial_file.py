"""A file of adversarial examples: --save-adv FILE.npz writes it, --attack file:FILE.npz reads it.

images (N, C, H, W) float32 in [0, 1]: for each test image the worst example that any attack found;
labels, predictions, clean_predictions, index (N,) int64 (index: number in the test set, from 0);
attack (N,) text: the label of the attack that made it, "clean" where the image is as it was;
image_hash (N, 16) uint8: of the clean image (`hash_of`); threat: `Linf:0.03137254901960784`.

The arrays are stored as they are, not compressed, so that images are written and read in parts: no
more than a part is ever in memory. A file of somebody else needs `images` and `image_hash` alone;
it is data, and nothing in it can run code.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rpat_cli.errors import ConfigError, RunFolderError
from rpat_cli.records.files import creating
from rpat_cli.records.regular import irregular

HASH_BYTES = 16

_DAMAGE = (
    *(OSError, ValueError, EOFError, KeyError, MemoryError, NotImplementedError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error),
)


def hash_of(image: NDArray[Any]) -> bytes:
    """Tells clean images apart: of its pixels (C, H, W), rounded to 0 to 255."""
    pixels = np.rint(np.asarray(image, dtype=np.float64) * 255).astype(np.uint8)
    shape = repr(pixels.shape).encode()
    return hashlib.sha256(shape + pixels.tobytes()).digest()[:HASH_BYTES]


def write_adversarial(
    path: Path,
    shape: tuple[int, ...],
    parts: Iterator[NDArray[np.float32]],
    others: Callable[[], Mapping[str, NDArray[Any]]],
) -> Path:
    """Write images of that `shape` (N, C, H, W), which come in `parts`, then the `others`, which
    are known once the parts are.

    Returns where: under a free name, `FILE-2.npz` if FILE has appeared meanwhile. Raises
    `RunFolderError` if that fails.
    """
    try:
        with (
            creating(path) as (file, place),
            zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
        ):
            with archive.open("images.npy", "w", force_zip64=True) as member:
                _write_header(member, shape)
                for part in parts:
                    member.write(np.ascontiguousarray(part, dtype="<f4").tobytes())
            for name, array in others().items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        return place[0]
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror}.") from error


def _write_header(member: IO[bytes], shape: tuple[int, ...]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, header)


class AdversarialFile:
    """A file of adversarial examples, opened: `hashes` (N, 16), and images by their rows.

    Raises `ConfigError` for a file that is missing or of another form.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            if what := irregular(path):
                raise ValueError(f"it is {what}")
            with np.load(path, allow_pickle=False) as file:
                self.hashes = file["image_hash"]
            self._images = _mapped(path, "images.npy")
        except FileNotFoundError:
            raise ConfigError(f"there is no file {path}.") from None
        except _DAMAGE as error:
            reason = (str(error).splitlines() or ["no reason given"])[0]
            raise ConfigError(
                f"{path} holds no adversarial examples ({type(error).__name__}: {reason}). "
                "Write one with --save-adv."
            ) from None
        count = len(self._images)
        if self.hashes.shape != (count, HASH_BYTES) or self.hashes.dtype != np.uint8:
            raise ConfigError(f"{path}: image_hash must be uint8 ({count}, {HASH_BYTES}).")
        self._row = {entry.tobytes(): row for row, entry in enumerate(self.hashes)}

    def of(self, clean: NDArray[Any]) -> tuple[NDArray[np.float32], int]:
        """The examples of these clean images (B, C, H, W), and of how many the file has none; they
        stay as they are."""
        found = np.array(clean, dtype=np.float32)
        missing = 0
        for place, image in enumerate(clean):
            row = self._row.get(hash_of(image))
            if row is None or self._images[row].shape != image.shape:
                missing += 1
            else:
                found[place] = self._images[row]
        return found, missing


def _mapped(path: Path, name: str) -> NDArray[np.float32]:
    """The array of a member that is not compressed, read from the disk where it is used."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError("images are compressed; store them with numpy.savez")
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read(member)
            header = member.tell()
    if dtype != np.dtype("<f4") or len(shape) != 4 or fortran:
        raise ValueError(f"images must be float32 (N, C, H, W), not {dtype} {shape}")
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        lengths = file.read(4)
    name_length, extra_length = (int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2))
    offset = info.header_offset + 30 + name_length + extra_length + header
    return np.memmap(path, dtype="<f4", mode="r", offset=offset, shape=shape)
