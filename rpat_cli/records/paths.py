"""Paths that people wrote."""

from pathlib import Path


def user_path(text: str | Path) -> Path:
    """The path that somebody wrote, with `~` expanded. Where there is no such home it stays as it
    is, and is not found."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def is_file(path: Path) -> bool:
    """Whether there is such a file; `False` also for what no file can be called, such as a name of
    thousands of characters."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
