"""What a command prints of its result."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Printing:
    """What `--quiet`, `--json` and `--json-full` ask for."""

    quiet: bool = False
    short_json: bool = False
    full_json: bool = False

    @property
    def as_json(self) -> bool:
        """The result as JSON, short or in full."""
        return self.short_json or self.full_json

    @property
    def silent(self) -> bool:
        """No lines of progress."""
        return self.quiet or self.as_json
