"""Arrays in files of which single rows are read: .npy files, and the members of an .npz file that
are stored as they are.

Why not `np.load(mmap_mode="r")`: it reads .npy files only, and every page that was ever looked at
counts as this process's memory, so that random images of a large file would fill it after all.
"""

import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np

from rpat_cli.records.regular import open_regular

NPY, ZIP = b"\x93NUMPY", b"PK\x03\x04"
"""How the two kinds of files begin."""

BLOCK = 2**24
"""Bytes that are read at a time where all rows are wanted, one after another."""

_LOCAL_HEADER = struct.Struct("<26xHH")
"""Of a zip member: the lengths of its name and its extra field are at its end."""


@dataclass(frozen=True)
class ArrayFile:
    """An array (N, ...) in C order, which begins `offset` bytes into the file."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def read(self, file: IO[bytes], first: int, out: np.ndarray) -> None:
        """Fill `out` (K, ...) with the K rows from `first` on. `file` is open for reading, without
        a buffer. Raises `OSError`."""
        file.seek(self.offset + first * self.row_bytes)
        view = out.reshape(-1).view(np.uint8).data
        while len(view):
            got = file.readinto(view)  # type: ignore[attr-defined]
            if not got:
                raise EOFError("it ends before its last image")
            view = view[got:]

    def blocks(self, first: int = 0, rows: int | None = None) -> Iterator[np.ndarray]:
        """All rows, or so many from `first` on, in blocks of some MB. Raises `OSError`."""
        end = len(self) if rows is None else first + rows
        size = max(1, BLOCK // max(1, self.row_bytes))
        with open_regular(self.path, buffering=0) as file:
            for start in range(first, end, size):
                block = np.empty((min(size, end - start), *self.shape[1:]), self.dtype)
                self.read(file, start, block)
                yield block


Array: TypeAlias = ArrayFile | np.ndarray
"""One that is read row by row, or is in memory."""


def npy_array(path: Path) -> ArrayFile:
    """The array of an .npy file.

    Raises `OSError`, `ValueError` or `EOFError` for a damaged file, and for one whose rows cannot
    be read one by one.
    """
    with open_regular(path) as file:
        array = _described(path, file, path.stat().st_size)
    if array is None:
        raise ValueError("its array is none of numbers in C order")
    return array


def npz_arrays(path: Path) -> dict[str, ArrayFile | None]:
    """The arrays of an .npz file by name; None for those that are compressed, or whose rows cannot
    be read one by one for another reason.

    Raises `OSError`, `ValueError`, `EOFError` or `BadZipFile` for a damaged file.
    """
    found: dict[str, ArrayFile | None] = {}
    with open_regular(path) as file, zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            found[name] = None
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                continue
            file.seek(member.header_offset)
            header = file.read(_LOCAL_HEADER.size)
            name_length, extra_length = _LOCAL_HEADER.unpack(header)
            file.seek(name_length + extra_length, 1)
            end = file.tell() + member.file_size
            found[name] = _described(path, file, min(end, path.stat().st_size))
    return found


def _described(path: Path, file: IO[bytes], end: int) -> ArrayFile | None:
    """What the header says of the array that begins here and has to end before `end`."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        return None
    shape, fortran_order, dtype = readers[version](file)
    if not shape or dtype.hasobject or (fortran_order and len(shape) > 1):
        return None
    array = ArrayFile(path, file.tell(), shape, dtype)
    if array.offset + len(array) * array.row_bytes > end:
        raise EOFError("it ends before its last image")
    return array
