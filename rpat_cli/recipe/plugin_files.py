"""How the file of a plugin travels: named in a recipe with its checksum, copied into the run folder
with the files that it imports, and found there again.

    plugins: [plugins/mine.py#sha256=4f5c...]

A path that is not absolute is relative to the file that names it, in a checkpoint to the run
folder.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from rpat_cli.errors import RunFolderError
from rpat_cli.records.files import user_path
from rpat_cli.records.regular import read_regular

FOLDER = "plugins"
"""Where the copies are in a run folder."""

OURS = ("rpat_cli",)
"""What need not be copied, wherever it is."""

_NAMED = re.compile(r"(?P<path>.*?)(#sha256=(?P<checksum>[0-9a-f]{64}))?", re.DOTALL)


@dataclass(frozen=True)
class NamedPlugin:
    """A plugin as a recipe names it. `checksum`: of the file that was used (sha256, hex)."""

    path: Path
    checksum: str = ""

    @classmethod
    def parse(cls, text: str, source: str = "") -> "NamedPlugin":
        """`source` is where it is named. Raises `ConfigError` for what can be no path."""
        match = _NAMED.fullmatch(text)
        assert match is not None  # the pattern takes any text
        return cls(user_path(match["path"], "plugins", source), match["checksum"] or "")

    def __str__(self) -> str:
        return f"{self.path}#sha256={self.checksum}" if self.checksum else str(self.path)

    def inside(self, folder: Path) -> "NamedPlugin":
        """The same, where a path that is not absolute is meant relative to `folder`."""
        return NamedPlugin(folder / self.path, self.checksum)


def checksum_of(content: bytes) -> str:
    return sha256(content).hexdigest()


def keep(path: Path, content: bytes, folder: Path) -> NamedPlugin:
    """Copy a plugin into a run folder, with the files that it imports from beside it.

    `content` is what was run, which the file may no longer hold. Copies that are there already are
    left alone. Returns how a recipe in `folder` names the copy. Raises `RunFolderError`.
    """
    if (folder / FOLDER).is_symlink():
        message = f"{folder / FOLDER} is a link, and links in a run folder are not followed."
        raise RunFolderError(f"{message} Remove it.")
    files = {path.name: content, **_neighbors(path, content)}
    number = 1
    while not _fits(place := Path(FOLDER, *([str(number)] if number > 1 else [])), files, folder):
        number += 1  # a plugin of the same name, but with other content
    for name, text in files.items():
        copy = folder / place / name
        if not copy.exists():
            _write(copy, text)
    return NamedPlugin(place / path.name, checksum_of(content))


def _fits(place: Path, files: dict[str, bytes], folder: Path) -> bool:
    """Whether nothing else is in the places of these files."""
    for name, content in files.items():
        copy = folder / place / name
        if copy.is_symlink() or (copy.exists() and not copy.is_file()):
            return False
        if copy.is_file() and read_regular(copy) != content:
            return False
    return True


def _write(copy: Path, content: bytes) -> None:
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with copy.open("xb") as file:  # follows no link, replaces nothing
            file.write(content)
    except OSError as error:
        raise RunFolderError(f"cannot copy the plugin to {copy}: {error.strerror}.") from error


def _neighbors(path: Path, content: bytes) -> dict[str, bytes]:
    """The files in the folder of a Python file that it imports, and those that these import in
    turn, by their paths relative to the folder."""
    found: dict[str, bytes] = {}
    unread = [content]
    while unread:
        for name in _imports(unread.pop()):
            for file in _files_of(path.parent, name):
                relative = file.relative_to(path.parent).as_posix()
                if relative not in found and file != path:
                    found[relative] = read_regular(file)
                    unread.append(found[relative])
    return found


def _imports(content: bytes) -> Iterator[str]:
    """The first part of the name of every module that a program imports, anywhere in it."""
    try:
        nodes = list(ast.walk(ast.parse(content)))
    except (SyntaxError, ValueError):  # a neighbor that nobody imports in the end
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _files_of(folder: Path, module: str) -> list[Path]:
    """The files of a module or package in `folder`; none if it is not there."""
    if module in OURS or folder.name in ("site-packages", "dist-packages"):
        return []
    file, package = folder / f"{module}.py", folder / module
    if (package / "__init__.py").is_file():
        return sorted(path for path in package.rglob("*.py") if path.is_file())
    return [file] if file.is_file() else []
