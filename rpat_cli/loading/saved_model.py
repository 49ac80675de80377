"""A model that can be evaluated, and all that is known of where it comes from."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from rpat_cli.loading.architecture import Architecture
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.checkpoint import checksum
from rpat_cli.records.run_folder import RunFolder, is_run


@dataclass(frozen=True)
class SavedModel:
    """A model in eval mode, and what its checkpoint says of it. `epoch` counts from 1; 0 is
    unknown.

    `home`: where its results go, if that is not beside `file`. `source`: the program text that
    makes it, if that is not ours.
    """

    model: nn.Module
    architecture: Architecture
    file: Path
    epoch: int
    recipe: Recipe
    home: RunFolder | None = None
    source: str = ""

    @property
    def folder(self) -> RunFolder:
        """Where its results go: its run, or the folder that it lies in."""
        return self.home or run_of(self.file) or RunFolder(self.file.parent)

    def fingerprint(self) -> str:
        """sha256 (hex) that changes with the network, its weights, and the text that makes it."""
        return checksum(
            [str(self.model), self.model.state_dict(), *([self.source] if self.source else [])]
        )


def run_of(file: Path) -> RunFolder | None:
    """The run folder that a checkpoint lies in, if it lies in one."""
    root = file.resolve().parent.parent
    return RunFolder(file.parent.parent) if is_run(root) else None
