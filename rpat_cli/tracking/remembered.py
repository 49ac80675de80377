"""What a run remembers of its trackers from one session to the next."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rpat_cli.records.files import refuse_link, write_whole
from rpat_cli.records.regular import read_regular

NAME = "followed.json"


@dataclass
class Remembered:
    """The run's key among other runs, and the last epoch that each tracker has."""

    key: str
    epochs: dict[str, int]

    @classmethod
    def of(cls, folder: Path) -> "Remembered":
        """What is in a run's folder for trackers; a new key if that is nothing, or not sound."""
        try:
            state = json.loads(read_regular(folder / NAME))
            key, epochs = state["key"], dict(state["epochs"])
            if key.isalnum() and all(isinstance(epoch, int) for epoch in epochs.values()):
                return cls(key, epochs)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            pass
        return cls(secrets.token_hex(8), {})

    def write(self, folder: Path, epochs: Mapping[str, int]) -> None:
        """Raises `OSError` or `RunFolderError`."""
        self.epochs |= epochs
        make(folder)
        write_whole(folder / NAME, json.dumps({"key": self.key, "epochs": self.epochs}))


def make(folder: Path) -> None:
    """Make a folder within a run. Raises `OSError`, and `RunFolderError` if it leads elsewhere."""
    refuse_link(folder)
    folder.mkdir(parents=True, exist_ok=True)
