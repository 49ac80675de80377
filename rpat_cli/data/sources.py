"""Where a data set's files belong, how they get there, and one clear message when they are missing
or damaged."""

import contextlib
import http.client
import io
import pickle
import socket
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rpat_cli.data.base import LoadOptions
from rpat_cli.errors import DataError
from rpat_cli.records.regular import irregular

T = TypeVar("T")

FAILURES = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    KeyError,
    pickle.UnpicklingError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    http.client.HTTPException,
)
"""What downloading, unpacking and reading files can raise; urllib's URLError is an OSError."""

SERVER_TIMEOUT = 30.0
"""Seconds of silence after which a server is given up: urllib would wait forever."""


@dataclass(frozen=True)
class File:
    """A file by its path relative to the data root; `md5` (hex) where the publisher gives one."""

    path: str
    md5: str | None = None
    url: str = ""

    def state(self, root: Path) -> str:
        """`"good"`, `"missing"` or `"damaged"`."""
        from torchvision.datasets.utils import check_integrity

        path = root / self.path
        if not path.exists():
            return "missing"
        return "good" if self.md5 is None or check_integrity(str(path), self.md5) else "damaged"


@dataclass(frozen=True)
class Source:
    """The files that make up the data set `name`, the archives that they are published in, and any
    other way to get them."""

    name: str
    files: tuple[File, ...]
    archives: tuple[File, ...]
    other_way: str = ""

    @property
    def command(self) -> str:
        return f"rpat train --data {self.name} --download"

    def obtain(self, options: LoadOptions, read: Callable[[bool], T]) -> T:
        """Call `read(fetch)`; `fetch` is true if a download was asked for, or if all archives are
        there and only need unpacking.

        Raises `DataError`, saying which file is missing or damaged, or why the download failed.
        """
        for file in (*self.files, *self.archives):
            path = options.root / file.path
            what = irregular(path)
            if what and not path.is_dir():  # of a pipe, reading would never end
                raise DataError(f"{self.name}: {path.absolute()} is {what}, not a file.")
        fetch = options.download or self._only_packed(options.root)
        try:
            with quiet_download():
                return read(fetch)
        except FAILURES as failure:
            raise self.diagnose(options, failure) from failure

    def diagnose(self, options: LoadOptions, failure: BaseException) -> DataError:
        """The error for a failed read: a damaged file, a failed download, or missing files."""
        root = options.root
        damaged = _first(root, (*self.files, *self.archives), "damaged")
        missing = _first(root, self.files, "missing")
        if options.download and (damaged or missing):
            half = f" {damaged.absolute()} is damaged or half downloaded." if damaged else ""
            return DataError(
                f"{self.name}: the download failed: {_reason(failure)}.{half} {self.by_hand(root)}"
            )
        if damaged:
            return self.damaged(damaged, "its checksum is wrong, it may be only half downloaded")
        if missing:
            return self.missing(root, missing)
        return DataError(
            f"{self.name}: the files in {root.absolute()} cannot be read: {_reason(failure)}."
        )

    def missing(self, root: Path, *looked_at: Path) -> DataError:
        """The error for missing files; `looked_at` are the paths that were tried."""
        places = " and ".join(str(path.absolute()) for path in looked_at)
        # A frequent mistake: the data root is the data set's own folder, not the one above it.
        nested = [file for file in (*self.files, *self.archives) if "/" in file.path]
        inside = next((file for file in nested if (root / Path(file.path).name).exists()), None)
        if inside is not None:
            return DataError(
                f"{self.name}: not found at {places}. {root.absolute()} lies inside the data set: "
                f"the data root should be the folder that holds {Path(inside.path).parts[0]}/."
            )
        other = f" (or: {self.other_way})" if self.other_way else ""
        return DataError(
            f"{self.name}: not found at {places}. Get it with: {self.command}{other}. "
            f"{self.by_hand(root)}"
        )

    def damaged(self, path: Path, why: str) -> DataError:
        """The error for a file that is there but damaged."""
        size = path.stat().st_size
        return DataError(
            f"{self.name}: {path.absolute()} ({size} bytes) is damaged: {why}. Delete it, then "
            f"run: {self.command}"
        )

    def _only_packed(self, root: Path) -> bool:
        unpacked = all((root / file.path).exists() for file in self.files)
        return not unpacked and all(archive.state(root) == "good" for archive in self.archives)

    def by_hand(self, root: Path) -> str:
        """Where to download the archives from and where to put them; several as URL/{a,b}, which a
        shell expands."""
        base = self.archives[0].url.rpartition("/")[0]
        names = [archive.url.rpartition("/")[2] for archive in self.archives]
        listed = names[0] if len(names) == 1 else "{" + ",".join(names) + "}"
        return (
            f"By hand: download {base}/{listed} into "
            f"{(root / self.archives[0].path).parent.absolute()}/"
        )


@contextlib.contextmanager
def quiet_download() -> Iterator[None]:
    """Inside, torchvision prints nothing on stdout, shows a progress bar only if stderr is a
    terminal, and does not wait forever for a server that has gone silent."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SERVER_TIMEOUT)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            if not sys.stderr.isatty():
                stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            yield
    finally:
        socket.setdefaulttimeout(timeout)


def _first(root: Path, files: Iterable[File], state: str) -> Path | None:
    """The path of the first file that is in that state."""
    return next((root / file.path for file in files if file.state(root) == state), None)


def _reason(failure: BaseException) -> str:
    return " ".join(str(failure).split()).rstrip(".") or type(failure).__name__
