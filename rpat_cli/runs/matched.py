"""What `rpat compare` has found, ready to be shown."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation.compare import Comparison


@dataclass
class Matched:
    """What was compared, on which images under which threat. `files_a` and `files_b`: which
    evaluation each attack is from."""

    comparisons: list[Comparison]
    data: str
    limit: int | str | None
    threat: Threat
    checkpoint_a: str
    checkpoint_b: str
    files_a: dict[Path, list[str]]
    files_b: dict[Path, list[str]]
    remarks: list[str] = field(default_factory=list)

    @property
    def measured(self) -> Iterator[tuple[str, str, dict[Path, list[str]]]]:
        """A and B: the checkpoint of each, and by file what it says, clean images the newest."""
        sides = (("A", self.checkpoint_a, self.files_a), ("B", self.checkpoint_b, self.files_b))
        for name, checkpoint, files in sides:
            newest = list(files)[-1]
            yield name, checkpoint, files | {newest: ["clean", *files[newest]]}

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON. `a` and `b` are the newest of the files used."""
        return {
            "a": str(list(self.files_a)[-1]),
            "b": str(list(self.files_b)[-1]),
            "data": {"name": self.data, "limit": self.limit, "n": self.comparisons[0].a.n},
            "threat": asdict(self.threat),
            "checkpoints": {"a": self.checkpoint_a, "b": self.checkpoint_b},
            "files": {
                name: {str(path): labels for path, labels in files.items()}
                for name, files in (("a", self.files_a), ("b", self.files_b))
            },
            "remarks": self.remarks,
            "comparisons": [each.to_dict() for each in self.comparisons],
        }
