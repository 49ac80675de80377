"""The models of RobustBench's leaderboards (Croce et al. 2021, arXiv 2010.09670): which network a
file holds, how it normalizes its images, and where the file lies.

`robustbench.tsv`, beside this file, has a row for each checkpoint in the zoo. Nothing is
downloaded: the files are taken from a folder that is laid out as RobustBench lays it out.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from rpat_cli.errors import CheckpointError, ConfigError, Problem, shortened
from rpat_cli.records.regular import read_regular
from rpat_cli.text import parse_number

PREFIX = "robustbench:"
FOLDER = "ROBUSTBENCH_DIR"
"""Environment variable: the folder with RobustBench's files."""

COLUMNS = [
    *("dataset", "threat", "entry", "architecture", "network", "normalization"),
    *("key", "files", "crop", "eps", "clean_acc"),
]

OF_FILE = "file"
"""The constants are in the file."""

CROPS: dict[str, dict[str, Any]] = {
    "": {},
    "Res256Crop224": {"image_size": 224, "center_crop": 0.875, "interpolation": "bilinear"},
    "BicubicRes256Crop224": {"image_size": 224, "center_crop": 0.875, "interpolation": "bicubic"},
}
"""Keys of `data` with which folders of image files become what a model was measured on."""


@dataclass(frozen=True)
class Entry:
    """A row: a model of one leaderboard.

    `network` is its name in rpat, "" where there is none for it. `normalization`: as `--normalize`
    takes it, or `per-image` (each by itself), or `OF_FILE`. `key`: under which its file has the
    weights, if it has several. `files`: how many there are; several are an `Ensemble`.
    `eps` is None on the leaderboards of corruptions. `clean_acc`: a fraction, as published.
    """

    dataset: str
    threat: str
    name: str
    architecture: str
    network: str
    normalization: str
    key: str
    files: int
    crop: str
    eps: float | None
    clean_acc: float | None

    def __str__(self) -> str:
        return f"{PREFIX}{self.dataset}/{self.threat}/{self.name}"

    @property
    def data(self) -> str:
        """The data set's name in rpat."""
        return "imagefolder" if self.dataset == "imagenet" else self.dataset

    @property
    def file_names(self) -> list[str]:
        if self.files == 1:
            return [f"{self.name}.pt"]
        return [f"{self.name}.pt_m{i}.pt" for i in range(self.files)]

    def recipe_values(self) -> dict[str, Any]:
        """What a recipe says of it: its data set, with the images' size and crop, and its threat
        model."""
        values: dict[str, Any] = {"data": {"name": self.data, **CROPS.get(self.crop, {})}}
        if self.eps is not None:
            values["threat"] = {"norm": self.threat, "eps": self.eps}
        return values


@cache
def entries() -> list[Entry]:
    """All of them, in the order of the leaderboards."""
    text = read_regular(Path(__file__).with_name("robustbench.tsv")).decode()
    lines = [line.split("\t") for line in text.splitlines()]
    return [_entry(dict(zip(lines[0], line, strict=True))) for line in lines[1:]]


def _entry(row: Mapping[str, str]) -> Entry:
    return Entry(
        *(row["dataset"], row["threat"], row["entry"], row["architecture"], row["network"]),
        *(row["normalization"], row["key"], int(row["files"]), row["crop"]),
        eps=float(parse_number(row["eps"])) if row["eps"] else None,
        clean_acc=float(row["clean_acc"]) / 100 if row["clean_acc"] else None,
    )


def is_entry(name: str) -> bool:
    """Whether a name is of the form `robustbench:NAME`."""
    return name.startswith(PREFIX)


def find_entry(name: str, data: str | None, norm: str | None) -> Entry:
    """The entry of `robustbench:NAME` or `robustbench:DATASET/THREAT/NAME`.

    The same name is often on several leaderboards: `data` and `norm`, where they are given, choose
    among them; without a norm it is the one of Linf, if there is one, and one that can be loaded.
    Raises `ConfigError` for a name that is unknown, is on several leaderboards still, or has no
    network in rpat.
    """
    *board, last = name.removeprefix(PREFIX).split("/")
    named = [entry for entry in entries() if entry.name.lower() == last.lower()]
    if board:
        named = [entry for entry in named if [entry.dataset, entry.threat] == board]
    if not named:
        raise ConfigError(Problem("", _unknown(last), shortened(name)))
    named = _narrowed(named, data, norm)
    if len(named) > 1:
        several = ", ".join(map(str, named))
        message = f"is on {len(named)} leaderboards."
        raise ConfigError(Problem("", message, name, f"Name one of them: {several}."))
    return _with_network(named[0])


def _narrowed(named: list[Entry], data: str | None, norm: str | None) -> list[Entry]:
    """Those of the data set, then of the norm, then with a network; what leaves none is ignored."""
    named = [entry for entry in named if entry.data == data] or named
    named = [entry for entry in named if entry.threat == (norm or "Linf")] or named
    return [entry for entry in named if entry.network] or named


def _with_network(entry: Entry) -> Entry:
    if entry.network:
        return entry
    message = f"is a network that rpat does not have: {entry.architecture}."
    hint = (
        "Write a function that builds it and loads its file: --model-file FILE.py:FUNCTION. "
        "docs/models.md lists what can be loaded."
    )
    raise ConfigError(Problem("", message, str(entry), hint))


def _unknown(name: str) -> str:
    names = list(dict.fromkeys(entry.name for entry in entries()))
    near = get_close_matches(shortened(name), names, n=4, cutoff=0.5)
    meant = f" Did you mean {', '.join(near)}?" if near else ""
    return (
        f"there is no such entry among the {len(names)} names of RobustBench's model zoo that "
        f"rpat knows.{meant} Example: {PREFIX}Carmon2019Unlabeled"
    )


def find_files(entry: Entry, roots: Sequence[Path]) -> list[Path]:
    """The files of an entry, in the first folder that has them all: `$ROBUSTBENCH_DIR`, then
    `roots`.

    Raises `CheckpointError`, naming the files and where they belong, if there is none.
    """
    given = os.environ.get(FOLDER)
    folders = [*([Path(given)] if given else []), *roots]
    places = [place for folder in folders for place in _places(entry, folder)]
    for place in places:
        files = [place / name for name in entry.file_names]
        if all(file.is_file() for file in files):
            return files
    wanted = " and ".join(entry.file_names)
    looked = ", ".join(str(place) for place in dict.fromkeys(places))
    raise CheckpointError(
        f"{entry}: there is no {wanted} in any of {looked}. Nothing is downloaded: copy what "
        f"RobustBench has saved there, to {places[0]}, or name its folder of models with "
        f"--data-root or ${FOLDER}."
    )


def _places(entry: Entry, folder: Path) -> Iterator[Path]:
    """Where RobustBench saves a file, below its folder of models or the folder around that; or just
    the folder."""
    for above in (folder, folder / "models"):
        yield above / entry.dataset / entry.threat
    yield folder


def entries_of_file(file: Path, data: str) -> list[Entry]:
    """The entries that a file is of by its name, if the images are of their data set; first those
    of the leaderboard that the file's folder is called after."""
    alike = [
        entry
        for entry in entries()
        if file.name == f"{entry.name}.pt" and entry.network and entry.data == data
    ]
    threat = file.resolve().parent.name
    return sorted(alike, key=lambda entry: entry.threat != threat)


def preferred_key(alike: Sequence[Entry]) -> str:
    """Under which key a file of these entries has the weights, if it has several."""
    return next((entry.key for entry in alike), "")
