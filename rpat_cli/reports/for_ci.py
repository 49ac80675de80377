"""`rpat eval --sarif FILE --junit FILE`: an evaluation for CI systems."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from rpat_cli.diagnostics import Result
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.loading.load import split_key
from rpat_cli.loading.saved_model import can_write
from rpat_cli.records.files import user_path, write_whole
from rpat_cli.records.regular import irregular, read_regular
from rpat_cli.reports.cases import Evaluated, Told, cases_of, figures_of
from rpat_cli.reports.junit import junit
from rpat_cli.reports.sarif import sarif


@dataclass(frozen=True)
class Format:
    """`text`: the whole file. `mark`: what the beginning of every file that it made holds."""

    text: Callable[[Told], str]
    mark: bytes


FORMATS: Mapping[str, Format] = {
    "--sarif": Format(sarif, b'"name": "rpat"'),
    "--junit": Format(junit, b'<testsuites name="rpat"'),
}
BEGINNING = 1000
"""Bytes in which the mark of a format is."""


def check_places(files: Mapping[str, Path]) -> dict[str, Path]:
    """The files by their flags, with `~` expanded.

    CI systems run the same command again: what an earlier one has written is replaced, and nothing
    else is. Raises `ConfigError` with all that is wrong.
    """
    problems = []
    places: dict[str, Path] = {}
    for flag, file in files.items():
        path = user_path(file, flag)
        if reason := _reason_against(path, FORMATS[flag].mark):
            problems.append(Problem(flag, f"{path} {reason}", "", "Name another file."))
        elif os.path.realpath(path) in map(os.path.realpath, places.values()):
            message = f"{path} is named by {' and '.join([*places, flag])}."
            problems.append(Problem(flag, message, "", "Give each a file of its own."))
        places[flag] = path
    if problems:
        raise ConfigError(*problems)
    return places


def _reason_against(path: Path, mark: bytes) -> str:
    try:
        if path.is_symlink():
            return "is a link, and is not followed."
        if what := irregular(path):
            return f"is {what}, and not a file."
        if not can_write(path.parent):  # said now: a long evaluation comes before the writing
            return f"cannot be written: {path.parent} is no folder that you may write to."
        if not path.exists():
            return ""
        beginning = read_regular(path, BEGINNING)
    except OSError as error:
        return f"cannot be read: {error.strerror}."
    if beginning and mark not in beginning:
        return "is there already and was not written by this option: it is not overwritten."
    return ""


def write_for_ci(
    files: Mapping[str, Path], target: Path, evaluated: Evaluated, diagnostics: Mapping[str, Result]
) -> None:
    """Write each format that was asked for. Raises `RunFolderError` if that fails."""
    told = Told(
        model=uri_of(target),
        cases=cases_of(evaluated, diagnostics),
        figures=figures_of(evaluated),
        files=[uri_of(file) for _, file in evaluated],
    )
    for flag, path in files.items():
        write_whole(path, FORMATS[flag].text(told))


def uri_of(path: Path) -> str:
    """Relative to the working directory if it is below, as CI systems need it; of a run folder its
    recipe, and of FILE:KEY the file. What is no file, such as `torchvision:NAME`, is quoted."""
    path, _ = split_key(path)
    if not path.exists():
        return quote(str(path), errors="surrogateescape")
    if (path / "recipe.yaml").is_file():
        path = path / "recipe.yaml"
    path, here = path.resolve(), Path.cwd().resolve()
    if path.is_relative_to(here):
        return quote(path.relative_to(here).as_posix(), errors="surrogateescape")
    return path.as_uri()
