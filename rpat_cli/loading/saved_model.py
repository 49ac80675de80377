"""A model that can be evaluated, and everything that is known of its origin."""

import os
import re
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from torch import nn

from rpat_cli.errors import RunFolderError
from rpat_cli.loading.architecture import Architecture
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.checkpoint import checksum
from rpat_cli.records.files import user_path
from rpat_cli.records.run_folder import RUNS, RunFolder, is_run

EXTERNAL = RUNS / "external"
"""Where the results of models go that have no run folder of ours."""


@dataclass(frozen=True)
class SavedModel:
    """A model in eval mode, and what its checkpoint records of it. `epoch` counts from 1; 0 means
    unknown.

    `further_files`: the others of an ensemble, beside `file`.
    `home`: where its results go, if that is not the folder of `file`. `source`: the program text
    that defines the model, if it is a user's own. `at_hand`: it was given as an object, which is
    the caller's. Of a file of other code: `normalized`: how its normalization is known ("" where
    that is not in question); `recorded_acc`: the clean accuracy that the file records; `key`: the
    weights in it that were chosen. `remarks`: what its user may want to know of how it was loaded.
    `class_names`: of its outputs, where they are known.
    """

    model: nn.Module
    architecture: Architecture
    file: Path
    epoch: int
    recipe: Recipe
    home: RunFolder | None = None
    source: str = ""
    at_hand: bool = False
    normalized: str = ""
    recorded_acc: float | None = None
    key: str = ""
    remarks: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    further_files: tuple[Path, ...] = ()

    @property
    def folder(self) -> RunFolder:
        """Where its results go: its run folder, or the folder that its file is in. Models that rpat
        has not trained have a `home`."""
        return self.home or run_of(self.file) or RunFolder(self.file.parent)

    def fingerprint(self) -> str:
        """sha256 (hex) that changes with the network, its weights, and its program text."""
        identity = [str(self.model), self.model.state_dict()]
        if self.source:
            identity.append(self.source)
        return checksum(identity)


def run_of(file: Path) -> RunFolder | None:
    """The run folder that a checkpoint is in, if it is in one."""
    root = file.resolve().parent.parent
    return RunFolder(file.parent.parent) if is_run(root) else None


def external_folder(file: Path, name: str = "") -> RunFolder:
    """Where the results of a file go that is in no run: one folder per file, however many files
    have the same name."""
    path = str(file.resolve())
    readable = re.sub(r"[^\w+-]+", "-", name or file.stem)
    return RunFolder(EXTERNAL / f"{readable}-{sha256(os.fsencode(path)).hexdigest()[:8]}")


def with_home(saved: SavedModel, out: Path | None) -> SavedModel:
    """The model with its results in `out`, or where that is not given and its folder cannot be
    written to, in one under `EXTERNAL`.

    Raises `RunFolderError` if that cannot be written to either: a long evaluation would be lost.
    """
    if out is not None:
        saved = replace(saved, home=RunFolder(user_path(out, "out")))
    elif saved.home is None and not can_write(saved.folder.evals):
        folder = saved.folder.path
        home = external_folder(saved.file, f"{folder.resolve().name}-{saved.file.stem}")
        remark = f"{folder} cannot be written to: the results go to {home.path}"
        saved = replace(saved, home=home, remarks=(*saved.remarks, remark))
    if not can_write(saved.folder.evals):
        raise RunFolderError(
            f"the results cannot be written to {saved.folder.path}. Name a folder that you may "
            "write to with --out."
        )
    return saved


def can_write(folder: Path) -> bool:
    """Whether files can be made in a folder, which itself need not exist yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
