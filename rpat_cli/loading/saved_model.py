"""A model that can be evaluated, and everything that is known of its origin."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from rpat_cli.loading.architecture import Architecture
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.checkpoint import checksum
from rpat_cli.records.run_folder import RunFolder, is_run


@dataclass(frozen=True)
class SavedModel:
    """A model in eval mode, and what its checkpoint records of it. `epoch` counts from 1; 0 means
    unknown.

    `home`: where its results go, if that is not the folder of `file`. `source`: the program text
    that defines the model, if it is a user's own. `at_hand`: it was given as an object, which is
    the caller's.
    """

    model: nn.Module
    architecture: Architecture
    file: Path
    epoch: int
    recipe: Recipe
    home: RunFolder | None = None
    source: str = ""
    at_hand: bool = False

    @property
    def folder(self) -> RunFolder:
        """Where its results go: its run folder, or the folder that its file is in."""
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
